"""Readers of the journals `calls.journal` and `callbacks.journal`, from any time or offset. They publish nothing.

How a stream is read is the same as in the Python client: `callfold_client.stream_reader`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from callfold_client.errors import StreamError
from callfold_client.stream_cursor import Offset, StreamCursor, is_bookmark
from callfold_client.stream_reader import StreamReader
from shared.amqp.delivery import Delivery
from shared.amqp.stream_consumer import StreamConsumer
from shared.amqp.topology import CALLS_JOURNAL
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.log import get_logger
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.streams.connections import wait_until_connected

__all__ = ["Offset", "is_bookmark", "journal", "journal_end", "journal_until_now"]

log = get_logger(__name__)

_PREFETCH = 1000
_QUIET_S = 5
_SILENCE_S = 30


class _Journal:
    """One consumer of a journal and its reader. After a reconnect it resumes after the last delivery it returned."""

    def __init__(self, settings: Settings, stream: str, offset: Offset) -> None:
        self._stream = stream
        cursor = StreamCursor(offset)
        address = broker_address(settings, "journal")
        self.consumer = StreamConsumer(address, stream, prefetch=_PREFETCH, arguments=cursor.arguments)
        self.reader: StreamReader[Delivery] = StreamReader(self.consumer, cursor, on_replaced=self._log_replaced)
        self.is_replaced = False

    def _log_replaced(self, reason: str) -> None:
        self.is_replaced = True
        log.warning("journal_replaced", stream=self._stream, detail=reason)

    async def end(self) -> int | None:
        with _as_callfold_error():
            return await self.reader.common_end()


@asynccontextmanager
async def journal(settings: Settings, offset: Offset, *, stream: str = CALLS_JOURNAL) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open a journal; yields an endless iterator of deliveries. After a reconnect it resumes at the next offset.

    If someone has replaced the stream by then, all of the new one follows.
    """
    if offset == "next":  # a number, so that a reconnect before the first delivery resumes at the same place
        end = await journal_end(settings, stream=stream)
        offset = "first" if end is None else end + 1
    opened = _Journal(settings, stream, offset)

    async def deliveries() -> AsyncIterator[Delivery]:
        while True:
            read = await opened.reader.next_credited(quiet_s=_QUIET_S)
            for delivery in read.messages if read else ():
                yield delivery

    async with background(opened.consumer.run()):
        await wait_until_connected(opened.consumer)
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
    opened = _Journal(settings, stream, since)

    async def deliveries() -> AsyncIterator[Delivery]:
        end = await opened.end()
        if end is not None and before is not None:
            end = min(end, before - 1)
        while end is not None and opened.reader.is_before(end):
            read = await opened.reader.next_credited(quiet_s=_SILENCE_S)
            if opened.is_replaced:
                raise CallfoldError(f"{stream} could not be read to its end: it was replaced in the meantime.")
            if read is None:
                raise CallfoldError(f"{stream} could not be read to its end: no delivery for {_SILENCE_S} s.")
            for delivery in read.messages:
                if delivery.offset <= end:
                    yield delivery

    async with background(opened.consumer.run()):
        await wait_until_connected(opened.consumer, within_s=connect_s)
        yield deliveries()


async def journal_end(settings: Settings, *, stream: str, connect_s: float | None = None) -> int | None:
    """Return the offset of the last message of a journal, or None if it is empty. It does not read the journal.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or the connection is lost.
    """
    opened = _Journal(settings, stream, "next")
    async with background(opened.consumer.run()):
        await wait_until_connected(opened.consumer, within_s=connect_s)
        return await opened.end()


@contextmanager
def _as_callfold_error() -> Iterator[None]:
    try:
        yield
    except StreamError as error:
        raise CallfoldError(str(error)) from error
