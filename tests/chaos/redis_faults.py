"""Faults of Redis that only it can have: no memory, no data, old data, slots that move."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

from console.local.stack import Server
from tests.chaos.act import Act, nothing
from tests.chaos.links import Links
from tests.chaos.processes import kill, launch
from tests.chaos.redis import RedisServers
from tests.helpers.pace import PACE
from tests.helpers.redis_clusters import ask_plainly, move_slot
from tests.helpers.redis_servers import ask, ask_running
from tests.helpers.servers import eventually

_GROUP = "redis"
_SLOTS_AT_ONCE = 20
_TAKE_OVER_S = 20 * PACE


def out_of_memory(redis: RedisServers, rng: random.Random) -> Act:
    """Let every server refuse writes."""

    async def limit(value: str) -> None:
        await ask_running(redis.servers, "CONFIG", "SET", "maxmemory", value)

    return Act("redis:oom", "all", _GROUP, rng.uniform(2, 10), partial(limit, "1mb"), partial(limit, "0"))


def emptied(redis: RedisServers, rng: random.Random) -> Act:
    """Delete all data of one primary."""

    async def flush() -> None:
        await ask(rng.choice(await redis.primaries()), "FLUSHALL")

    return Act("redis:emptied", "a primary", _GROUP, 0, flush, nothing)


def stale(redis: RedisServers, rng: random.Random) -> Act:
    """Kill the server some seconds after a copy of its data was made, and start it with the copy."""
    (server,) = redis.servers
    data = redis.directories[server.name]
    copy = data.with_name(f"{data.name}-copy")

    async def take() -> None:
        await asyncio.to_thread(_copy, data, copy)

    async def restore() -> None:
        await kill(server)
        await asyncio.to_thread(_copy, copy, data)
        await launch(server)

    return Act("redis:stale", server.name, _GROUP, rng.uniform(2, 10), take, restore)


def stale_failover(redis: RedisServers, links: Links, rng: random.Random) -> Act:
    """Freeze the replicas of a primary, kill it after a while, and let them go on: one that lags takes over."""
    frozen: list[Server] = []
    dead: list[Server] = []

    async def begin() -> None:
        primary = rng.choice(await redis.primaries())
        dead.append(primary)
        for server in redis.servers:
            if server is not primary and await _follows(server, primary, redis):
                server.pause()
                frozen.append(server)

    async def end() -> None:
        if not dead:
            return
        await kill(dead[0])
        for link in links.of(["worker-redis"]):
            if link.name.endswith(f">{dead[0].name}"):
                await links.cut(link)  # what a replica has not read yet is gone
        for server in frozen:
            server.resume()

        async def took_over() -> bool:
            return any(server in frozen for server in await redis.primaries())

        with suppress(AssertionError):  # with too few replicas left, none does
            await eventually(took_over, timeout_s=_TAKE_OVER_S)
        await launch(dead[0])

    return Act("redis:stale-failover", "a primary and its replicas", _GROUP, rng.uniform(1, 6), begin, end)


async def _follows(server: Server, primary: Server, redis: RedisServers) -> bool:
    if redis.layout == "sentinel":
        return True
    role = (await ask_running([server], "ROLE")) or [[""]]
    own = str(await ask_plainly(primary, "CLUSTER", "MYID"))
    nodes = str(await ask_plainly(server, "CLUSTER", "NODES"))
    return cast("list[str]", role[0])[0] == "slave" and any("myself" in line and own in line for line in nodes.splitlines())


def moving_slots(redis: RedisServers, rng: random.Random) -> Act:
    """Move slots that hold keys from one master to another, key by key, while calls fold."""

    async def move() -> None:
        source, target = rng.sample(await redis.primaries(), 2)
        slots = set()
        for _ in range(_SLOTS_AT_ONCE):
            if key := await ask(source, "RANDOMKEY"):
                slots.add(int(str(await ask_plainly(source, "CLUSTER", "KEYSLOT", str(key)))))
        for slot in sorted(slots):
            await move_slot(slot, source, target)

    return Act("redis:slots", "one master to another", _GROUP, 0, move, nothing)


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
