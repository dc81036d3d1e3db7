"""The published events of the last minutes and all new ones: one journal consumer serves every watcher."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import NoReturn

from callfold_client.stream_cursor import StreamCursor
from callfold_client.stream_reader import StreamReader
from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.topology import CALLS_JOURNAL
from shared.config.settings import Settings
from shared.domain.leg_event import CallType
from shared.errors import BrokerUnavailableError, CallfoldError
from shared.log import get_logger
from shared.runtime.broker import broker_address
from shared.streams.events import one_line, read_event
from shared.streams.journal import journal_until_now

log = get_logger(__name__)

_RECENT_EVENTS, _RECENT_BYTES = 5000, 64 << 20
_RECENT_FOR = timedelta(minutes=15)
_PREFETCH = 500
_BATCH_BYTES = 1 << 20
_HEARTBEAT_S = 10
_QUIET_S = 1
BEFORE_FIRST = -1
_ANSWER_S = 9


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """One event of the journal.

    Attributes:
        offset: its place in the journal, from which a watcher resumes.
        body: as published, JSON on one line.
        is_login: it is the event of a login, which is no answered call.
    """

    offset: int
    routing_key: str
    at: str
    body: bytes
    is_login: bool = False


class Feed:
    """Keeps recent events in memory. `events` starts at any offset and reads older events from the journal."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._recent: deque[PublishedEvent] = deque()
        self._recent_bytes = 0
        self._changed = asyncio.Condition()
        self._last_offset: int | None = None  # the last one known, which may not be read yet
        self._generation = 0  # how often the journal was replaced
        address = broker_address(settings, "feed")
        self._cursor = StreamCursor(lambda: datetime.now(UTC) - _RECENT_FOR)
        self.consumer = Consumer(address, CALLS_JOURNAL, prefetch=_PREFETCH, arguments=self._cursor.arguments)
        self._reader: StreamReader[Delivery] = StreamReader(self.consumer, self._cursor, on_replaced=self._set_replaced)
        self._is_replaced = False

    def _set_replaced(self, reason: str) -> None:
        self._is_replaced = True
        log.warning("journal_replaced", offset=self._last_offset, detail=reason)

    def recent(self) -> Sequence[PublishedEvent]:
        """Return the events in memory, the latest last."""
        return tuple(self._recent)

    async def run(self) -> NoReturn:
        """Read the journal for as long as the process lives. Run it, and `consumer.run()`, as tasks."""
        while True:
            received = await self._reader.next(quiet_s=_QUIET_S, max_bytes=_BATCH_BYTES)
            if self._is_replaced:
                await self._forget()
            if received is None:
                continue
            read, deliveries = received
            async with self._changed:
                for delivery in read.messages:
                    self._keep(_published(delivery))
                self._last_offset = self._cursor.last_offset
                self._changed.notify_all()
            await deliveries[-1].ack_all()  # grants credit for more

    def _keep(self, events: Iterable[PublishedEvent]) -> None:
        """Keep events in memory instead of the oldest ones. A record with transcripts can be large."""
        for event in events:
            self._recent.append(event)
            self._recent_bytes += len(event.body)
        while len(self._recent) > _RECENT_EVENTS or (self._recent_bytes > _RECENT_BYTES and len(self._recent) > 1):
            self._recent_bytes -= len(self._recent.popleft().body)

    async def _forget(self) -> None:
        """Forget all events: the journal was replaced, and its offsets mean other events."""
        self._is_replaced = False
        async with self._changed:
            self._recent.clear()
            self._recent_bytes = 0
            self._last_offset = None
            self._generation += 1
            self._changed.notify_all()

    async def end(self, known: int = BEFORE_FIRST) -> int:
        """Return the offset of the last event in the journal (-1 if it is empty), even if this feed has not read it yet.

        A server of RabbitMQ without the `known` event can be behind another one, so the others are asked too.

        Raises:
            CallfoldError: RabbitMQ cannot be reached or does not answer.
        """
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self.consumer.wait_until_up()
                end = await self.consumer.stream_end()
                if known > (BEFORE_FIRST if end is None else end):
                    end = await self.consumer.latest_stream_end()
        except TimeoutError:
            raise BrokerUnavailableError(f"RabbitMQ {self.consumer.problem}") from None
        offset = BEFORE_FIRST if end is None else end
        self._last_offset = offset if self._last_offset is None else max(offset, self._last_offset)
        return offset

    async def resume_offset(self, last_seen: int | None) -> int:
        """Return the offset after which a watcher resumes: the last one it saw, or the end of the journal for a new watcher.

        If no server of RabbitMQ has the last offset it saw, the journal was replaced, and the watcher gets all of it.

        Raises:
            CallfoldError: the watcher is new, and the end cannot be read.
        """
        try:
            end = await self.end(BEFORE_FIRST if last_seen is None else last_seen)
        except CallfoldError:
            if last_seen is None:
                raise
            return last_seen
        if last_seen is None:
            return end
        return last_seen if last_seen <= end else BEFORE_FIRST

    async def events(self, after: int, since: datetime | None = None) -> AsyncGenerator[PublishedEvent | None, None]:
        """Follow the events after an offset, without end; yields None as a heartbeat while there are none.

        With `after` -1, `since` is the time of publication from which the journal is read; some events can be earlier.
        If the journal is replaced, all events of the new one follow.
        """
        last, generation = after, self._generation
        if since is not None and after == BEFORE_FIRST:
            end = await self.end()
            async with aclosing(self._from_journal(last, since)) as events:
                async for event in events:
                    yield event
                    last = event.offset
            last = max(last, end)
        is_behind = not self._recent and (self._last_offset is None or last < self._last_offset)
        while True:
            if generation != self._generation:
                last, generation = BEFORE_FIRST, self._generation
            first = self._recent[0].offset if self._recent else 0
            if is_behind or last + 1 < first:
                async with aclosing(self._from_journal(last)) as events:
                    async for event in events:
                        yield event
                        last = event.offset
                last, is_behind = max(last, first - 1), False
                continue  # reading can take so long that memory begins later by now
            for event in self._recent_after(last):
                yield event
                last = event.offset
            if not await self._has_changed(last, generation):
                yield None

    def _recent_after(self, last: int) -> list[PublishedEvent]:
        """Return the events in memory after an offset. The search starts at the end: most watchers have seen nearly all."""
        newer = list(takewhile(lambda event: event.offset > last, reversed(self._recent)))
        return newer[::-1]

    async def _has_changed(self, last: int, generation: int) -> bool:
        """Wait for an event after an offset or another journal; False if there is neither for a while."""

        def is_changed() -> bool:
            return self._generation != generation or (bool(self._recent) and self._recent[-1].offset > last)

        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARTBEAT_S), self._changed:
                await self._changed.wait_for(is_changed)
                return True
        return False

    async def _from_journal(self, last: int, since: datetime | None = None) -> AsyncGenerator[PublishedEvent, None]:
        async with journal_until_now(self._settings, since or last + 1, stream=CALLS_JOURNAL) as deliveries:
            async for delivery in deliveries:
                if delivery.offset > last:
                    for event in _published(delivery):
                        yield event


def _published(delivery: Delivery) -> list[PublishedEvent]:
    """Return the event of a delivery, or nothing if it is not an event of Callfold."""
    event = read_event(delivery)
    if event is None:
        return []
    is_login = event["data"].get("call_type") == CallType.LOGIN
    return [PublishedEvent(delivery.offset, delivery.routing_key, event["time"], one_line(delivery.body), is_login)]
