"""Timers: when the time has come to look at a call, a worker says so with an event that queues behind all that is not folded yet.

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
from shared.broker import Consumer, Message, Publisher
from shared.crash import crash_point
from shared.errors import BrokerUnavailableError, StoreUnavailableError
from shared.events import MAX_EVENTS_PER_MESSAGE, TimerEvent, encode, join
from shared.facts import rfc3339
from shared.ids import CallKey
from shared.log import get_logger
from shared.sources import Sources
from shared.store import Store
from shared.topology import CALLBACKS

log = get_logger(__name__)

_TICK_S = 1
_AT_MOST = 500
# More messages than this are a backlog: a timer event would only lie behind it, and again when its lease is over.
_BACKLOG_MESSAGES = 100


class Timers:
    """Publishes timer events of calls that are due. Any number of workers can: each call is leased to one at a time."""

    def __init__(self, publisher: Publisher, store: Store, sources: Sources, *, lease_s: float, hold_off_s: float) -> None:
        """Take the doors; `hold_off_s` is how long to wait after a reconnect or a backlog."""
        self._publisher = publisher
        self._store = store
        self._sources = sources
        self._lease_s = lease_s
        self._hold_off_s = hold_off_s
        self._held_until = time.monotonic() + hold_off_s

    async def run(self, raw: Consumer) -> NoReturn:
        """Look for calls that are due for as long as the process lives. `raw` is whose backlog the timers wait for."""
        while True:
            await asyncio.sleep(_TICK_S * random.uniform(0.5, 1))  # noqa: S311 - spreads the workers, no secret
            try:
                if await self._is_caught_up(raw):
                    await self.fire()
            except (BrokerUnavailableError, StoreUnavailableError) as error:
                self._hold_off()
                log.warning("timers_wait", detail=str(error))

    async def _is_caught_up(self, raw: Consumer) -> bool:
        """Tell whether all that waits anywhere has had the time to be folded."""
        if not self._publisher.is_up or await raw.backlog() > _BACKLOG_MESSAGES:
            self._hold_off()
        is_held = time.monotonic() < self._held_until
        metrics.TIMERS_HELD.set(is_held)
        return not is_held

    def _hold_off(self) -> None:
        self._held_until = time.monotonic() + self._hold_off_s

    async def fire(self) -> int:
        """Publish timer events of calls that are due; returns how many. A call not confirmed is due again after its lease."""
        leased = await self._store.lease(lease_s=self._lease_s, at_most=_AT_MOST)
        crash_point("timer.leased")
        due = [(key, now_ms) for key, now_ms in leased if key.source in self._sources]
        for first in range(0, len(due), MAX_EVENTS_PER_MESSAGE):
            some = due[first : first + MAX_EVENTS_PER_MESSAGE]
            await self._publisher.publish(Message(CALLBACKS, "", _events(some), uuid.uuid4().hex))
            metrics.TIMERS.inc(len(some))
        crash_point("timer.published")
        return len(due)


def _events(due: Iterable[tuple[CallKey, int]]) -> bytes:
    """Write timer events; their time is that of Redis, one clock for the timers of all workers."""
    moments = ((key, datetime.fromtimestamp(now_ms / 1000, UTC)) for key, now_ms in due)
    return join(encode(TimerEvent(key.source, rfc3339(moment), key.call)) for key, moment in moments)
