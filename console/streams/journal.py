"""Reading the journals: the streams `calls.journal` and `callbacks.journal`, from now on or from some time ago."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

from console.streams.connections import _CONNECT_S, connected
from shared.amqp.consumer import Consumer, Delivery
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLS_JOURNAL
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.log import get_logger
from shared.runtime.broker import create_publisher
from shared.runtime.process import background

log = get_logger(__name__)

Offset = datetime | int | Literal["first", "next"]
_PREFETCH = 200
_SILENCE_S = 30
_BOOKMARK = "bookmark"


@asynccontextmanager
async def journal(settings: Settings, offset: Offset, *, stream: str = CALLS_JOURNAL) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open a journal; yields an endless iterator of deliveries. After a reconnect it goes on where it was."""
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
            if last is None or delivery.offset > last:  # a stream begins at a chunk, which can hold older ones
                last = delivery.offset
                if not is_bookmark(delivery):
                    yield delivery
            await delivery.ack()  # on a stream an ack only grants credit for more

    async with background(consumer.run(), publisher.run()):
        await connected(consumer, publisher)
        if offset == "next":
            await publisher.publish(bookmark(stream))  # what is read first: from then on it is known where to go on
        yield deliveries()


@asynccontextmanager
async def journal_until_now(
    settings: Settings, since: Offset, *, stream: str, connect_s: float = _CONNECT_S
) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open a journal; yields an iterator of what it holds from some time, some offset, or `first`, up to this moment.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or went while it was read.
    """
    async with _up_to_now(settings, since, stream, connect_s) as deliveries:
        yield (delivery async for delivery in deliveries if not is_bookmark(delivery))


async def journal_end(settings: Settings, *, stream: str, connect_s: float = _CONNECT_S) -> int:
    """Tell an offset at which a journal ended a moment ago, however long it is.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or went meanwhile.
    """
    async with _up_to_now(settings, "next", stream, connect_s) as deliveries:
        return max([delivery.offset async for delivery in deliveries])


@asynccontextmanager
async def _up_to_now(settings: Settings, since: Offset, stream: str, connect_s: float) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Read a journal up to this moment. It does not tell where it ends: a bookmark that is put there now is the end."""
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
                raise CallfoldError(f"{stream} could not be read to its end: nothing came for {_SILENCE_S} s.") from None
            await delivery.ack()
            is_end = is_bookmark(delivery) and bookmark_id(delivery) == end.message_id
            yield delivery

    async with background(consumer.run(), publisher.run()):
        await connected(publisher, consumer, within_s=connect_s)
        await publisher.publish(end)
        yield deliveries()


def bookmark(stream: str) -> Message:
    """Write a message that only this stream gets, and that says nothing but where it stands."""
    mark = uuid.uuid4().hex
    return Message("", stream, b"[]", mark, headers={_BOOKMARK: mark})


def is_bookmark(delivery: Delivery) -> bool:
    """Tell a place that somebody marked for himself from what the journal holds."""
    return _BOOKMARK in delivery.headers


def bookmark_id(delivery: Delivery) -> str:
    """Tell the message id of a delivered bookmark."""
    return str(delivery.headers[_BOOKMARK])
