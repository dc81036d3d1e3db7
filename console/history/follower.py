"""Following one stream into the history: batch, commit, ack; after a start or reconnect on from the last event written."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NoReturn, TypeVar

from console.history.batch import Batch, Entry
from console.history.engine import RefusedError
from console.history.store import History
from console.streams.journal import is_bookmark
from console.streams.position import Place
from shared import metrics
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.connection import BACKOFF_S, BrokerAddress
from shared.amqp.consumer import Consumer, Delivery
from shared.crash_points import crash_point
from shared.errors import HistoryUnavailableError
from shared.log import get_logger
from shared.runtime.process import background

log = get_logger(__name__)

_PREFETCH = 500
_BATCH_BYTES = 4 << 20
_BETWEEN_S = 0.05  # what arrives meanwhile shares a transaction, and its fsync
_QUIET_S = 1

_T = TypeVar("_T")


class Follower:
    """Writes the events of one stream.

    Its place is that of the last event it has written, with its fingerprint. Where the stream is another, everything it has is
    read, which changes nothing where it is known.
    """

    def __init__(self, stream: str, history: History, address: BrokerAddress) -> None:
        self._stream = stream
        self._history = history
        self._consumer = Consumer(address, stream, prefetch=_PREFETCH, arguments=self._where)
        self._place = Place()
        self._writing = asyncio.Lock()
        self._level_at = time.time()
        self._behind_since: float | None = self._level_at
        self.problem: str | None = "the history was not begun yet"

    @property
    def is_up(self) -> bool:
        return self._consumer.is_up

    async def run(self) -> NoReturn:
        """Follow for as long as the process lives. Run it as a task once the tables are there."""
        metrics.HISTORY_LAG.labels(self._stream).set_function(self._lag_s)
        mark = await patiently(lambda: self._history.mark(self._stream), self._is_away)
        if mark:
            self._place.read(*mark)
        self.problem = None
        async with background(self._consumer.run()):
            while True:
                taken = await self._take()
                async with self._writing:
                    await self._write(taken)
                await asyncio.sleep(_BETWEEN_S)

    async def finish(self) -> None:
        """Stop intake and wait for the batch in hand."""
        await self._consumer.stop_intake()
        async with self._writing:
            pass

    def _where(self) -> Mapping[str, HeaderValue]:
        """Tell, on each connection, where the stream is to go on."""
        offset = self._place.ask()
        return {"x-stream-offset": "first" if offset is None else offset}

    async def _take(self) -> list[Delivery]:
        while True:
            try:
                async with asyncio.timeout(_QUIET_S):
                    first = await self._consumer.get()
            except TimeoutError:
                self._quiet()
                continue
            if self._behind_since is None:
                self._behind_since = time.time()
            taken = [first, *self._consumer.get_waiting(_BATCH_BYTES)]
            if not self._place.is_left and self._is_continued(first):
                return taken

    def _is_continued(self, first: Delivery) -> bool:
        """Compare the first delivery of a connection with what was asked for; false where the stream is another."""
        asked = self._place.asked
        if asked is not None and first.offset > asked:
            log.error("history_gap", stream=self._stream, events=first.offset - asked - 1, detail="older than the stream keeps")
        if self._place.is_same(first.offset, _entry(first).fingerprint):
            return True
        self._rewind("another event stands there", asked)
        return False

    def _quiet(self) -> None:
        if not self._consumer.is_up:
            return
        if self._place.asked is not None:
            if self._place.is_overdue():
                self._rewind("it has no such event", self._place.asked)
            return
        self._level_at, self._behind_since = time.time(), None

    def _rewind(self, why: str, offset: int | None) -> None:
        log.warning("history_rewinds", stream=self._stream, offset=offset, detail=why)
        self._place.leave()
        self._consumer.recycle()

    async def _write(self, taken: list[Delivery]) -> None:
        entries = [_entry(delivery) for delivery in taken if not is_bookmark(delivery)]
        if entries:
            batch = await asyncio.to_thread(Batch.of, self._stream, entries)
            try:
                await self._commit(batch)
            except RefusedError:
                await self._write_each(entries)
            metrics.HISTORY_EVENTS.labels(self._stream).inc(len(entries))
            if batch.newest:
                self._behind_since = max(self._level_at, datetime.fromisoformat(batch.newest).timestamp())
        crash_point("history.before_ack")
        for delivery in taken:
            await delivery.ack()

    async def _write_each(self, entries: Sequence[Entry]) -> None:
        """Write events one by one, so that the one that the database does not take keeps no other from being written."""
        for entry in entries:
            try:
                await self._commit(Batch.of(self._stream, [entry]))
            except RefusedError as error:
                await self._keep_unreadable(entry, str(error))

    async def _keep_unreadable(self, entry: Entry, reason: str) -> None:
        """Keep an event as it came; where the database does not take that either, that there was one, and where it stands."""
        try:
            await self._commit(Batch.unreadable(self._stream, entry, reason))
        except RefusedError as error:
            told = f"{reason}; its {len(entry.body)} bytes, at offset {entry.offset} of {self._stream}: {error}"
            await self._commit(Batch.unreadable(self._stream, entry, told, with_body=False), is_insisting=True)

    async def _commit(self, batch: Batch, *, is_insisting: bool = False) -> None:
        """Write a batch; `is_insisting`: no event has a part in its being refused, so that is waited out like an outage."""

        async def write() -> None:
            try:
                await self._history.write(batch)
            except RefusedError as error:
                if is_insisting:
                    raise HistoryUnavailableError(f"The history takes no event at all: {error}") from error
                raise

        await patiently(write, self._is_away)
        self._place.read(*batch.mark)
        self.problem = None

    def _is_away(self, error: HistoryUnavailableError) -> None:
        self.problem = str(error)

    def _lag_s(self) -> float:
        return 0.0 if self._behind_since is None else max(0.0, datetime.now(UTC).timestamp() - self._behind_since)


async def patiently(do: Callable[[], Awaitable[_T]], tell: Callable[[HistoryUnavailableError], object] = str) -> _T:
    """Do something with the database for as long as it takes: an outage is waited out, never turned into a loss."""
    for attempt in itertools.count():
        try:
            return await do()
        except HistoryUnavailableError as error:
            log.warning("history_unreachable", detail=str(error))
            tell(error)
        await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
    raise AssertionError("count() does not end")


def _entry(delivery: Delivery) -> Entry:
    return Entry(delivery.offset, delivery.body)
