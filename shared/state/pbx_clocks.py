"""Notes on the clocks of the PBXs, for a day each: the workers estimate and use them, and the console shows them."""

from __future__ import annotations

from collections.abc import Iterable

from redis.asyncio import Redis

from shared.domain.ids import SourceName
from shared.state.replies import redis_reply, text

_DAY_S = 24 * 3600


class PbxClockNotes:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def record(self, source: SourceName, ahead_s: float) -> None:
        """Store by how many seconds the clock of a PBX is ahead of the times of receipt; negative if it is behind."""
        await redis_reply(self._redis.set(_key(source), f"{ahead_s:.3f}", ex=_DAY_S))

    async def of(self, sources: Iterable[SourceName]) -> dict[SourceName, float]:
        """Return the latest estimate of each source that sent timestamps in the last day."""
        names = sorted(sources)
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(_key(name))
            values = await redis_reply(pipe.execute())
        return {name: float(text(value)) for name, value in zip(names, values, strict=True) if value}


def _key(source: SourceName) -> str:
    return f"callfold:pbx_clock:{source}"
