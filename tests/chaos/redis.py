"""Redis for a chaos run: the servers, and how each client reaches them through the links."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from console.local.ports import free_port
from console.local.stack import REDIS_PROBE, Server
from tests.chaos.links import Links

_CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "redis.conf"


@dataclass(slots=True)
class RedisServers:
    """The servers of one layout, and the URL of each client."""

    servers: list[Server]
    directories: dict[str, Path]
    urls: dict[str, str]
    sentinels: list[Server] = field(default_factory=list)


@asynccontextmanager
async def single(directory: Path, links: Links, clients: Sequence[str]) -> AsyncIterator[RedisServers]:
    """Run one server; each client has a link of its own."""
    server = redis_server(directory / "redis", "redis")
    async with AsyncExitStack() as closing:
        closing.push_async_callback(server.kill)
        await server.start()
        ports = {client: await links.open("worker-redis", client, "redis", server.port) for client in clients}
        urls = {client: f"redis://127.0.0.1:{port}/0" for client, port in ports.items()}
        yield RedisServers([server], {"redis": directory / "redis"}, urls)


def redis_server(data: Path, name: str, *options: str) -> Server:
    """Return a server with the shipped configuration and its data in a directory."""
    data.mkdir(parents=True)
    port = free_port()
    command = ["redis-server", str(_CONFIG), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), *options]
    return Server(name, command, os.environ | {"LC_ALL": "C"}, port=port, log=data / "log", probe=REDIS_PROBE)
