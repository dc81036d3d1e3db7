"""Timers: publishes an event for each call whose wake-up is due. The event queues behind everything not folded yet.

The time of the event is the watermark: everything that ingress received before it is folded (`shared/domain/barrier.py`).
A timer decides nothing. The fold evaluates the call from its facts and the time of the event.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NoReturn

from shared import metrics
from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS
from shared.crash_points import crash_point
from shared.domain.barrier import FoldedUntil
from shared.domain.ids import CallKey
from shared.domain.raw_event import MAX_EVENTS_PER_MESSAGE, TimerEvent, encode, join
from shared.domain.times import rfc3339
from shared.errors import BrokerUnavailableError, StateMovedError, StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.state.keys import PARTITIONS
from shared.state.store import Store
from shared.state.stored_call import LeaseLimits
from worker.folding.timer_shares import BURST, PER_S, TimerShares

log = get_logger(__name__)
_PAUSE = Outage(log, "timers_paused", "timers_resumed")

_TICK_S = 0.4
# In a partition. Of one source, all partitions together lease about two bursts: its calls are not spread evenly.
_LIMITS = LeaseLimits(calls=500, calls_of_source=2 * BURST // PARTITIONS, interval_ms=1000 * PARTITIONS // PER_S)
# Looks that follow each other at once. A look passes up to 32,000 due calls.
_MAX_LOOKS = 10
# Margin for callbacks that ingress has received and not answered yet: they are not confirmed, so the barrier ignores them.
_UNCONFIRMED_MS = 1000


class Timers:
    """Publishes timer events of calls that are due. Several workers can run it: one worker at a time leases a call."""

    def __init__(self, publisher: Publisher, store: Store, *, lease_s: float, hold_off_s: float) -> None:
        """Prepare; in `hold_off_s` after a reconnect, every ingress reports what is left in its spool."""
        self._publisher = publisher
        self._store = store
        self._lease_s = lease_s
        self._hold_off_s = hold_off_s
        self._held_until = time.monotonic() + hold_off_s
        self._rounds_from_ms: int | None = None
        self._sessions = (0, 0)
        self._shares = TimerShares()
        self._folded_ms: int | None = None
        self.folded: FoldedUntil | None = None
        """The times until which everything is folded; None while they are unknown."""

    async def run(self, raw: Consumer) -> NoReturn:
        """Fire timers until cancelled; `raw` is the consumer of `callbacks.fold`. Run it as a task."""
        while True:
            await asyncio.sleep(_TICK_S * random.uniform(0.5, 1))  # noqa: S311 - spreads the workers, no secret
            try:
                watermark = self.folded = await self._watermark(raw)
                metrics.TIMERS_HELD.set(watermark is None)
                self._show_lag(watermark)
                if watermark is not None:
                    await self.fire(watermark)
                    _PAUSE.succeeded()
            except StateMovedError as error:  # the fold and the watch do what is necessary
                _PAUSE.failed(str(error))
            except (BrokerUnavailableError, StoreUnavailableError) as error:
                self.hold_off()
                _PAUSE.failed(str(error))

    async def _watermark(self, raw: Consumer) -> FoldedUntil | None:
        """Return the times until which every received callback is folded, or None while they are unknown."""
        sessions = (self._publisher.sessions, raw.sessions)
        if not (self._publisher.is_up and raw.is_up) or sessions != self._sessions:
            self.hold_off()
            self._sessions = sessions
        if time.monotonic() < self._held_until:
            return None
        if self._rounds_from_ms is None:
            self._rounds_from_ms = round((await self._store.now()).timestamp() * 1000)
        # An older round can complete before the spool reports of ingress are folded, even after a long hold-off.
        folded = await self._store.watermarks.folded_until(opened_from_ms=self._rounds_from_ms)
        return None if folded is None else folded.before(_UNCONFIRMED_MS)

    def _show_lag(self, watermark: FoldedUntil | None) -> None:
        """Show the lag, which grows while the watermark is unknown: a consumer that begins makes it so until the next round."""
        if watermark is not None:
            self._folded_ms = watermark.ms
        if self._folded_ms is not None:
            metrics.FOLD_LAG_SECONDS.set(time.time() - self._folded_ms / 1000)

    def hold_off(self) -> None:
        """Fire no timers for a while, since ingress may have spooled callbacks: after that, only rounds opened later count."""
        self._held_until = time.monotonic() + self._hold_off_s
        self._rounds_from_ms = self.folded = None

    async def fire(self, watermark: FoldedUntil) -> int:
        """Publish timer events of due calls and return their number; after its lease a call without a confirm is due again.

        A source that is behind gets timers with the time until which it is folded, so those of other sources need not wait.
        """
        fired = 0
        for _ in range(_MAX_LOOKS):
            crash_point("timer.due")
            leased = await self._store.lease(
                until_ms=watermark.ms,
                lease_s=self._lease_s,
                limits=_LIMITS,
                last_wake_ups=self._shares.last_wake_ups(watermark.ms),
            )
            self._shares.note(leased.last_wake_ups, watermark.ms)
            fired += await self._fire_leased(leased.calls, watermark)
            if not leased.is_more:
                break
        return fired

    async def _fire_leased(self, leased: Sequence[CallKey], watermark: FoldedUntil) -> int:
        if leased:
            crash_point("timer.leased")
        due, postponed = self._shares.divide(leased, watermark.ms)  # also those of a source that was removed
        if postponed:
            await self._store.postpone(postponed, leased_until_ms=watermark.ms + round(self._lease_s * 1000))
        for first in range(0, len(due), MAX_EVENTS_PER_MESSAGE):
            batch = due[first : first + MAX_EVENTS_PER_MESSAGE]
            await self._publisher.publish(Message(CALLBACKS, "", _events(batch, watermark), uuid.uuid4().hex))
            metrics.TIMERS.inc(len(batch))
        if leased:
            crash_point("timer.published")
        return len(due)


def _events(due: Iterable[CallKey], watermark: FoldedUntil) -> bytes:
    return join(encode(TimerEvent(key.source, _time(watermark.of(key.source)), key.call)) for key in due)


def _time(ms: int) -> str:
    return rfc3339(datetime.fromtimestamp(ms / 1000, UTC))
