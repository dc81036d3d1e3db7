"""Reads a stream through any connection: resumes, skips repeated messages, notices another stream, and finds the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from callfold_client.errors import StreamError, TransportLostError
from callfold_client.stream_cursor import Read, StreamCursor, StreamMessage

SILENCE_S = 30
RETRY_S = 0.2
_BATCH_BYTES = 256 << 10


class Delivery(StreamMessage, Protocol):
    """A message of a stream that was delivered. On a stream, an ack only grants credit for more."""

    async def ack_all(self) -> None:
        """Ack the message and every one before it."""


_D = TypeVar("_D", bound=Delivery)


class Transport(Protocol[_D]):
    """A consumer of one stream. For each connection it calls `StreamCursor.arguments`.

    One that reconnects by itself raises nothing and waits. One for a single connection raises `TransportLostError`.
    """

    @property
    def queue(self) -> str: ...

    @property
    def is_up(self) -> bool: ...

    async def wait_until_up(self) -> None: ...

    async def get(self) -> _D: ...

    def get_waiting(self, max_bytes: int, /) -> list[_D]: ...

    def has_waiting(self) -> bool: ...

    async def stream_end(self) -> int | None:
        """Return the offset of the last message that the connected server has, or None if it has none."""

    async def latest_stream_end(self) -> int | None:
        """Return the offset of the last message that any server has, or None if the stream is empty."""

    def recycle(self, reason: str, /) -> None:
        """Drop the connection and open a new one."""


class StreamReader(Generic[_D]):
    """Reads one stream. `lost` is called with the reason if the stream was replaced; then it is read from its beginning."""

    def __init__(self, transport: Transport[_D], cursor: StreamCursor, *, on_replaced: Callable[[str], object] = str) -> None:
        self.transport = transport
        self.cursor = cursor
        self._on_replaced = on_replaced

    async def next(self, *, quiet_s: float | None = None, max_bytes: int = _BATCH_BYTES) -> tuple[Read[_D], list[_D]] | None:
        """Wait for deliveries that continue the stream.

        Returns:
            What was read, and the deliveries to ack. None if nothing arrived for `quiet_s`, or if the stream was replaced.
        """
        try:
            async with asyncio.timeout(quiet_s):
                first = await self.transport.get()
        except TimeoutError:
            if self.transport.is_up and await self.is_lost():
                self._restart("the stream has no message at this offset")
            return None
        deliveries = [first, *self.transport.get_waiting(max_bytes)]
        read = self.cursor.read(deliveries)
        if read.is_replaced:
            self._restart("the stream has another message at this offset")
            return None
        return read, deliveries

    async def next_credited(self, *, quiet_s: float | None = None) -> Read[_D] | None:
        """Wait for deliveries as `next` does, and ack them before they are used, so that more arrive in the meantime."""
        received = await self.next(quiet_s=quiet_s)
        if received is None:
            return None
        read, deliveries = received
        await deliveries[-1].ack_all()
        await asyncio.sleep(0)  # the reader of a long journal leaves time to other tasks
        return read

    async def is_lost(self) -> bool:
        """Return whether no server of RabbitMQ has the requested message: the stream was replaced.

        This looks once the message is overdue. The server that is read can be behind another one, so half of them must answer.
        """
        offset = self.cursor.requested_offset
        if offset is None or not self.cursor.is_overdue():
            return False
        try:
            end = await self.transport.latest_stream_end()
        except TransportLostError:
            return False
        return (end is None or end < offset) and not self.transport.has_waiting()

    def _restart(self, reason: str) -> None:
        self._on_replaced(reason)
        self.cursor.restart()
        self.transport.recycle("the stream is read again")

    def is_before(self, end: int) -> bool:
        """Return whether a message up to `end` is still to be read; valid after `common_end`, when the first delivery is here."""
        last = self.cursor.last_offset
        return self.transport.has_waiting() if last is None else last < end

    async def common_end(self) -> int | None:
        """Find the end of the stream, once the connected server has all that any server of RabbitMQ has.

        Raises:
            StreamError: a server stays behind another one, or none answers.
        """
        latest = end = await self._answered(self.transport.latest_stream_end)
        try:
            async with asyncio.timeout(SILENCE_S):
                while latest is not None:
                    end = await self._answered(self.transport.stream_end)
                    if end is not None and end >= latest:
                        break
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            raise StreamError(
                f"{self.transport.queue} could not be read to its end: for {SILENCE_S} s, one server of RabbitMQ was behind "
                "another one."
            ) from None
        return end

    async def _answered(self, find: Callable[[], Awaitable[int | None]]) -> int | None:
        """Find an end of the stream; try again after a lost connection."""
        try:
            async with asyncio.timeout(SILENCE_S):
                while True:
                    try:
                        return await find()
                    except TransportLostError:
                        await asyncio.sleep(RETRY_S)
                        await self.transport.wait_until_up()
        except TimeoutError:
            raise StreamError(f"The end of {self.transport.queue} could not be found: no answer for {SILENCE_S} s.") from None
