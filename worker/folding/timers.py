"""Timers: when the time has come to look at a call, a worker says so with an event that queues behind all that is not folded yet.

What time it has come to be is the watermark: everything that ingress received until then is folded (`shared/barrier.py`).
A timer decides nothing. What it leads to is decided by the fold, from the facts and the time the event tells.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NoReturn

from shared import metrics
from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS
from shared.config.sources import Sources
from shared.crash_points import crash_point
from shared.domain.facts import rfc3339
from shared.domain.ids import CallKey
from shared.domain.raw_event import MAX_EVENTS_PER_MESSAGE, TimerEvent, encode, join
from shared.errors import BrokerUnavailableError, StoreUnavailableError
from shared.log import get_logger
from shared.state.store import Store

log = get_logger(__name__)

_TICK_S = 0.4
_AT_MOST = 500
# From the receipt of a callback until ingress answers it: until then it is not confirmed, and no barrier waits for it.
_ON_ITS_WAY_MS = 1000


class Timers:
    """Publishes timer events of calls that are due. Any number of workers can: each call is leased to one at a time."""

    def __init__(self, publisher: Publisher, store: Store, sources: Sources, *, lease_s: float, hold_off_s: float) -> None:
        """Take the doors; `hold_off_s`: after a reconnect, the time in which every ingress tells what lies in its spool."""
        self._publisher = publisher
        self._store = store
        self._sources = sources
        self._lease_s = lease_s
        self._hold_off_s = hold_off_s
        self._held_until = time.monotonic() + hold_off_s
        self._rounds_from_ms: int | None = None
        self._sessions = (0, 0)

    async def run(self, raw: Consumer) -> NoReturn:
        """Look for calls that are due for as long as the process lives. `raw` consumes `callbacks.fold`."""
        while True:
            await asyncio.sleep(_TICK_S * random.uniform(0.5, 1))  # noqa: S311 - spreads the workers, no secret
            try:
                until_ms = await self._watermark(raw)
                metrics.TIMERS_HELD.set(until_ms is None)
                if until_ms is not None:
                    metrics.FOLD_LAG_SECONDS.set(time.time() - until_ms / 1000)
                    await self.fire(until_ms)
            except (BrokerUnavailableError, StoreUnavailableError) as error:
                self._hold_off()
                log.warning("timers_wait", detail=str(error))

    async def _watermark(self, raw: Consumer) -> int | None:
        """Tell until when all that was received is folded, or None while that cannot be known."""
        sessions = (self._publisher.sessions, raw.sessions)
        if not (self._publisher.is_up and raw.is_up) or sessions != self._sessions:
            self._hold_off()
            self._sessions = sessions
        if time.monotonic() < self._held_until:
            return None
        if self._rounds_from_ms is None:
            self._rounds_from_ms = round((await self._store.now()).timestamp() * 1000)
        # An older round may be complete before what ingress said of its spool is folded, however long the hold-off was.
        folded_ms = await self._store.watermarks.folded_until_ms(opened_from_ms=self._rounds_from_ms)
        return None if folded_ms is None else folded_ms - _ON_ITS_WAY_MS

    def _hold_off(self) -> None:
        self._held_until = time.monotonic() + self._hold_off_s
        self._rounds_from_ms = None

    async def fire(self, until_ms: int) -> int:
        """Publish timer events of calls that are due; returns how many. A call not confirmed is due again after its lease."""
        crash_point("timer.due")
        leased = await self._store.lease(until_ms=until_ms, lease_s=self._lease_s, at_most=_AT_MOST)
        if leased:
            crash_point("timer.leased")
        due = [key for key in leased if key.source in self._sources]
        for first in range(0, len(due), MAX_EVENTS_PER_MESSAGE):
            some = due[first : first + MAX_EVENTS_PER_MESSAGE]
            body = _events(some, rfc3339(datetime.fromtimestamp(until_ms / 1000, UTC)))
            await self._publisher.publish(Message(CALLBACKS, "", body, uuid.uuid4().hex))
            metrics.TIMERS.inc(len(some))
        if leased:
            crash_point("timer.published")
        return len(due)


def _events(due: Iterable[CallKey], at: str) -> bytes:
    return join(encode(TimerEvent(key.source, at, key.call)) for key in due)
