"""Consumer of one stream: batch, commit, ack. It resumes after the last event written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NoReturn, TypeVar

from console.history.batch import Batch, StreamMessage
from console.history.database_errors import ValueRejectedError
from console.history.store import History
from shared import metrics
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.connection import BACKOFF_S, BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.crash_points import crash_point
from shared.errors import HistoryUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.process import background
from shared.streams.journal import is_bookmark
from shared.streams.position import StreamPosition

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
        self.consumer = Consumer(address, stream, prefetch=_PREFETCH, arguments=self._stream_arguments)
        self._position = StreamPosition()
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
            self._position.advance(*checkpoint)
        self.problem = None
        async with background(self.consumer.run()):
            while True:
                deliveries = await self._next_deliveries()
                async with self._writing:
                    await self._write(deliveries)
                await asyncio.sleep(_BATCH_INTERVAL_S)

    async def finish(self) -> None:
        """Stop consuming and finish the current batch."""
        await self.consumer.stop_intake()
        async with self._writing:
            pass

    def _stream_arguments(self) -> Mapping[str, HeaderValue]:
        """Return, for each new connection, the offset to consume from."""
        offset = self._position.request()
        return {"x-stream-offset": "first" if offset is None else offset}

    async def _next_deliveries(self) -> list[Delivery]:
        while True:
            try:
                async with asyncio.timeout(_IDLE_AFTER_S):
                    first = await self.consumer.get()
            except TimeoutError:
                await self._check_idle()
                continue
            if self._behind_since is None:
                self._behind_since = time.time()
            deliveries = [first, *self.consumer.get_waiting(_MAX_BATCH_BYTES)]
            if not self._position.is_stale and self._is_continued(first):
                return deliveries

    def _is_continued(self, first: Delivery) -> bool:
        """Return whether the first delivery of a connection continues the stream; False if the stream was recreated."""
        requested = self._position.requested_offset
        if requested is not None and first.offset > requested:
            missing = first.offset - requested - 1
            log.error("history_gap", stream=self._stream, events=missing, detail="the stream no longer keeps them")
        if self._position.is_same_stream(first.offset, _message(first).fingerprint):
            return True
        self._rewind("the stream has another event at this offset", requested)
        return False

    async def _check_idle(self) -> None:
        if not self.consumer.is_up:
            return
        requested = self._position.requested_offset
        if requested is not None:
            if await self._position.is_lost(self.consumer):
                self._rewind("the stream has no event at this offset", requested)
            return
        self._caught_up_at, self._behind_since = time.time(), None

    def _rewind(self, reason: str, offset: int | None) -> None:
        log.warning("history_stream_rewound", stream=self._stream, offset=offset, detail=reason)
        self._position.reset()
        self.consumer.recycle("the history reads its streams again")

    async def _write(self, deliveries: list[Delivery]) -> None:
        messages = [_message(delivery) for delivery in deliveries if not is_bookmark(delivery)]
        if messages:
            batch = await asyncio.to_thread(Batch.of, self._stream, messages)
            try:
                await self._commit(batch)
            except ValueRejectedError:
                await self._write_one_by_one(messages)
            metrics.HISTORY_EVENTS.labels(self._stream).inc(len(messages))
            if batch.newest:
                self._behind_since = max(self._caught_up_at, datetime.fromisoformat(batch.newest).timestamp())
        crash_point("history.before_ack")
        for delivery in deliveries:
            await delivery.ack()

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
        self._position.advance(*batch.checkpoint)
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
