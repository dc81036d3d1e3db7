"""Readers of the journals `calls.journal` and `callbacks.journal`, from any time or offset."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

from console.streams.connections import _CONNECT_S, wait_until_connected
from shared.amqp.consumer import Consumer, Delivery
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLS_JOURNAL
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.runtime.broker import create_publisher
from shared.runtime.process import background

Offset = datetime | int | Literal["first", "next"]
_PREFETCH = 200
_SILENCE_S = 30
_BOOKMARK = "bookmark"


@asynccontextmanager
async def journal(settings: Settings, offset: Offset, *, stream: str = CALLS_JOURNAL) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open a journal; yields an endless iterator of deliveries. After a reconnect it resumes at the next offset."""
    publisher = create_publisher(settings, "tail")
    last: int | None = None
    consumer = Consumer(
        publisher.address,
        stream,
        prefetch=_PREFETCH,
        arguments=lambda: {"x-stream-offset": offset if last is None else last + 1},
    )

    async def deliveries() -> AsyncIterator[Delivery]:
        nonlocal last
        while True:
            delivery = await consumer.get()
            if last is None or delivery.offset > last:  # a stream starts at a chunk boundary, which can repeat older ones
                last = delivery.offset
                if not is_bookmark(delivery):
                    yield delivery
            await delivery.ack()  # on a stream, an ack only grants credit for more

    async with background(consumer.run(), publisher.run()):
        await wait_until_connected(consumer, publisher)
        if offset == "next":
            await publisher.publish(bookmark(stream))  # its offset is the resume position if no event comes before a reconnect
        yield deliveries()


@asynccontextmanager
async def journal_until_now(
    settings: Settings, since: Offset, *, stream: str, connect_s: float = _CONNECT_S
) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open a journal; yields an iterator over the deliveries from a time, an offset or `first` up to now.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or the connection is lost while reading.
    """
    async with _up_to_now(settings, since, stream, connect_s) as deliveries:
        yield (delivery async for delivery in deliveries if not is_bookmark(delivery))


async def journal_end(settings: Settings, *, stream: str, connect_s: float = _CONNECT_S) -> int:
    """Return the current end offset of a journal, without reading the journal.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or the connection is lost.
    """
    async with _up_to_now(settings, "next", stream, connect_s) as deliveries:
        return max([delivery.offset async for delivery in deliveries])


@asynccontextmanager
async def _up_to_now(settings: Settings, since: Offset, stream: str, connect_s: float) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Read a journal up to a bookmark published now. RabbitMQ does not report the end offset of a stream."""
    end = bookmark(stream)
    publisher = create_publisher(settings, "journal")
    consumer = Consumer(publisher.address, stream, prefetch=_PREFETCH, arguments={"x-stream-offset": since})

    async def deliveries() -> AsyncIterator[Delivery]:
        is_end = False
        while not is_end:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    delivery = await consumer.get()
            except TimeoutError:
                raise CallfoldError(f"{stream} could not be read to its end: no delivery for {_SILENCE_S} s.") from None
            await delivery.ack()
            is_end = is_bookmark(delivery) and bookmark_id(delivery) == end.message_id
            yield delivery

    async with background(consumer.run(), publisher.run()):
        await wait_until_connected(publisher, consumer, within_s=connect_s)
        await publisher.publish(end)
        yield deliveries()


def bookmark(stream: str) -> Message:
    """Return a message for this stream alone that marks an offset and has no content."""
    mark = uuid.uuid4().hex
    return Message("", stream, b"[]", mark, headers={_BOOKMARK: mark})


def is_bookmark(delivery: Delivery) -> bool:
    """Return whether a delivery is a bookmark of any reader."""
    return _BOOKMARK in delivery.headers


def bookmark_id(delivery: Delivery) -> str:
    """Return the message id of a delivered bookmark."""
    return str(delivery.headers[_BOOKMARK])
