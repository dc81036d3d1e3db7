"""Publishes operator events: it raises and clears conditions, together with all observers that share their records.

A record is replaced only if no other observer has changed it since it was read. It keeps the event until RabbitMQ has confirmed
it. If an observer dies at any point, another one publishes the same bytes. See `condition.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from shared import metrics
from shared.amqp.publisher import Message
from shared.amqp.single_publish import publish_alone
from shared.amqp.topology import OPS
from shared.crash_points import crash_point
from shared.domain.cloud_event import CLOUDEVENT
from shared.domain.condition import Kind, Observation, Record, confirmed, is_over, leased, observed, read_record
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)
_PUBLISHES = Outage(log, "ops_event_delayed", "ops_events_published")

# Longer than a publish may take. Another observer publishes the event after that.
LEASE_S: Final = 30.0
_PUBLISH_S: Final = 10.0
# A publish that was not confirmed may have arrived, so it is repeated less and less often.
_RETRY_S: Final = (5.0, 10.0, 30.0, 60.0)
_ATTEMPTS: Final = 5

Publish = Callable[[Message], Awaitable[None]]


class Records(Protocol):
    """The records of conditions, by name."""

    async def read(self) -> dict[str, bytes]:
        """Return all records."""

    async def swap(self, name: str, before: bytes | None, after: bytes | None) -> bool:
        """Replace a record that is still the expected one; returns whether it was."""


def ops_publish(urls: Sequence[str], name: str) -> Publish:
    """Return the function that publishes an operator event, on a connection that exists only for that."""

    async def publish(message: Message) -> None:
        await publish_alone(urls, f"{name} operator events", message, timeout_s=_PUBLISH_S)

    return publish


class OpsReporter:
    """Brings observations into the records, and publishes what follows from them.

    Every method raises what the records raise, and can be repeated.

    Attributes:
        hold_s: how long a condition must be good before it is cleared.
    """

    def __init__(
        self,
        records: Records,
        publish: Publish,
        *,
        holder: str,
        now: Callable[[], str],
        hold_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records, self._publish = records, publish
        self._holder, self._now, self._clock = holder, now, clock
        self.hold_s = hold_s
        self._known: dict[str, bytes] = {}
        self._failures = 0
        self._pause_until = 0.0

    async def report(
        self, observations: Sequence[Observation], *, configured: Mapping[Kind, Collection[str]], may_publish: bool
    ) -> None:
        """Store observations, and publish the events that are due unless RabbitMQ is away.

        `configured`: the subjects of some kinds. A condition of another subject is over.
        """
        stored = await self._restored()
        for seen in [*observations, *_gone(stored, configured, self._now())]:
            await self._observe(seen, stored)
        for name, text in stored.items():
            if (record := read_record(text)) and is_over(record, self._now()):
                await self._records.swap(name, text, None)
        if may_publish:
            await self._publish_due(stored)
        self._known = await self._records.read()
        self._count(self._known)

    async def _restored(self) -> dict[str, bytes]:
        """Read the records. What was lost is stored again, also if Redis has an earlier state of it."""
        stored = await self._records.read()
        for name, text in self._known.items():
            record, before = read_record(text), stored.get(name)
            if record is None or not _is_lost(record, read_record(before), has_any=before is not None, now=self._now()):
                continue
            if await self._records.swap(name, before, text):
                stored[name] = text
        return stored

    async def _observe(self, seen: Observation, stored: dict[str, bytes]) -> None:
        def step(record: Record | None) -> Record | None:
            after = observed(record, seen, now=self._now(), hold_s=self.hold_s)
            is_new = after is not None and after.event is not None and (record is None or record.event != after.event)
            return (leased(after, self._holder, now=self._now(), lease_s=LEASE_S) if is_new and after else None) or after

        await self._change(seen.name, step, stored)

    async def _publish_due(self, stored: dict[str, bytes]) -> None:
        for name in list(stored):
            if self._clock() < self._pause_until:
                return
            record = await self._change(
                name, lambda before: before and leased(before, self._holder, now=self._now(), lease_s=LEASE_S), stored
            )
            if record is not None and record.event is not None and record.holder == self._holder:
                await self._publish_event(name, record, stored)

    async def _publish_event(self, name: str, record: Record, stored: dict[str, bytes]) -> None:
        event = record.event
        if event is None:
            return
        crash_point("ops.claimed")
        message = Message(OPS, event.routing_key, event.body.encode(), event.id, CLOUDEVENT)
        try:
            async with asyncio.timeout(LEASE_S / 2):
                await self._publish(message)
        except (BrokerUnavailableError, TimeoutError) as error:
            self._pause_until = self._clock() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
            self._failures += 1
            _PUBLISHES.failed(str(error) or "timed out", key=event.routing_key, task=self)
            return
        crash_point("ops.published")
        self._failures = 0
        _PUBLISHES.succeeded(task=self)
        log.info("ops_event_published", id=event.id)
        await self._change(name, lambda before: before and confirmed(before, event.id), stored)

    async def _change(self, name: str, step: Callable[[Record | None], Record | None], stored: dict[str, bytes]) -> Record | None:
        """Replace a record by its next one; returns what is stored then, or None if there is nothing to do.

        Other observers change it too, so it is read again then. What fails a few times is left to the next report.
        """
        for _ in range(_ATTEMPTS):
            text = stored.get(name)
            before = read_record(text)
            after = step(before)
            if after is None or after == before:
                return after
            encoded = after.encode()
            if await self._records.swap(name, text, encoded):
                stored[name] = encoded
                return after
            stored.clear()
            stored.update(await self._records.read())
        return None

    def _count(self, stored: Mapping[str, bytes]) -> None:
        raised = Counter(record.kind for text in stored.values() if (record := read_record(text)) and record.is_raised)
        for kind in Kind:
            metrics.OPS_CONDITIONS.labels(kind).set(raised[kind])


def _is_lost(known: Record, stored: Record | None, *, has_any: bool, now: str) -> bool:
    """Return whether what is stored is missing, or is of before a known record. A record that was cleared is not raised again."""
    if stored is None:
        return not has_any and (known.is_raised or known.event is not None)
    if stored.since == known.since:
        return stored.is_raised and not known.is_raised
    return stored.since < known.since <= now  # the clock may have been ahead when that was known


def _gone(stored: Mapping[str, bytes], configured: Mapping[Kind, Collection[str]], now: str) -> list[Observation]:
    """Return good observations of raised conditions whose subject is not configured any more."""
    records = [record for text in stored.values() if (record := read_record(text))]
    return [
        Observation(record.kind, record.subject, is_bad=False, at=now, detail=f"{record.subject} is not configured any more.")
        for record in records
        if record.is_raised and record.subject not in configured.get(record.kind, [record.subject])
    ]
