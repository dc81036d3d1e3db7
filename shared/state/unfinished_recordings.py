"""Recording jobs that have begun and have not ended, with the time of their first delivery. Only the metrics read them.

A worker that dies, or an outage of Redis, can leave a job here that has ended. No job takes longer than its schedule, so it is
forgotten after that time.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Final, cast

from redis.asyncio import Redis

from shared.state.replies import redis_reply

KEY: Final = "callfold:unfinished_recordings"
_SPARE_MS: Final = 24 * 3_600_000


class UnfinishedRecordings:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def begin(self, job: str, first_ms: int, *, now: datetime, takes_s: float) -> None:
        """Record an attempt at a job that was first delivered at `first_ms` (since 1970). It takes about `takes_s` at most."""
        oldest_ms = round((now.timestamp() - takes_s) * 1000) - _SPARE_MS
        await redis_reply(self._redis.zadd(KEY, {job: first_ms}))
        await redis_reply(self._redis.zremrangebyscore(KEY, "-inf", oldest_ms))

    async def finish(self, job: str) -> None:
        await redis_reply(self._redis.zrem(KEY, job))

    async def oldest_ms(self) -> int | None:
        """Return when the oldest job was first delivered (ms since 1970); None if none is known."""
        rows = await redis_reply(cast("Awaitable[list[tuple[bytes, float]]]", self._redis.zrange(KEY, 0, 0, withscores=True)))
        return int(rows[0][1]) if rows else None
