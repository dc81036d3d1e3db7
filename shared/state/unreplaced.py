"""Notes on placeholders that arrived unreplaced, for a day each: an operator must correct the adapter link of their source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from shared.domain.ids import CallKey, CallRef, SourceName
from shared.state.replies import redis_reply, text

_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class UnreplacedPlaceholder:
    """A placeholder of a source, the last call in which it arrived unreplaced, and when (RFC 3339 UTC)."""

    call: CallKey
    placeholder: str
    at: str


class UnreplacedPlaceholders:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def record(self, placeholders: Mapping[SourceName, Mapping[str, tuple[CallRef, str]]]) -> None:
        """Store the last call of each placeholder of some sources, and when its callback was received, in one round trip."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for source, of_source in placeholders.items():
                notes = {name: f"{call} {at}" for name, (call, at) in of_source.items()}
                pipe.hset(_key(source), mapping=notes)  # type: ignore[arg-type]  # its type is invariant
                pipe.expire(_key(source), _DAY_S)
            await redis_reply(pipe.execute())

    async def of(self, sources: Iterable[SourceName], since: str) -> list[UnreplacedPlaceholder]:
        """Return the placeholders of each source that arrived unreplaced at or after `since`."""
        names = sorted(sources)
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(_key(name))
            notes = zip(names, await redis_reply(pipe.execute()), strict=True)
        rows = [(name, text(each), *text(note).partition(" ")) for name, row in notes for each, note in sorted(row.items())]
        return [UnreplacedPlaceholder(CallKey(name, CallRef(call)), each, at) for name, each, call, _, at in rows if at >= since]


def _key(source: SourceName) -> str:
    return f"callfold:unreplaced:{source}"
