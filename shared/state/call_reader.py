"""Reading calls from Redis without changing anything: one call, the open ones, the newest ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import cast

from redis.asyncio import Redis

from shared.domain.ids import CallKey
from shared.state.keys import (
    PARTITIONS,
    Folded,
    State,
    facts_key,
    open_key,
    partition,
    publication_key,
    read_key,
    recent_key,
    redis_reply,
    text,
)


class CallReader:
    """Every method raises StoreUnavailableError while Redis cannot do it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, key: CallKey) -> Folded | None:
        """Read a call as it is, without changing anything; None where Redis has no facts of it."""
        number = partition(key)

        async def ask() -> list[object]:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(facts_key(number, key))
                pipe.hmget(publication_key(number, key), "revision", "state", "summary", "version")
                pipe.zscore(open_key(number), str(key))
                return cast("list[object]", await pipe.execute())

        facts, publication, wake_at = cast(
            "tuple[dict[bytes, bytes], list[bytes | None], float | None]", await redis_reply(ask())
        )
        if not facts:
            return None
        revision, state, summary, version = (text(value or "") for value in publication)
        told = {text(name): text(value) for name, value in facts.items()}
        return Folded(told, int(revision or 0), State(state), summary, version, None if wake_at is None else round(wake_at))

    async def read_many(self, keys: Iterable[CallKey]) -> dict[CallKey, Folded]:
        """Read calls as they are; those of which Redis has no facts are left out."""
        wanted = list(keys)
        states = await asyncio.gather(*(self.read(key) for key in wanted))
        return {key: state for key, state in zip(wanted, states, strict=True) if state is not None}

    async def load(self, keys: Iterable[CallKey]) -> dict[CallKey, dict[str, str]]:
        """Read the facts of calls; a call that is not there has none."""

        async def one(key: CallKey) -> dict[str, str]:
            read = self._redis.hgetall(facts_key(partition(key), key))
            return {text(k): text(v) for k, v in (await cast("Awaitable[dict[bytes, bytes]]", read)).items()}

        wanted = list(keys)
        return dict(zip(wanted, await redis_reply(asyncio.gather(*(one(key) for key in wanted))), strict=True))

    async def open_calls(self) -> dict[CallKey, int]:
        """List the open calls, with the time at which to look at them again (ms since 1970)."""

        async def one(number: int) -> list[tuple[bytes, float]]:
            return cast("list[tuple[bytes, float]]", await self._redis.zrange(open_key(number), 0, -1, withscores=True))

        rows = await redis_reply(asyncio.gather(*(one(number) for number in range(PARTITIONS))))
        return {read_key(text(name)): int(score) for part in rows for name, score in part}

    async def open_starts(self) -> dict[CallKey, int]:
        """List the open calls with their starts (microseconds since 1970); what only a timer told of has none: it is left out."""

        async def one(number: int) -> list[tuple[bytes, float | None]]:
            names = await cast("Awaitable[list[bytes]]", self._redis.zrange(open_key(number), 0, -1))
            if not names:
                return []
            starts = await self._redis.zmscore(recent_key(number), [text(name) for name in names])
            return list(zip(names, starts, strict=True))

        rows = await redis_reply(asyncio.gather(*(one(number) for number in range(PARTITIONS))))
        return {read_key(text(name)): int(at_us) for part in rows for name, at_us in part if at_us is not None}

    async def newest(self, before_us: int | None, at_most: int) -> list[tuple[CallKey, int]]:
        """List calls, open or not, that started at `before_us` or earlier, with their starts, the newest first.

        Times are microseconds since 1970.
        There can be more that started in the very microsecond in which the list ends. Facts of listed calls can have expired.
        """
        latest = "+inf" if before_us is None else before_us

        async def one(number: int) -> list[tuple[bytes, float]]:
            read = self._redis.zrange(
                recent_key(number),
                latest,
                "-inf",
                desc=True,
                byscore=True,
                offset=0,
                num=at_most,
                withscores=True,
            )
            return cast("list[tuple[bytes, float]]", await read)

        rows = await redis_reply(asyncio.gather(*(one(number) for number in range(PARTITIONS))))
        found = [(read_key(text(name)), int(score)) for part in rows for name, score in part]
        return sorted(found, key=lambda row: (row[1], str(row[0])), reverse=True)[:at_most]

    async def listed(self, keys: Iterable[CallKey]) -> set[CallKey]:
        """Tell which calls `newest` lists, and has facts of."""
        wanted = list(keys)

        async def ask() -> list[object]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in wanted:
                    pipe.zscore(recent_key(partition(key)), str(key))
                    pipe.exists(facts_key(partition(key), key))
                return cast("list[object]", await pipe.execute())

        found = await redis_reply(ask()) if wanted else []
        pairs = zip(wanted, found[::2], found[1::2], strict=True)
        return {key for key, start, has_facts in pairs if start is not None and has_facts}
