"""The published events of the last minutes, and those to come: one consumer of the journal serves everybody who watches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import NoReturn

import orjson

from console.journal import bookmark, is_bookmark, journal_until_now, one_line, read_event
from shared.broker import BrokerAddress, Consumer, Delivery, HeaderValue, Publisher
from shared.facts import rfc3339
from shared.process import instance_name
from shared.settings import Settings
from shared.topology import CALLS_JOURNAL, topology

_KEPT = 5000
_KEPT_FOR = timedelta(minutes=15)
_PREFETCH = 500
_BATCH_BYTES = 1 << 20
_HEARTBEAT_S = 10


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
        self._start = datetime.now(UTC) - _KEPT_FOR
        # Where the journal ended as we began: whoever watches before all until then is read has not asked for it.
        self._begin_mark = bookmark(CALLS_JOURNAL)
        self._began_at: int | None = None
        address = BrokerAddress(settings.amqp_urls, topology(settings.recording_retry_seconds), instance_name("feed"))
        self.consumer = Consumer(address, CALLS_JOURNAL, prefetch=_PREFETCH, arguments=self._arguments)

    def _arguments(self) -> dict[str, HeaderValue]:
        return {"x-stream-offset": self._kept[-1].offset + 1 if self._kept else self._start}

    def recent(self) -> Sequence[Published]:
        """List what is kept, the latest last."""
        return tuple(self._kept)

    async def run(self) -> NoReturn:
        """Take in what is published for as long as the process lives. Run it, and `consumer.run()`, as tasks."""
        await self._publisher.publish_patiently([self._begin_mark])
        while True:
            deliveries = [await self.consumer.get(), *self.consumer.get_waiting(_BATCH_BYTES)]
            async with self._grown:
                for delivery in deliveries:
                    self._take(delivery)
                self._grown.notify_all()
            for delivery in deliveries:
                await delivery.ack()  # grants credit for more

    def _take(self, delivery: Delivery) -> None:
        if self._began_at is None and is_bookmark(delivery, self._begin_mark):
            # The mark is late where RabbitMQ was: what happened since we began is still to come for who watched from the first.
            began = rfc3339(self._start + _KEPT_FOR)
            since = (kept.offset - 1 for kept in self._kept if str(orjson.loads(kept.body)["time"]) >= began)
            self._began_at = min(since, default=delivery.offset)
        # After a reconnect a stream begins at a chunk, which can hold older ones.
        if not is_bookmark(delivery) and (not self._kept or delivery.offset > self._kept[-1].offset):
            self._kept += _published(delivery)

    async def events(self, after: int | None) -> AsyncGenerator[Published | None, None]:
        """Follow the events after an offset (None: those to come), without end; None where nothing came for some seconds."""
        is_behind = after is not None and not self._kept
        last = self._newest() if after is None else after
        while last is None:
            if not await self._until(lambda: self._began_at is not None):
                yield None
            last = self._began_at
        while True:
            first = self._kept[0].offset if self._kept else 0
            if is_behind or last + 1 < first:
                async with aclosing(self._out_of_the_journal(last)) as events:
                    async for event in events:
                        yield event
                        last = event.offset
                last, is_behind = max(last, first - 1), False
            for event in self._after(last):
                yield event
                last = event.offset
            if not await self._grows(last):
                yield None

    def _newest(self) -> int | None:
        """Tell the offset of what was published last, or None before that is known."""
        if self._began_at is None:
            return None
        return max(self._began_at, self._kept[-1].offset) if self._kept else self._began_at

    def _after(self, last: int) -> list[Published]:
        """List what is kept after an offset; looked for from the end, since most readers have read nearly all."""
        found = list(takewhile(lambda kept: kept.offset > last, reversed(self._kept)))
        return found[::-1]

    async def _grows(self, last: int) -> bool:
        return await self._until(lambda: bool(self._kept) and self._kept[-1].offset > last)

    async def _until(self, condition: Callable[[], bool]) -> bool:
        """Wait until something is so; False where it is not for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARTBEAT_S), self._grown:
                await self._grown.wait_for(condition)
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
