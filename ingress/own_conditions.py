"""Operator events of a machine with ingress: RabbitMQ is away, callbacks are spooled, the spool is nearly full.

One ingress process of a machine reports for all of them. What happens while RabbitMQ is away is published when it is back, with
the times at which it happened.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from ingress.ops_records import FileRecords
from ingress.spool import Spool
from shared.amqp.publisher import Publisher
from shared.clock import utc_now
from shared.domain.condition import Figure, Kind, Observation
from shared.errors import SpoolUnavailableError
from shared.runtime.ops_reporter import OpsReporter, ops_publish

FULL_SHARE: Final = 0.9
"""The share of `CALLFOLD_SPOOL_MAX_BYTES` at which the spool counts as full: there is still time to act."""

# A shorter interruption is no trouble: connections are made again, and a few callbacks are spooled.
RAISE_AFTER_S: Final = 5.0
_INTERVAL_S: Final = 1.0
_FINISH_S: Final = 5.0
_LAST_STEPS: Final = 2  # one raises what waited for RabbitMQ, and the next one clears it
_KINDS: Final = frozenset({Kind.BROKER_AWAY, Kind.SPOOLING, Kind.SPOOL_FULL})


class Spell:
    """The time since when one thing is bad, or good."""

    def __init__(self, now: str) -> None:
        self.is_bad = False
        self.at = now
        self._began = 0.0

    def look(self, clock_s: float, at: str, *, is_bad: bool) -> bool:
        """Take what is now; returns whether it is bad for long enough to be raised."""
        if is_bad != self.is_bad:
            self.is_bad, self.at, self._began = is_bad, at, clock_s
        return is_bad and clock_s - self._began >= RAISE_AFTER_S


class OwnConditions:
    """Observes this process and its spool, and reports."""

    def __init__(
        self,
        publisher: Publisher,
        spool: Spool,
        directory: Path,
        *,
        max_bytes: int,
        hold_s: float,
        now: Callable[[], str] = utc_now,
    ) -> None:
        """Take the publisher of callbacks and the spool; `hold_s` is as for `OpsReporter`."""
        self._publisher, self._spool, self._max_bytes, self._now = publisher, spool, max_bytes, now
        self._machine = os.uname().nodename
        self._records = FileRecords(directory)
        address = publisher.address
        self._reporter = OpsReporter(
            self._records, ops_publish(address.urls, address.name), holder=address.name, now=now, hold_s=hold_s
        )
        self._spells = {kind: Spell(now()) for kind in _KINDS}
        self._stepping = asyncio.Lock()

    async def run(self) -> NoReturn:
        """Observe and report until cancelled. Run it as a task."""
        try:
            while True:
                await self.step(time.monotonic())
                await asyncio.sleep(_INTERVAL_S)
        finally:
            self._records.close()

    async def step(self, clock_s: float) -> None:
        """Observe once, and report if there is anything to report."""
        async with self._stepping:
            await self._step(clock_s)

    async def finish(self) -> None:
        """Publish at once what is due, before this process ends: the machine may be removed."""
        self._reporter.hold_s = 0.0
        with suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_S), self._stepping:  # a step may wait for RabbitMQ
                for _ in range(_LAST_STEPS):
                    await self._step(time.monotonic())
                await self._records.delete_if_over()

    async def _step(self, clock_s: float) -> None:
        observations = await self._observe(clock_s)
        is_needed = any(seen.is_bad for seen in observations) or await self._records.exist()
        if is_needed and await self._records.acquire():
            may_publish = self._publisher.is_up and not self._publisher.is_blocked
            await self._reporter.report(observations, configured={}, may_publish=may_publish)

    async def _observe(self, clock_s: float) -> list[Observation]:
        observations = [self._seen(Kind.BROKER_AWAY, clock_s, self._now(), is_bad=not self._publisher.is_up)]
        with suppress(SpoolUnavailableError):  # `spool_unusable` is logged, and the process is not ready
            size, messages = await self._spool.size(), await self._spool.count()
            oldest = await self._spool.oldest_receipt() if messages and not self._spells[Kind.SPOOLING].is_bad else ""
            observations.append(
                self._seen(Kind.SPOOLING, clock_s, oldest or self._now(), is_bad=messages > 0, messages=messages, bytes=size)
            )
            is_full = size >= FULL_SHARE * self._max_bytes
            observations.append(
                self._seen(Kind.SPOOL_FULL, clock_s, self._now(), is_bad=is_full, bytes=size, max_bytes=self._max_bytes)
            )
        return [seen for seen in observations if seen is not None]

    def _seen(self, kind: Kind, clock_s: float, at: str, *, is_bad: bool, **figures: Figure) -> Observation | None:
        """Return an observation; None while something is bad for a moment only."""
        spell = self._spells[kind]
        is_raised = spell.look(clock_s, at, is_bad=is_bad)
        if is_bad and not is_raised:
            return None
        detail = _SENTENCES[kind][0 if is_bad else 1].format(machine=self._machine)
        return Observation(kind, self._machine, is_bad, spell.at, detail, figures if is_bad else {})


_SENTENCES: Final = {
    Kind.BROKER_AWAY: ("Ingress of {machine} is not connected to RabbitMQ.", "Ingress of {machine} is connected to RabbitMQ."),
    Kind.SPOOLING: (
        "The spool of {machine} holds callbacks that RabbitMQ has not confirmed.",
        "The spool of {machine} is empty.",
    ),
    Kind.SPOOL_FULL: (
        "The spool of {machine} is nearly full. Beyond its limit, ingress answers 503.",
        "The spool of {machine} has room again.",
    ),
}
