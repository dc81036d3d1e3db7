"""Drains the spool: publishes its messages, oldest first, once RabbitMQ accepts them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from ingress.outgoing_message import OutgoingMessage
from ingress.publish_or_spool import DurableWriter
from ingress.spool import Spool
from shared import metrics
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS, SPOOL, SPOOL_OLDEST, SPOOL_SEEN
from shared.clock import utc_now
from shared.domain.raw_event import MAX_EVENTS_PER_MESSAGE, join, receipt_times
from shared.errors import BrokerUnavailableError, SpoolUnavailableError
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)
# `spool_drained` logs the end of each of these.
_INTERRUPTIONS = Outage(log, "spool_drain_interrupted")
_UNREADABLE = Outage(log, "spool_unreadable")

_DRAIN_ROWS = 500
_DRAIN_BYTES = 4 << 20
_MAX_JOINED_BYTES = 1 << 20
_COUNT_INTERVAL_S = 1
_CHECK_INTERVAL_S = 2.0
_RETRY_S = 1.0


class SpoolDrain:
    """Moves messages from the spool to RabbitMQ.

    New callbacks do not queue behind the spool: the fold accepts them in any order, and timers wait for the spool.
    """

    def __init__(self, publisher: Publisher, spool: Spool, writer: DurableWriter) -> None:
        self._publisher = publisher
        self._spool = spool
        self._writer = writer

    async def run(self) -> NoReturn:
        """Drain the spool whenever RabbitMQ is connected. Run it as a task."""
        while True:
            await self._publisher.wait_until_up()
            async with self._spool.drain_lock() as is_ours:
                if is_ours:
                    await self._drain_all()
            self._spool.added.clear()
            # Check it after a while in any case: another process may have written to it, or left messages when it died.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_INTERVAL_S):
                    await self._spool.added.wait()

    async def watch(self) -> NoReturn:
        """Keep the metric of spooled messages up to date, whichever process wrote them. Run it as a task."""
        while True:
            with suppress(SpoolUnavailableError):
                metrics.SPOOL_MESSAGES.set(await self._spool.count())
            await asyncio.sleep(_COUNT_INTERVAL_S)

    async def _drain_all(self) -> None:
        try:
            total = await self._spool.count()
            if total and not (_INTERRUPTIONS.is_ongoing or _UNREADABLE.is_ongoing):
                log.info("spool_drain_started", messages=total)
            while rows := await self._spool.oldest(_DRAIN_ROWS, max_bytes=_DRAIN_BYTES):
                for ids, message in _joined(rows):
                    report = await self._report(ids[-1]) if message.exchange == CALLBACKS else {}
                    await self._publisher.publish(replace(message, headers={**message.headers, **report}).with_fresh_id())
                    self._writer.drain_confirmed()
                    await self._spool.remove(ids)
            if total:
                self._writer.drain_finished()
                log.info("spool_drained", messages=total)
            _INTERRUPTIONS.succeeded()
            _UNREADABLE.succeeded()
        except BrokerUnavailableError as error:
            _INTERRUPTIONS.failed(str(error))
            await asyncio.sleep(_RETRY_S)
        except SpoolUnavailableError as error:
            _UNREADABLE.failed(str(error))
            await asyncio.sleep(_RETRY_S)

    async def _report(self, last_id: int) -> Mapping[str, str | int]:
        """Build the headers that report the oldest callback after `last_id`: the workers' timers wait for it."""
        first = await self._spool.first(CALLBACKS, after=last_id)
        oldest = next(iter(receipt_times(first.body)), "") if first else ""
        return {SPOOL: self._spool.name, SPOOL_OLDEST: oldest, SPOOL_SEEN: utc_now()}


def _joined(rows: Iterable[tuple[int, OutgoingMessage]]) -> Iterator[tuple[list[int], OutgoingMessage]]:
    """Join consecutive batches of callbacks into larger messages; yields each with the ids of its rows, in order."""
    ids: list[int] = []
    bodies: list[bytes] = []
    events = size = 0
    for row_id, message in rows:
        count = len(receipt_times(message.body))
        fits = events + count <= MAX_EVENTS_PER_MESSAGE and size + len(message.body) <= _MAX_JOINED_BYTES
        if ids and (not fits or message.exchange != CALLBACKS):
            yield ids, _join_bodies(bodies)
            ids, bodies, events, size = [], [], 0, 0
        if message.exchange != CALLBACKS:
            yield [row_id], message
            continue
        ids.append(row_id)
        bodies.append(message.body)
        events, size = events + count, size + len(message.body)
    if ids:
        yield ids, _join_bodies(bodies)


def _join_bodies(bodies: Sequence[bytes]) -> OutgoingMessage:
    return OutgoingMessage(CALLBACKS, "", {}, join(body[1:-1] for body in bodies))
