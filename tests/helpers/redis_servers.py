"""Private Redis servers of one test, which it may make replicas, fill up or kill."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from console.local.ports import free_port
from console.local.stack import REDIS_PROBE, Server
from shared.state.store import Store
from tests.helpers.pace import PACE
from tests.helpers.servers import eventually

_FROZEN_S = PACE


@asynccontextmanager
async def redis_server(directory: Path, *options: str) -> AsyncIterator[Server]:
    """Start a server without persistence until the block ends; `options` are those of `redis-server`."""
    directory.mkdir(exist_ok=True)
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--dir", str(directory), "--repl-diskless-sync-delay", "0", *options]
    server = Server("redis", command, os.environ | {"LC_ALL": "C"}, port=port, log=directory / "log", probe=REDIS_PROBE)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def started(servers: Sequence[Server]) -> AsyncIterator[None]:
    """Start servers together, and kill them at the end; a test may have stopped or paused some."""
    async with AsyncExitStack() as closing:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                closing.push_async_callback(server.kill)
                group.create_task(server.start())
        yield


async def ask(server: Server, *command: str | int, is_raw: bool = False) -> object:
    """Send one command to a server; `is_raw`: the library does not interpret the answer."""
    async with Redis(port=server.port, decode_responses=True, protocol=2) as redis:
        if is_raw:
            redis.response_callbacks.clear()
        answer: object = await redis.execute_command(*command)  # type: ignore[no-untyped-call]
        return answer


async def ask_running(servers: Sequence[Server], *command: str | int) -> list[object]:
    """Send one command to each server that runs and is not frozen, and return the answers as the servers give them."""
    answers = []
    for server in servers:
        with suppress(TimeoutError, RedisError, OSError):
            async with asyncio.timeout(_FROZEN_S):
                answers.append(await ask(server, *command, is_raw=True))
    return answers


async def info(server: Server) -> dict[str, object]:
    async with Redis(port=server.port, decode_responses=True) as redis:
        return dict(await redis.info())


async def demote(server: Server, master: Server) -> None:
    """Make a server a replica, and wait until it follows its master."""
    await ask(server, "REPLICAOF", "127.0.0.1", master.port)

    async def follows() -> bool:
        return (await info(server)).get("master_link_status") == "up"

    await eventually(follows)


async def fail_over(old: Server, new: Server) -> None:
    """Make a replica the master once it has everything, and the master its replica."""

    async def has_everything() -> bool:
        found = await info(old)
        replica = cast("Mapping[str, int]", found["slave0"])
        return replica["offset"] == found["master_repl_offset"]

    await ask(old, "CLIENT", "PAUSE", 60_000, "WRITE")  # else it could write more
    await eventually(has_everything)
    await promote(new)
    await demote(old, new)
    await ask(old, "CLIENT", "UNPAUSE")


async def promote(server: Server) -> None:
    await ask(server, "REPLICAOF", "NO", "ONE")


async def replicas_confirm(store: Store) -> bool:
    """Ask the replicas of a store again. They have a second to confirm, which can be too short on a busy machine."""
    await store.verify()
    return store.handicaps == []
