"""Drains the spool: publishes its messages, oldest first, once RabbitMQ accepts them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from ingress.outgoing_message import OutgoingMessage
from ingress.publish_or_spool import DurableWriter
from ingress.spool import Spool
from ingress.spool_reports import SpoolReports
from ingress.spool_rows import DamagedRow
from ingress.traced_publish import publishing
from shared import metrics
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS, CALLBACKS_DEAD
from shared.domain.raw_event import MAX_EVENTS_PER_MESSAGE, join, receipt_times
from shared.domain.times import milliseconds
from shared.errors import BrokerUnavailableError, SpoolUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.process import wait_at_most
from shared.tracing.contexts import CREATION_CONTEXTS, pack_joined

log = get_logger(__name__)
# `spool_drained` logs the end of each of these.
_INTERRUPTIONS = Outage(log, "spool_drain_interrupted")
_UNREADABLE = Outage(log, "spool_unreadable")

_DRAIN_ROWS = 500
_DRAIN_BYTES = 4 << 20
_MAX_JOINED_BYTES = 1 << 20
_COUNT_INTERVAL_S = 1
_CHECK_INTERVAL_S = 2.0
_PROBE_INTERVAL_S = 10
_RETRY_S = 1.0
_DELETE_PAUSE_S = 60.0


class SpoolDrain:
    """Moves messages from the spool to RabbitMQ.

    New callbacks do not queue behind the spool: the fold accepts them in any order, and timers wait for the spool.
    """

    def __init__(self, publisher: Publisher, spool: Spool, writer: DurableWriter) -> None:
        self._publisher = publisher
        self._spool = spool
        self._reports = SpoolReports(spool)
        self._writer = writer

    async def run(self) -> NoReturn:
        """Drain the spool whenever RabbitMQ is connected. Run it as a task."""
        while True:
            await self._publisher.wait_until_up()
            await self._publisher.wait_until_unblocked()
            async with self._spool.drain_lock() as is_ours:
                if is_ours:
                    await self._drain_until_deleted()
            self._spool.added.clear()
            # Check it after a while in any case: another process may have written to it, or left messages when it died.
            await wait_at_most(self._spool.added, _CHECK_INTERVAL_S)

    async def watch(self) -> NoReturn:
        """Keep the metrics of spooled messages up to date, whichever process wrote them. Run it as a task."""
        for second in itertools.count():
            try:
                if self._spool.problem or second % _PROBE_INTERVAL_S == 0:
                    await self._spool.check()
                await self._measure()
            except SpoolUnavailableError:  # `SpoolProblems` logs it
                metrics.SPOOL_OLDEST.set(None)
            await asyncio.sleep(_COUNT_INTERVAL_S)
        raise AssertionError("count() does not end")

    async def _measure(self) -> None:
        """Export how much is in the spool, and for how long."""
        count = await self._spool.count()
        oldest = await self._spool.oldest_receipt() if count else ""
        metrics.SPOOL_MESSAGES.set(count)
        metrics.SPOOL_BYTES.set(await self._spool.size() if count else 0)
        metrics.SPOOL_OLDEST.set(max(0.0, time.time() - milliseconds(oldest) / 1000) if oldest else 0.0)

    async def _drain_until_deleted(self) -> None:
        """Drain, and keep the lock until published messages are deleted: another process would publish them again."""
        await self._drain_all()
        pause_s = _RETRY_S
        while self._spool.has_undeleted:
            self._spool.added.clear()
            await wait_at_most(self._spool.added, pause_s)
            pause_s = min(2 * pause_s, _DELETE_PAUSE_S)
            await self._spool.remove([])
            await self._drain_all()

    async def _drain_all(self) -> None:
        try:
            total = await self._spool.count()
            if total and not (_INTERRUPTIONS.is_ongoing or _UNREADABLE.is_ongoing):
                log.info("spool_drain_started", messages=total)
            if total:
                await self._reports.check_gate(self._publisher)
            while rows := await self._spool.oldest(_DRAIN_ROWS, max_bytes=_DRAIN_BYTES):
                await self._drain_rows(rows)
            await self._reports.end(self._publisher)
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

    async def _drain_rows(self, rows: Sequence[tuple[int, OutgoingMessage | DamagedRow]]) -> None:
        for ids, message in joined(rows):
            report = await self._reports.after(ids[-1]) if message.exchange == CALLBACKS else {}
            with publishing(message):
                await self._publisher.publish(replace(message, headers={**message.headers, **report}).with_fresh_id())
            if report:
                self._reports.confirmed(report)
            self._writer.drain_confirmed(message)
            await self._spool.remove(ids)
        if damaged := [row for _, row in rows if isinstance(row, DamagedRow)]:
            metrics.DEAD_LETTERS.labels(CALLBACKS_DEAD, DeadLetterReason.DAMAGED_IN_SPOOL).inc(len(damaged))
            log.error("spool_rows_dead_lettered", messages=len(damaged), detail=damaged[0].problem)


def joined(
    rows: Iterable[tuple[int, OutgoingMessage | DamagedRow]], *, max_events: int = MAX_EVENTS_PER_MESSAGE
) -> Iterator[tuple[list[int], OutgoingMessage]]:
    """Join consecutive batches of callbacks into larger messages; yields each with the ids of its rows, in order."""
    ids: list[int] = []
    bodies: list[bytes] = []
    contexts: dict[int, object] = {}
    events = size = 0
    for row_id, row in rows:
        message = row.dead_letter() if isinstance(row, DamagedRow) else row
        count = len(receipt_times(message.body))
        fits = events + count <= max_events and size + len(message.body) <= _MAX_JOINED_BYTES
        if ids and (not fits or message.exchange != CALLBACKS):
            yield ids, _join_bodies(bodies, contexts)
            ids, bodies, contexts, events, size = [], [], {}, 0, 0
        if message.exchange != CALLBACKS:
            yield [row_id], message
            continue
        ids.append(row_id)
        bodies.append(message.body)
        if CREATION_CONTEXTS in message.headers:
            contexts[events] = message.headers[CREATION_CONTEXTS]
        events, size = events + count, size + len(message.body)
    if ids:
        yield ids, _join_bodies(bodies, contexts)


def _join_bodies(bodies: Sequence[bytes], contexts: Mapping[int, object]) -> OutgoingMessage:
    packed = pack_joined(contexts)
    return OutgoingMessage(CALLBACKS, "", {CREATION_CONTEXTS: packed} if packed else {}, join(body[1:-1] for body in bodies))
