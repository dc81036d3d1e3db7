"""A primary, replicas and Sentinels on this machine: `async with redis_sentinels(directory) as redis`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from console.local.ports import free_port
from console.local.stack import REDIS_PROBE, Server
from tests.helpers.pace import PACE
from tests.helpers.redis_servers import ask, ask_running, info, started
from tests.helpers.servers import eventually

SERVICE = "calls"
_DOWN_AFTER_MS = round(1000 * PACE)


@dataclass(frozen=True, slots=True)
class RedisSentinels:
    """Servers that Sentinels watch. The first of `servers` is the primary at the start.

    Each of `servers` and `sentinels` can be paused, killed and started again; it keeps its port and configuration.
    """

    servers: Sequence[Server]
    sentinels: Sequence[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    async def primary(self) -> Server:
        """Return the server that most Sentinels name."""
        named = [_fields(answer)["port"] for answer in await ask_running(self.sentinels, "SENTINEL", "MASTER", SERVICE)]
        port = int(max(set(named), key=named.count))
        return next(server for server in self.servers if server.port == port)

    async def settle(self) -> None:
        """Wait until every Sentinel knows the same primary, all replicas and all other Sentinels, and all replicas follow."""

        async def is_settled() -> bool:
            states = [await _state(sentinel) for sentinel in self.sentinels]
            if len({(state["ip"], state["port"]) for state in states}) > 1:
                return False
            if any(state["num-other-sentinels"] != str(len(self.sentinels) - 1) for state in states):
                return False
            if any(state["num-slaves"] != str(len(self.servers) - 1) or state["flags"] != "master" for state in states):
                return False
            (primary,) = [server for server in self.servers if str(server.port) == states[0]["port"]]
            found = await info(primary)
            return found["role"] == "master" and all(
                f"slave{number}" in found and found[f"slave{number}"]["state"] == "online"  # type: ignore[index]
                for number in range(len(self.servers) - 1)
            )

        await eventually(is_settled)


async def primary_port(sentinel: Server) -> int:
    """Return the port of the primary that a Sentinel names."""
    return int((await _state(sentinel))["port"])


async def _state(sentinel: Server) -> dict[str, str]:
    return _fields(await ask(sentinel, "SENTINEL", "MASTER", SERVICE, is_raw=True))


def _fields(flat: object) -> dict[str, str]:
    values = cast("list[str]", flat)
    return dict(zip(values[::2], values[1::2], strict=True))


@asynccontextmanager
async def redis_sentinels(
    directory: Path,
    *options: str,
    replicas: int = 2,
    sentinels: int = 3,
    sentinel_options: Sequence[str] = (),
    program: str = "redis-server",
) -> AsyncIterator[RedisSentinels]:
    """Start servers and Sentinels until the block ends; `options` are those of each server, lines of `sentinel.conf` the others.

    A Sentinel that lost the primary for a second says so, and a majority of them promotes a replica.
    """
    directory.mkdir(exist_ok=True)
    ports = [free_port() for _ in range(1 + replicas)]
    servers = []
    for number, port in enumerate(ports):
        role = ["--replicaof", "127.0.0.1", str(ports[0])] if number else []
        servers.append(_server(directory / f"redis-{number}", program, port, [*role, *options]))
    watchers = [
        sentinel(directory / f"sentinel-{n}", program, ports[0], sentinels // 2 + 1, sentinel_options) for n in range(sentinels)
    ]
    async with started(servers[:1]), started(servers[1:]), started(watchers):
        redis = RedisSentinels(servers, watchers)
        await redis.settle()
        yield redis


def _server(directory: Path, program: str, port: int, options: Sequence[str]) -> Server:
    directory.mkdir()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    command += ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *options]
    return Server("redis", command, os.environ | {"LC_ALL": "C"}, port=port, log=directory / "log", probe=REDIS_PROBE)


def sentinel(directory: Path, program: str, primary: int, quorum: int, options: Sequence[str]) -> Server:
    """Write the configuration of a Sentinel, which rewrites it, and return the process."""
    directory.mkdir()
    port, file = free_port(), directory / "sentinel.conf"
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {directory}",
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} {quorum}",
        f"sentinel down-after-milliseconds {SERVICE} {_DOWN_AFTER_MS}",
        f"sentinel failover-timeout {SERVICE} {10 * _DOWN_AFTER_MS}",
        *options,
    ]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    command = [program, str(file), "--sentinel"]
    return Server("sentinel", command, os.environ | {"LC_ALL": "C"}, port=port, log=directory / "log", probe=REDIS_PROBE)


async def fail_over(redis: RedisSentinels) -> Server:
    """Have the Sentinels promote a replica, and return the new primary; the old one is frozen and may go on later."""
    old = await redis.primary()
    old.pause()

    async def is_promoted() -> Server | None:
        new = await redis.primary()
        return new if new is not old and (await info(new))["role"] == "master" else None

    new = await eventually(is_promoted)
    assert isinstance(new, Server)
    return new
