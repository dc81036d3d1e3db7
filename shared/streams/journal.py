"""Readers of the journals `calls.journal` and `callbacks.journal`, from any time or offset. They publish nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

from shared.amqp.batch_publish import HeaderValue
from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.stream_consumer import StreamConsumer
from shared.amqp.topology import CALLS_JOURNAL
from shared.config.settings import Settings
from shared.errors import BrokerUnavailableError, CallfoldError
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.streams.connections import wait_until_connected

Offset = datetime | int | Literal["first", "last", "next"]
_PREFETCH = 1000
_ACKED_TOGETHER = _PREFETCH // 4
_SILENCE_S = 30
_RETRY_S = 0.2
# Earlier releases marked the end of a journal with a message of this header. Such messages stay in it for 7 days.
_BOOKMARK = "bookmark"


class _Reader:
    """One consumer of a journal. After a reconnect it resumes after the last delivery it returned."""

    def __init__(self, settings: Settings, stream: str, offset: Offset) -> None:
        self.last: int | None = None
        self._unacked = 0
        self._offset = offset
        self.consumer = StreamConsumer(broker_address(settings, "journal"), stream, prefetch=_PREFETCH, arguments=self._arguments)

    def _arguments(self) -> dict[str, HeaderValue]:
        return {"x-stream-offset": self._offset if self.last is None else self.last + 1}

    async def next(self) -> Delivery:
        """Return the next delivery of an event. On a stream, an ack only grants credit for more, so many are acked together."""
        while True:
            delivery = await self.consumer.get()
            self._unacked += 1
            if self._unacked >= _ACKED_TOGETHER or not self.consumer.has_waiting():
                self._unacked = 0
                await delivery.ack_all()
                await asyncio.sleep(0)  # the reader of a long journal leaves time to other tasks
            # A stream starts at a chunk boundary, which can repeat older ones.
            if self.last is None or delivery.offset > self.last:
                self.last = delivery.offset
                return delivery


@asynccontextmanager
async def journal(settings: Settings, offset: Offset, *, stream: str = CALLS_JOURNAL) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open a journal; yields an endless iterator of deliveries. After a reconnect it resumes at the next offset."""
    if offset == "next":  # a number, so that a reconnect before the first delivery resumes at the same place
        end = await journal_end(settings, stream=stream)
        offset = "first" if end is None else end + 1
    reader = _Reader(settings, stream, offset)

    async def deliveries() -> AsyncIterator[Delivery]:
        while True:
            delivery = await reader.next()
            if not is_bookmark(delivery):
                yield delivery

    async with background(reader.consumer.run()):
        await wait_until_connected(reader.consumer)
        yield deliveries()


@asynccontextmanager
async def journal_until_now(
    settings: Settings, since: Offset, *, stream: str, before: int | None = None, connect_s: float | None = None
) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open a journal; yields an iterator over the deliveries from a time, an offset or `first` up to now.

    With `before`, it ends ahead of that offset.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or the connection is lost while reading.
    """
    reader = _Reader(settings, stream, since)

    async def deliveries() -> AsyncIterator[Delivery]:
        end = await _common_end(reader.consumer)
        if end is not None and before is not None:
            end = min(end, before - 1)
        # Where the stream has something since then, its first delivery has arrived by now.
        while end is not None and (reader.consumer.has_waiting() if reader.last is None else reader.last < end):
            if reader.consumer.has_waiting():
                delivery = await reader.next()
            else:
                try:
                    async with asyncio.timeout(_SILENCE_S):
                        delivery = await reader.next()
                except TimeoutError:
                    raise CallfoldError(f"{stream} could not be read to its end: no delivery for {_SILENCE_S} s.") from None
            if not is_bookmark(delivery) and (before is None or delivery.offset < before):
                yield delivery

    async with background(reader.consumer.run()):
        await wait_until_connected(reader.consumer, within_s=connect_s)
        yield deliveries()


async def journal_end(settings: Settings, *, stream: str, connect_s: float | None = None) -> int | None:
    """Return the offset of the last message of a journal, or None if it is empty. It does not read the journal.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or the connection is lost.
    """
    consumer = _Reader(settings, stream, "next").consumer
    async with background(consumer.run()):
        await wait_until_connected(consumer, within_s=connect_s)
        return await _common_end(consumer)


async def _common_end(consumer: Consumer) -> int | None:
    """Find the end of the stream that a consumer reads, once its server has all that any server of RabbitMQ has."""
    latest = end = await _answered(consumer, consumer.latest_stream_end)
    try:
        async with asyncio.timeout(_SILENCE_S):
            while latest is not None:
                end = await _answered(consumer, consumer.stream_end)
                if end is not None and end >= latest:
                    break
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise CallfoldError(
            f"{consumer.queue} could not be read to its end: for {_SILENCE_S} s, one server of RabbitMQ was behind another one."
        ) from None
    return end


async def _answered(consumer: Consumer, find: Callable[[], Awaitable[int | None]]) -> int | None:
    """Find an end of the stream that a consumer reads; try again after a lost connection."""
    try:
        async with asyncio.timeout(_SILENCE_S):
            while True:
                try:
                    return await find()
                except BrokerUnavailableError:
                    await asyncio.sleep(_RETRY_S)
                    await consumer.wait_until_up()
    except TimeoutError:
        raise CallfoldError(f"The end of {consumer.queue} could not be found: no answer for {_SILENCE_S} s.") from None


def is_bookmark(delivery: Delivery) -> bool:
    """Return whether a delivery is no event, but marks where a reader of an older release was."""
    return _BOOKMARK in delivery.headers
