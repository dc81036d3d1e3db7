"""How far a move to another RabbitMQ has come, in Redis, so that a move that was interrupted continues."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import cast

from redis.asyncio import Redis

from shared.state.replies import redis_reply, text

_KEY = "callfold:broker_move"
_KEPT_S = 30 * 24 * 3600
_ROUTE, _SWITCHING, _STREAM = "route", "switching", "stream:"


@dataclass(frozen=True, slots=True)
class MoveProgress:
    """The next offset to copy of each stream. `is_switching`: processes may be connected to the new broker."""

    offsets: dict[str, int] = field(default_factory=dict)
    is_switching: bool = False


class BrokerMoveNotes:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, route: str) -> MoveProgress:
        """Read the progress of a move. `route` names both brokers: the notes on a move between others do not count."""
        answer = await redis_reply(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(_KEY)))
        notes = {text(name): text(value) for name, value in answer.items()}
        if notes.get(_ROUTE) != route:
            return MoveProgress()
        offsets = {name.removeprefix(_STREAM): int(value) for name, value in notes.items() if name.startswith(_STREAM)}
        return MoveProgress(offsets, is_switching=_SWITCHING in notes)

    async def begin(self, route: str) -> None:
        """Forget the notes on any earlier move."""
        await self.clear()
        await self._write({_ROUTE: route})

    async def copied(self, stream: str, next_offset: int) -> None:
        await self._write({f"{_STREAM}{stream}": str(next_offset)})

    async def begin_switch(self) -> None:
        await self._write({_SWITCHING: "1"})

    async def clear(self) -> None:
        await redis_reply(self._redis.delete(_KEY))

    async def _write(self, notes: dict[str, str]) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(_KEY, items=[item for note in notes.items() for item in note])
            pipe.expire(_KEY, _KEPT_S)
            await redis_reply(pipe.execute())
