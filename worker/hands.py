"""Telling what this worker has in hand, so that no timer of any worker overtakes a callback that is not folded yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NoReturn

from shared.broker import Consumer, Delivery
from shared.errors import StoreUnavailableError
from shared.events import is_time, receipts
from shared.facts import milliseconds
from shared.hand import Held
from shared.log import get_logger
from shared.store import Store
from shared.topology import SPOOL, SPOOL_OLDEST, SPOOL_SEEN, TIMERS
from shared.watermarks import InHand, SpoolNews

log = get_logger(__name__)

_TELL_EVERY_S = 0.2
# A process that was not run for so long was stopped, by a signal or with its machine, or has been starved.
_STOPPED_S = 0.7


class Hands:
    """Tells Redis, several times a second, the oldest raw message that this worker has and has not settled."""

    def __init__(self, store: Store, raw: Consumer, *, worker: str) -> None:
        """Take the consumer of `callbacks.fold`; `worker` names this process among all that run."""
        self._store = store
        self._hand = raw.hand
        self._worker = worker
        self._oldest: dict[Held[Delivery], int | None] = {}
        self._consumes = True

    async def run(self) -> NoReturn:
        """Tell for as long as the process lives. Run it as a task."""
        while True:
            self._hand.changed.clear()
            begun = time.monotonic()
            try:
                await self.tell()
            except StoreUnavailableError as error:
                log.warning("hand_not_told", detail=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(_TELL_EVERY_S):
                    await self._hand.changed.wait()
            if time.monotonic() - begun > _STOPPED_S and self._hand.is_known:
                # What came meanwhile lies in the socket: who told now that he has nothing would let timers overtake it.
                self._hand.open()

    async def tell(self) -> None:
        """Tell once. While the consumer is away nothing is told: what was told last holds until the broker has given it back."""
        if self._hand.is_open:
            hand = self._in_hand() if self._hand.is_known else InHand(oldest_ms=0, age_s=0)
            await self._store.watermarks.tell_hand(self._worker, hand, consumes=self._consumes)

    def _in_hand(self) -> InHand:
        held = self._hand.items()
        # Each message is searched once, and only if it is still here when it is asked for.
        self._oldest = {item: self._oldest_of(item) for item in held}
        oldest = [at for at in self._oldest.values() if at is not None]
        return InHand(min(oldest, default=None), time.monotonic() - held[0].since if oldest else None)

    def _oldest_of(self, held: Held[Delivery]) -> int | None:
        return self._oldest[held] if held in self._oldest else oldest_ms(held.item)

    async def stop(self) -> None:
        """Tell, before it is so, that this worker consumes no more: the broker's count of consumers is compared with ours."""
        self._consumes = False
        with suppress(StoreUnavailableError):
            await self.tell()

    async def leave(self) -> None:
        """Tell, once the connection is closed, that all has gone back to the queue."""
        with suppress(StoreUnavailableError):
            await self._store.watermarks.tell_hand(self._worker, InHand(), consumes=False, is_gone=True)


def oldest_ms(delivery: Delivery) -> int | None:
    """Find when the oldest callback of a message, or of the spool it tells of, was received; None where it has none.

    Timers do not count: nothing waits for them, and each tells a time that has passed already.
    """
    if TIMERS in delivery.headers:
        return None
    told = receipts(delivery.body)
    told += [str(oldest) for oldest in [delivery.headers.get(SPOOL_OLDEST)] if oldest]
    return min((at for at in map(_milliseconds, told) if at is not None), default=None)


def spool_news(headers: Iterable[Mapping[str, object]]) -> list[SpoolNews]:
    """Read what ingress told of its spools; the order does not matter."""
    news = []
    for told in headers:
        oldest, seen = str(told.get(SPOOL_OLDEST, "")), _milliseconds(str(told.get(SPOOL_SEEN)))
        oldest_at = _milliseconds(oldest) if oldest else None
        if seen is not None and (oldest_at is not None) == bool(oldest):
            news.append(SpoolNews(str(told[SPOOL]), oldest_at, seen))
    return news


def _milliseconds(text: str) -> int | None:
    """Read a time of ingress; what is none says nothing: anybody may publish to the exchange."""
    return milliseconds(text) if is_time(text) else None
