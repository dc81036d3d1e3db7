"""Consumer of one stream: batch, commit, ack. It resumes after the last event written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NoReturn, TypeVar

from callfold_client.stream_cursor import StreamCursor
from callfold_client.stream_reader import StreamReader
from console.history.batch import Batch, StreamMessage, fingerprint
from console.history.database_errors import ValueRejectedError
from console.history.store import History
from shared import metrics
from shared.amqp.connection import BACKOFF_S, BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.crash_points import crash_point
from shared.errors import HistoryUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.process import background

log = get_logger(__name__)
_DATABASE = Outage(log, "history_unreachable", "history_reachable")

_PREFETCH = 500
_MAX_BATCH_BYTES = 4 << 20
_BATCH_INTERVAL_S = 0.05  # events that arrive in this time share a transaction and its fsync
_IDLE_AFTER_S = 1

_T = TypeVar("_T")


class Follower:
    """Writes the events of one stream.

    Its position is the last event written, with a fingerprint. If the stream was recreated, all of it is read again,
    which changes nothing for events already written.
    """

    def __init__(self, stream: str, history: History, address: BrokerAddress) -> None:
        self._stream = stream
        self._history = history
        self._cursor = StreamCursor("first", fingerprint=fingerprint)
        self.consumer = Consumer(address, stream, prefetch=_PREFETCH, arguments=self._cursor.arguments)
        self._reader: StreamReader[Delivery] = StreamReader(self.consumer, self._cursor, on_replaced=self._log_rewound)
        self._writing = asyncio.Lock()
        self._caught_up_at = time.time()
        self._behind_since: float | None = self._caught_up_at
        self.problem: str | None = "the history has not started yet"

    @property
    def is_up(self) -> bool:
        return self.consumer.is_up

    async def run(self) -> NoReturn:
        """Consume until cancelled. Run it as a task once the tables exist."""
        metrics.HISTORY_LAG.labels(self._stream).set_function(self._lag_s)
        checkpoint = await until_available(lambda: self._history.checkpoint(self._stream), self.set_problem)
        if checkpoint:
            self._cursor.resume_after(*checkpoint)
        self.problem = None
        async with background(self.consumer.run()):
            while True:
                messages, deliveries = await self._next_deliveries()
                async with self._writing:
                    await self._write([_message(message) for message in messages])
                    crash_point("history.before_ack")
                    await deliveries[-1].ack_all()
                await asyncio.sleep(_BATCH_INTERVAL_S)

    async def finish(self) -> None:
        """Stop consuming and finish the current batch."""
        await self.consumer.stop_intake()
        async with self._writing:
            pass

    async def _next_deliveries(self) -> tuple[Sequence[Delivery], list[Delivery]]:
        """Return the deliveries that are new, and all that are to be acked."""
        while True:
            received = await self._reader.next(quiet_s=_IDLE_AFTER_S, max_bytes=_MAX_BATCH_BYTES)
            if received is None:
                if self.consumer.is_up and self._cursor.requested_offset is None:
                    self._caught_up_at, self._behind_since = time.time(), None
                continue
            if self._behind_since is None:
                self._behind_since = time.time()
            read, deliveries = received
            if read.missing:
                log.error("history_gap", stream=self._stream, events=read.missing, detail="the stream no longer keeps them")
            return read.messages, deliveries

    def _log_rewound(self, reason: str) -> None:
        log.warning("history_stream_rewound", stream=self._stream, offset=self._cursor.last_offset, detail=reason)

    async def _write(self, messages: Sequence[StreamMessage]) -> None:
        if not messages:
            return
        batch = await asyncio.to_thread(Batch.of, self._stream, messages)
        try:
            await self._commit(batch)
        except ValueRejectedError:
            await self._write_one_by_one(messages)
        metrics.HISTORY_EVENTS.labels(self._stream).inc(len(messages))
        if batch.newest:
            self._behind_since = max(self._caught_up_at, datetime.fromisoformat(batch.newest).timestamp())

    async def _write_one_by_one(self, messages: Sequence[StreamMessage]) -> None:
        """Write each event in its own transaction, so that a rejected one blocks no other."""
        for message in messages:
            try:
                await self._commit(Batch.of(self._stream, [message]))
            except ValueRejectedError as error:
                await self._write_unreadable(message, str(error))

    async def _write_unreadable(self, message: StreamMessage, reason: str) -> None:
        """Write a rejected event as unreadable. If its text is rejected too, write only its size and offset."""
        try:
            await self._commit(Batch.unreadable(self._stream, message, reason))
        except ValueRejectedError as error:
            text = f"its text ({len(message.body)} bytes at offset {message.offset} of {self._stream})"
            without_text = Batch.unreadable(self._stream, message, f"{reason}, and {text} was rejected: {error}", with_body=False)
            await self._commit(without_text, is_plain=True)

    async def _commit(self, batch: Batch, *, is_plain: bool = False) -> None:
        """Write a batch.

        Args:
            batch: the batch.
            is_plain: it holds no value of the event. If it is rejected, the cause is the database: retry as in an outage.
        """

        async def write() -> None:
            try:
                await self._history.write(batch)
            except ValueRejectedError as error:
                if is_plain:
                    raise HistoryUnavailableError(f"The history rejects every event: {error}") from error
                raise

        await until_available(write, self.set_problem)
        self.problem = None

    def set_problem(self, error: HistoryUnavailableError) -> None:
        """State why nothing is written, for the readiness of the process."""
        self.problem = str(error)

    def _lag_s(self) -> float:
        return 0.0 if self._behind_since is None else max(0.0, datetime.now(UTC).timestamp() - self._behind_since)


async def until_available(do: Callable[[], Awaitable[_T]], on_outage: Callable[[HistoryUnavailableError], object] = str) -> _T:
    """Retry database work with backoff until the history is available. No outage makes it give up."""
    return await _DATABASE.outlast(do, HistoryUnavailableError, pauses_s=BACKOFF_S, on_failure=on_outage)


def _message(delivery: Delivery) -> StreamMessage:
    return StreamMessage(delivery.offset, delivery.body)
