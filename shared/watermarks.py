"""What is not folded yet - in hands of workers, in spools of ingress - and the time until which all that came is folded."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from shared.partitions import guarded, text
from shared.script import Argument, Script

# Workers tell what they have in hand five times a second.
_MISSED_MS = 1_000
_GONE_MS = 30_000  # the broker gives up a silent connection well before
_FORGOTTEN_MS = 3_600_000
_HANDS, _SPOOLS = "callfold:{watermark}:hands", "callfold:{watermark}:spools"


@dataclass(frozen=True, slots=True)
class InHand:
    """The oldest raw message a worker has: when ingress received it (ms since 1970), how long the worker has had it; or none."""

    oldest_ms: int | None = None
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class SpoolNews:
    """What an ingress saw of its spool at `seen_ms`: when the oldest callback in it was received (ms since 1970), or none."""

    spool: str
    oldest_ms: int | None
    seen_ms: int


class Watermarks:
    """Every method raises StoreUnavailableError while Redis cannot do it; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._hand, self._spools, self._watermark = Script("hand"), Script("spool"), Script("watermark")

    async def tell_hand(self, worker: str, hand: InHand, *, consumes: bool = True, is_gone: bool = False) -> None:
        """Tell what a worker has in hand; `is_gone`: nothing any more, and what it had has gone back to the queue."""
        age_ms = "" if hand.age_s is None else round(hand.age_s * 1000)
        oldest_ms = "" if hand.oldest_ms is None else hand.oldest_ms
        await guarded(self._hand(self._redis, [_HANDS], [worker, oldest_ms, age_ms, int(consumes), int(is_gone)]))

    async def hands(self) -> dict[str, int]:
        """List the workers that tell what they have in hand, with when each did so last (ms since 1970)."""
        told = await guarded(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(_HANDS)))
        return {text(name): int(text(value).split(" ")[2]) for name, value in told.items()}

    async def note_spools(self, news: Iterable[SpoolNews]) -> None:
        """Note what ingress told of its spools."""
        args: list[Argument] = []
        for told in news:
            args += (told.spool, "" if told.oldest_ms is None else told.oldest_ms, told.seen_ms)
        await guarded(self._spools(self._redis, [_SPOOLS], args))

    async def watermark(self, *, consumers: int, waiting: int) -> int | None:
        """Tell the time (ms since 1970) until which all that ingress received is folded, or None where nobody can tell now.

        `consumers`, `waiting`: of the queue of raw messages, and of messages in it that nobody has in hand.
        """
        limits = (_MISSED_MS, _GONE_MS, _FORGOTTEN_MS)
        answer = await guarded(self._watermark(self._redis, [_HANDS, _SPOOLS], [consumers, waiting, *limits]))
        (told,) = cast("list[bytes]", answer)
        return int(text(told)) if told else None
