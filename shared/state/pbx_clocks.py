"""Notes on the clocks of the PBXs, for a day each: the workers estimate and use them, and the console shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from redis.asyncio import Redis

from shared.domain.ids import SourceName
from shared.state.replies import redis_reply, text

_DAY_S = 24 * 3600


class PbxClockNote(NamedTuple):
    """By how many seconds the clock of a PBX is ahead, and receipt of the last event that shows it ('' if unknown)."""

    ahead_s: float
    received_at: str


class PbxClockNotes:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def record(self, notes: Mapping[SourceName, PbxClockNote]) -> None:
        """Store by how many seconds clocks are ahead of the times of receipt; negative if they are behind."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for name, note in notes.items():
                pipe.set(_key(name), f"{note.ahead_s:.3f}", ex=_DAY_S)
                pipe.set(_time_key(name), note.received_at, ex=_DAY_S)
            await redis_reply(pipe.execute())

    async def of(self, sources: Iterable[SourceName]) -> dict[SourceName, PbxClockNote]:
        """Return the latest estimate of each source that sent timestamps in the last day."""
        names = sorted(sources)
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(_key(name))
                pipe.get(_time_key(name))
            replies = await redis_reply(pipe.execute())
        rows = zip(names, replies[::2], replies[1::2], strict=True)
        return {name: PbxClockNote(float(text(ahead)), text(at or b"")) for name, ahead, at in rows if ahead}


def _key(source: SourceName) -> str:
    return f"callfold:pbx_clock:{source}"


def _time_key(source: SourceName) -> str:
    """Return the key of the receipt, which is separate because earlier versions read the other key as a number."""
    return f"callfold:pbx_clock_at:{source}"
