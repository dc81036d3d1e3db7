"""Losses of a Redis under Sentinels: an old snapshot is restored, or a replica takes over whose replication was stalled."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import cast

from tests.chaos.act import Act, nothing
from tests.chaos.links import Link, Links
from tests.chaos.processes import kill, launch
from tests.chaos.redis import RedisServers
from tests.helpers.pace import PACE
from tests.helpers.redis_sentinels import SERVICE
from tests.helpers.redis_servers import ask_running
from tests.helpers.servers import eventually

_GROUP = "redis"
_TAKE_OVER_S = 30 * PACE
_STALLED_S = (1, 7)  # a replica gives up a connection that is silent for 10 s
_PARTS = ("appendonlydir", "dump.rdb")


class Snapshots:
    """Copies of the data of a primary: one of the start, which stays, and one of the latest time that a copy was restored."""

    def __init__(self, redis: RedisServers) -> None:
        self._redis = redis
        self._directory = redis.directories[redis.servers[0].name].parent
        self._taken: dict[str, float] = {}
        self._take(redis.directories[redis.servers[0].name], "oldest")

    def restored(self, rng: random.Random) -> Act:
        """Draw a restore: every server is killed, gets the data of one copy, and is started again."""
        name = rng.choice(sorted(self._taken))
        age_s = time.time() - self._taken[name]
        return Act("redis:restored", f"all from a copy of {age_s:.0f} s ago", _GROUP, 0, lambda: self._restore(name), nothing)

    async def _restore(self, name: str) -> None:
        redis = self._redis
        latest = (await redis.primaries() or redis.servers)[0]
        await asyncio.gather(*(kill(server) for server in redis.servers))
        try:
            await asyncio.to_thread(self._take, redis.directories[latest.name], "next")
            for directory in redis.directories.values():
                await asyncio.to_thread(_replace, self._directory / f"snapshot-{name}", directory)
            await asyncio.to_thread(self._rename, "next", "latest")
        finally:
            await asyncio.gather(*(launch(server) for server in redis.servers))

    def _take(self, data: Path, name: str) -> None:
        copy = self._directory / f"snapshot-{name}"
        copy.mkdir(exist_ok=True)
        _replace(data, copy)
        self._taken[name] = time.time()

    def _rename(self, name: str, to: str) -> None:
        shutil.rmtree(self._directory / f"snapshot-{to}", ignore_errors=True)
        (self._directory / f"snapshot-{name}").rename(self._directory / f"snapshot-{to}")
        self._taken[to] = self._taken.pop(name)


def _replace(source: Path, target: Path) -> None:
    """Replace the data in a directory. The configuration stays: Sentinels have written roles into it."""
    for part in _PARTS:
        shutil.rmtree(target / part, ignore_errors=True)
        (target / part).unlink(missing_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part)
        elif (source / part).exists():
            shutil.copy2(source / part, target / part)


def stalled_failover(redis: RedisServers, links: Links, rng: random.Random) -> Act:
    """Stall what the primary sends to its replicas, and kill it after a while. One of the replicas takes over without that."""
    primary = redis.servers[0]
    broken: list[Link] = []

    async def begin() -> None:
        nonlocal primary
        primary = rng.choice(await redis.primaries())
        broken.extend(link for link in links.of(["worker-redis"]) if link.name.endswith(f">{primary.name}"))
        for link in broken:
            await links.set(link, stall=("down",), replicas_only=True)

    async def end() -> None:
        if not broken:
            return
        ports = await _named(redis)
        await kill(primary)
        for link in broken:
            await links.cut(link)  # what the proxy still holds is gone
            await links.set(link)

        async def is_replaced() -> bool:
            return ports.isdisjoint(await _named(redis))

        with suppress(AssertionError):  # Sentinels are broken too
            await eventually(is_replaced, timeout_s=_TAKE_OVER_S)
        await launch(primary)

    return Act("redis:stalled-failover", "the primary", _GROUP, rng.uniform(*_STALLED_S), begin, end)


async def _named(redis: RedisServers) -> set[str]:
    """Return the ports that the Sentinels name as that of the primary."""
    answers = await ask_running(redis.sentinels, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
    return {cast("list[str]", answer)[1] for answer in answers if answer}
