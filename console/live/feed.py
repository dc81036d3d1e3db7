"""The published events of the last minutes, and those to come: one consumer of the journal serves everybody who watches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import NoReturn

from console.streams.events import one_line, read_event
from console.streams.journal import bookmark, bookmark_id, is_bookmark, journal_end, journal_until_now
from console.streams.position import Place
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.consumer import Consumer, Delivery
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLS_JOURNAL
from shared.config.settings import Settings
from shared.errors import BrokerUnavailableError, CallfoldError
from shared.log import get_logger
from shared.runtime.broker import broker_address

log = get_logger(__name__)

_KEPT = 5000
_KEPT_FOR = timedelta(minutes=15)
_PREFETCH = 500
_BATCH_BYTES = 1 << 20
_HEARTBEAT_S = 10
_QUIET_S = 1
_READ_BACK_S = 1
_BEFORE_ALL = -1
_CONNECT_S = 9


@dataclass(frozen=True, slots=True)
class Published:
    """One event: its offset in the journal, by which a reader goes on, and its body as published (JSON, one line)."""

    offset: int
    routing_key: str
    body: bytes


class Feed:
    """Keeps the last events in memory; `events` reads on from any offset, out of the journal where memory does not reach."""

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        self._settings = settings
        self._publisher = publisher
        self._kept: deque[Published] = deque(maxlen=_KEPT)
        self._grown = asyncio.Condition()
        self._place = Place()
        self._read_to: int | None = None
        self._streams = 0  # how often the stream was found to be another
        self._marks: dict[str, asyncio.Future[int]] = {}
        address = broker_address(settings, "feed")
        self.consumer = Consumer(address, CALLS_JOURNAL, prefetch=_PREFETCH, arguments=self._arguments)

    def _arguments(self) -> dict[str, HeaderValue]:
        offset = self._place.ask()
        return {"x-stream-offset": datetime.now(UTC) - _KEPT_FOR if offset is None else offset}

    def recent(self) -> Sequence[Published]:
        """List what is kept, the latest last."""
        return tuple(self._kept)

    async def run(self) -> NoReturn:
        """Take in what is published for as long as the process lives. Run it, and `consumer.run()`, as tasks."""
        while True:
            try:
                async with asyncio.timeout(_QUIET_S):
                    first = await self.consumer.get()
            except TimeoutError:
                if self._place.is_overdue() and self.consumer.is_up:
                    await self._begin_anew()
                continue
            deliveries = [first, *self.consumer.get_waiting(_BATCH_BYTES)]
            if self._place.is_left:
                continue
            if not self._place.is_same(first.offset, first.body):
                await self._begin_anew()
                continue
            async with self._grown:
                for delivery in deliveries:
                    self._take(delivery)
                self._grown.notify_all()
            for delivery in deliveries:
                await delivery.ack()  # grants credit for more

    async def _begin_anew(self) -> None:
        """Forget what was kept: the stream is another, and its offsets mean other events."""
        log.warning("journal_made_anew", offset=self._read_to)
        self._place.leave()
        async with self._grown:
            self._kept.clear()
            self._read_to = None
            self._streams += 1
            self._grown.notify_all()
        self.consumer.recycle()

    def _take(self, delivery: Delivery) -> None:
        self._read_to = delivery.offset
        self._place.read(delivery.offset, delivery.body)
        if is_bookmark(delivery):
            found = self._marks.get(bookmark_id(delivery))
            if found and not found.done():
                found.set_result(delivery.offset)
        # After a reconnect a stream begins at a chunk, which can hold older ones.
        elif not self._kept or delivery.offset > self._kept[-1].offset:
            self._kept += _published(delivery)

    async def end(self) -> int:
        """Tell where the journal ends: the offset of a bookmark that is put there now, and read back.

        While this feed is far behind, as at its start, the end is looked up by a reader of its own.

        Raises:
            CallfoldError: RabbitMQ cannot be reached, or gives nothing.
        """
        try:
            return await self._end_as_read()
        except (TimeoutError, BrokerUnavailableError):
            return await journal_end(self._settings, stream=CALLS_JOURNAL, connect_s=_CONNECT_S)

    async def place_of(self, seen: int | None) -> int:
        """Tell after which offset a reader goes on: what he saw last, or the end; all is new to one of a stream that is no more.

        Raises:
            CallfoldError: he saw nothing yet, and the end is not to be had.
        """
        try:
            end = await self.end()
        except CallfoldError:
            if seen is None:
                raise
            return seen
        return end if seen is None else seen if seen <= end else _BEFORE_ALL

    async def _end_as_read(self) -> int:
        mark = bookmark(CALLS_JOURNAL)
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._marks[mark.message_id] = found
        try:
            async with asyncio.timeout(_READ_BACK_S):
                await self._publisher.wait_until_up()
                await self._publisher.publish(mark)
                return await found
        finally:
            del self._marks[mark.message_id]

    async def events(self, after: int) -> AsyncGenerator[Published | None, None]:
        """Follow the events after an offset, without end; None where nothing came for some seconds.

        Where the stream is made anew meanwhile, all of it is read.
        """
        last, stream = after, self._streams
        is_behind = not self._kept and (self._read_to is None or last < self._read_to)
        while True:
            if stream != self._streams:
                last, stream = _BEFORE_ALL, self._streams
            first = self._kept[0].offset if self._kept else 0
            if is_behind or last + 1 < first:
                async with aclosing(self._out_of_the_journal(last)) as events:
                    async for event in events:
                        yield event
                        last = event.offset
                last, is_behind = max(last, first - 1), False
                continue  # so long may it have taken that memory begins later by now
            for event in self._after(last):
                yield event
                last = event.offset
            if not await self._grows(last, stream):
                yield None

    def _after(self, last: int) -> list[Published]:
        """List what is kept after an offset; looked for from the end, since most readers have read nearly all."""
        found = list(takewhile(lambda kept: kept.offset > last, reversed(self._kept)))
        return found[::-1]

    async def _grows(self, last: int, stream: int) -> bool:
        """Wait until something is kept after an offset, or the stream is another; False where nothing is for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARTBEAT_S), self._grown:
                await self._grown.wait_for(lambda: self._streams != stream or (bool(self._kept) and self._kept[-1].offset > last))
                return True
        return False

    async def _out_of_the_journal(self, last: int) -> AsyncGenerator[Published, None]:
        async with journal_until_now(self._settings, last + 1, stream=CALLS_JOURNAL) as deliveries:
            async for delivery in deliveries:
                if delivery.offset > last:
                    for event in _published(delivery):
                        yield event


def _published(delivery: Delivery) -> list[Published]:
    """Read the event of a delivery, if it is one."""
    return [Published(delivery.offset, delivery.routing_key, one_line(delivery))] if read_event(delivery) else []
