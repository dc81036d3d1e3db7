"""Read calls from Redis without changing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import cast

from redis.asyncio import Redis

from shared.domain.ids import CallKey
from shared.state.keys import PARTITIONS, facts_key, open_key, parse_call_key, partition, publication_key, recent_key
from shared.state.replies import redis_reply, text
from shared.state.stored_call import PublicationState, StoredCall


class CallReader:
    """Every method raises StoreUnavailableError if Redis is not available."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, key: CallKey) -> StoredCall | None:
        """Read a call; None if it has no facts in Redis."""
        number = partition(key)

        async def read_keys() -> list[object]:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(facts_key(number, key))
                pipe.hmget(publication_key(number, key), "revision", "state", "summary", "version")
                pipe.zscore(open_key(number), str(key))
                return cast("list[object]", await pipe.execute())

        fields, publication, wake_at = cast(
            "tuple[dict[bytes, bytes], list[bytes | None], float | None]", await redis_reply(read_keys())
        )
        if not fields:
            return None
        facts = {text(name): text(value) for name, value in fields.items()}
        revision, state, summary, version = (text(value or "") for value in publication)
        wake_at_ms = None if wake_at is None else round(wake_at)
        return StoredCall(facts, int(revision or 0), PublicationState(state), summary, version, wake_at_ms)

    async def read_many(self, keys: Iterable[CallKey]) -> dict[CallKey, StoredCall]:
        """Read calls, without those that have no facts in Redis."""
        names = list(keys)
        calls = await asyncio.gather(*(self.read(key) for key in names))
        return {key: call for key, call in zip(names, calls, strict=True) if call is not None}

    async def read_facts(self, keys: Iterable[CallKey]) -> dict[CallKey, dict[str, str]]:
        """Read the facts of calls; an unknown call has none."""

        async def read_one(key: CallKey) -> dict[str, str]:
            read = self._redis.hgetall(facts_key(partition(key), key))
            return {text(k): text(v) for k, v in (await cast("Awaitable[dict[bytes, bytes]]", read)).items()}

        names = list(keys)
        return dict(zip(names, await redis_reply(asyncio.gather(*(read_one(key) for key in names))), strict=True))

    async def open_calls(self) -> dict[CallKey, int]:
        """List the open calls with their wake-up times (ms since 1970)."""

        async def read_partition(number: int) -> list[tuple[bytes, float]]:
            return cast("list[tuple[bytes, float]]", await self._redis.zrange(open_key(number), 0, -1, withscores=True))

        rows = await redis_reply(asyncio.gather(*(read_partition(number) for number in range(PARTITIONS))))
        return {parse_call_key(text(name)): int(score) for part in rows for name, score in part}

    async def open_starts(self) -> dict[CallKey, int]:
        """List the open calls with their starts (microseconds since 1970), without those that have no start yet."""

        async def read_partition(number: int) -> list[tuple[bytes, float | None]]:
            names = await cast("Awaitable[list[bytes]]", self._redis.zrange(open_key(number), 0, -1))
            if not names:
                return []
            starts = await self._redis.zmscore(recent_key(number), [text(name) for name in names])
            return list(zip(names, starts, strict=True))

        rows = await redis_reply(asyncio.gather(*(read_partition(number) for number in range(PARTITIONS))))
        return {parse_call_key(text(name)): int(at_us) for part in rows for name, at_us in part if at_us is not None}

    async def newest(self, before_us: int | None, at_most: int) -> list[tuple[CallKey, int]]:
        """List calls, open or not, that started at `before_us` or earlier, with their starts, the newest first.

        Times are microseconds since 1970. There can be more calls with the same start as the last one of the list.
        The facts of a listed call can have expired.
        """
        latest = "+inf" if before_us is None else before_us

        async def read_partition(number: int) -> list[tuple[bytes, float]]:
            name = recent_key(number)
            read = self._redis.zrange(name, latest, "-inf", desc=True, byscore=True, offset=0, num=at_most, withscores=True)
            return cast("list[tuple[bytes, float]]", await read)

        rows = await redis_reply(asyncio.gather(*(read_partition(number) for number in range(PARTITIONS))))
        starts = [(parse_call_key(text(name)), int(score)) for part in rows for name, score in part]
        return sorted(starts, key=lambda row: (row[1], str(row[0])), reverse=True)[:at_most]

    async def listed(self, keys: Iterable[CallKey]) -> set[CallKey]:
        """Return those of the calls that `newest` lists and that still have facts."""
        names = list(keys)

        async def read_keys() -> list[object]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in names:
                    pipe.zscore(recent_key(partition(key)), str(key))
                    pipe.exists(facts_key(partition(key), key))
                return cast("list[object]", await pipe.execute())

        replies = await redis_reply(read_keys()) if names else []
        rows = zip(names, replies[::2], replies[1::2], strict=True)
        return {key for key, start, has_facts in rows if start is not None and has_facts}
