"""Frames of a connection that reads a stream. Deliveries are taken from the socket's bytes at a tenth of the library's cost.

The library makes an object of each frame, passes it through two queues, and starts a task for each delivery. For a journal of a
million messages, that costs more than everything else. Here a delivery goes to its consumer as soon as its last frame has
arrived. All other frames go to the library as ever. Frames: AMQP 0-9-1, 2.3.5 and 4.2.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from struct import Struct
from typing import NamedTuple

import pamqp.frame
from aiormq import connection as library
from aiormq.connection import FrameReceiver
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp.exceptions import PAMQPException
from pamqp.frame import FrameTypes
from pamqp.heartbeat import Heartbeat

from callfold_client.lenient_decoding import field_table

_READ_BYTES = 256 << 10
_FRAME = Struct(">BHI")
_TAG = Struct(">Q")
_HEADER = Struct(">HHQH")
_METHOD_FRAME, _FRAME_END = 1, 0xCE
_DELIVER = b"\x00\x3c\x00\x3c"
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS = 0x8000, 0x4000, 0x2000
# The table of most messages of a stream: its offset alone.
_OFFSET_ALONE = b"\x00\x00\x00\x19\x0fx-stream-offsetl"
_OFFSET = Struct(">q")


class StreamMessage(NamedTuple):
    """One delivery to a reader of a stream."""

    tag: int
    routing_key: str
    headers: Mapping[str, object]
    body: bytes


class StreamFrames:
    """The frames of the connections of one reader, which has one after the other. Open them within `used_by`."""

    def __init__(self, on_message: Callable[[StreamMessage], None]) -> None:
        self._on_message = on_message
        self._begin = b""

    def expect(self, consumer_tag: str) -> None:
        """Take the deliveries to this consumer from now on."""
        tag = consumer_tag.encode()
        self._begin = _DELIVER + bytes([len(tag)]) + tag

    def take(self, buffer: bytearray, at: int) -> int | None:
        """Take a delivery that begins at a position; returns where it ends, 0 if it is not complete, None if there is none."""
        begin = at + _FRAME.size
        if not self._begin or buffer[at] != _METHOD_FRAME or not buffer.startswith(self._begin, begin):
            return None
        end = _end_of_frame(buffer, at)
        header_end = _end_of_frame(buffer, end) if end else 0
        if not header_end:
            return 0
        begin += len(self._begin)
        _, _, size, flags = _HEADER.unpack_from(buffer, end + _FRAME.size)
        parts, got, body_end = [], 0, header_end
        while got < size:
            first, body_end = body_end + _FRAME.size, _end_of_frame(buffer, body_end)
            if not body_end:
                return 0
            parts.append(bytes(buffer[first : body_end - 1]))
            got += body_end - 1 - first
        (tag,) = _TAG.unpack_from(buffer, begin)
        begin += _TAG.size + 1  # `redelivered`
        begin += 1 + buffer[begin]  # the exchange
        routing_key = buffer[begin + 1 : begin + 1 + buffer[begin]].decode("utf-8", "replace")
        headers = _headers(bytes(buffer[end + _FRAME.size + _HEADER.size : header_end - 1]), flags)
        self._on_message(StreamMessage(tag, routing_key, headers, parts[0] if len(parts) == 1 else b"".join(parts)))
        return body_end


_USED: ContextVar[StreamFrames | None] = ContextVar("frames", default=None)


@contextlib.contextmanager
def used_by(frames: StreamFrames) -> Iterator[None]:
    """Read with `frames` what is connected by the tasks that begin in this block."""
    token = _USED.set(frames)
    try:
        yield
    finally:
        _USED.reset(token)


class _Receiver(FrameReceiver):
    """The frames of one connection."""

    def __init__(self, reader: asyncio.StreamReader, frames: StreamFrames) -> None:
        super().__init__(reader)
        self._frames = frames
        self._buffer = bytearray()
        self._at = 0

    async def get_frame(self) -> tuple[int, int, FrameTypes]:
        """Return the next frame that is no delivery. After deliveries, or a part of one, it is a heartbeat: the server lives.

        Raises:
            StopAsyncIteration: the connection is closed.
            AMQPConnectionError: it was closed in the middle of a frame, or while this waited.
        """
        has_arrived = False
        while True:
            if end := self._frames.take(self._buffer, self._at) if self._at < len(self._buffer) else 0:
                self._at, has_arrived = end, True
                continue
            if end is None and (end := _end_of_frame(self._buffer, self._at)):
                frame, self._at = bytes(self._buffer[self._at : end]), end
                try:
                    return pamqp.frame.unmarshal(frame)
                except PAMQPException as error:
                    raise InvalidFrameError(str(error)) from error
            if has_arrived:
                return 0, 0, Heartbeat()
            await self._read()
            has_arrived = True

    async def _read(self) -> None:
        if self.reader.at_eof():
            raise StopAsyncIteration
        try:
            received = await self.reader.read(_READ_BYTES)
        except OSError as error:
            raise AMQPConnectionError(f"Server connection error: {error!r}") from error
        if not received:
            raise AMQPConnectionError("Server connection unexpectedly closed.")
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += received


def _receiver_of(reader: asyncio.StreamReader) -> FrameReceiver:
    frames = _USED.get()
    return FrameReceiver(reader) if frames is None else _Receiver(reader, frames)


def install() -> None:
    """Replace the receiver of the library. Safe to repeat."""
    library.FrameReceiver = _receiver_of  # type: ignore[assignment, misc]


def _end_of_frame(buffer: bytearray, at: int) -> int:
    """Return where the frame at a position ends, or 0 if it has not arrived completely.

    Raises:
        InvalidFrameError: what is there is no frame.
    """
    if len(buffer) < at + _FRAME.size:
        return 0
    end: int = at + _FRAME.size + _FRAME.unpack_from(buffer, at)[2] + 1
    if len(buffer) < end:
        return 0
    if buffer[end - 1] != _FRAME_END:
        raise InvalidFrameError("a frame without its end")
    return end


def _headers(properties: bytes, flags: int) -> Mapping[str, object]:
    """Return the headers among the properties of a message, which may be its first, second or third one."""
    at = 0
    for each in (_CONTENT_TYPE, _CONTENT_ENCODING):
        if flags & each:
            at += 1 + properties[at]
    if not flags & _HEADERS:
        return {}
    if properties.startswith(_OFFSET_ALONE, at):
        return {"x-stream-offset": _OFFSET.unpack_from(properties, at + len(_OFFSET_ALONE))[0]}
    return field_table(properties[at:])[1]
