"""Notes on calls that have too many legs, for a day each: an operator must correct the adapter link of their source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from shared.domain.ids import CallKey, CallRef, SourceName
from shared.state.replies import redis_reply, text

_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class RefusedLeg:
    """The latest refusal of a source: the call that has too many legs, and when the callback was received (RFC 3339 UTC)."""

    call: CallKey
    at: str


class RefusedLegs:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def record(self, calls: Mapping[CallKey, str]) -> None:
        """Store of which calls callbacks were refused, and when the last one was received, in one round trip."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, at in sorted(calls.items(), key=lambda call: call[1]):
                pipe.set(_key(key.source), f"{key.call} {at}", ex=_DAY_S)
            await redis_reply(pipe.execute())

    async def of(self, sources: Iterable[SourceName]) -> list[RefusedLeg]:
        """Return the latest refusal of each source that had one in the last day."""
        names = sorted(sources)
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(_key(name))
            notes = zip(names, await redis_reply(pipe.execute()), strict=True)
        rows = [(name, *text(note).partition(" ")) for name, note in notes if note]
        return [RefusedLeg(CallKey(name, CallRef(call)), at) for name, call, _, at in rows]


def _key(source: SourceName) -> str:
    return f"callfold:refused_legs:{source}"
