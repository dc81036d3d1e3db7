"""Where a reader of a stream is, across connections: what is new, what was read, and whether the stream is still the same one.

This does no I/O. The current position is the last message that was read, with its content. Each connection requests that message
again, and its first delivery must be that message. If someone deleted the stream or the broker's data, the new stream has another
message at that offset, or none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

OFFSET = "x-stream-offset"
Offset = datetime | int | Literal["first", "last", "next"]
# Earlier releases marked the end of a journal with a message of this header. Such messages stay in it for 7 days.
BOOKMARK = "bookmark"
# If the requested message exists, the broker delivers it at once.
ANSWER_TIMEOUT_S = 10


class StreamMessage(Protocol):
    """A message of a stream."""

    @property
    def offset(self) -> int: ...

    @property
    def body(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, object]: ...


_M = TypeVar("_M", bound=StreamMessage)


@dataclass(frozen=True, slots=True)
class Read(Generic[_M]):
    """New messages among deliveries, and what is wrong with them.

    Attributes:
        messages: the messages that were not read before, without bookmarks.
        missing: number of messages that the stream no longer keeps between the last one and these.
        is_replaced: the stream is another one. The deliveries are not used.
    """

    messages: Sequence[_M] = ()
    missing: int = 0
    is_replaced: bool = False


class StreamCursor:
    """The position of one reader."""

    def __init__(
        self,
        begin: Offset | Callable[[], Offset],
        *,
        last: tuple[int, object] | None = None,
        fingerprint: Callable[[bytes], object] = bytes,
    ) -> None:
        """Prepare a reader.

        Args:
            begin: the offset of the first connection. A function is called for each connection until a message was read.
            last: offset and fingerprint of the last message that was read in a previous life.
            fingerprint: returns what identifies the content of a message; the content itself by default.
        """
        self._begin = begin
        self._fingerprint = fingerprint
        self._last = last
        self._requested: tuple[int, object] | None = None  # by the current connection, until the first delivery
        self._requested_at = 0.0
        self._is_stale = False

    @property
    def last_offset(self) -> int | None:
        """The offset of the last message read; None if none was."""
        return self._last[0] if self._last else None

    @property
    def requested_offset(self) -> int | None:
        """The offset this connection requested; None after its first delivery."""
        return self._requested[0] if self._requested else None

    def resume_after(self, offset: int, fingerprint: object) -> None:
        """Set the last message that was read in a previous life."""
        self._last = offset, fingerprint

    def request(self) -> Offset:
        """Return the offset to read from on a new connection."""
        self._is_stale = False
        self._requested, self._requested_at = self._last, time.monotonic()
        if self._requested is not None:
            return self._requested[0]
        return self._begin() if callable(self._begin) else self._begin

    def arguments(self) -> Mapping[str, datetime | int | str]:
        """Return the arguments with which a new connection consumes the stream."""
        return {OFFSET: self.request()}

    def read(self, deliveries: Sequence[_M]) -> Read[_M]:
        """Read deliveries of a connection, in their order."""
        if self._is_stale or not deliveries:
            return Read()
        missing = 0
        if self._requested is not None:
            at = next((number for number, each in enumerate(deliveries) if each.offset >= self._requested[0]), len(deliveries))
            if at == len(deliveries):
                return Read()  # a stream begins at a chunk boundary, which can repeat older messages
            missing = deliveries[at].offset - self._requested[0] - 1
            if missing < 0 and self._fingerprint(deliveries[at].body) != self._requested[1]:
                return Read(is_replaced=True)
            self._requested = None
        last = -1 if self._last is None else self._last[0]
        new = []
        for delivery in deliveries:
            if delivery.offset > last:
                last = delivery.offset
                new.append(delivery)
        if new:
            self._last = last, self._fingerprint(new[-1].body)
        return Read([each for each in new if not is_bookmark(each)], max(missing, 0))

    def is_overdue(self) -> bool:
        """Return whether the requested message has not arrived for so long that it may no longer exist.

        If so, the next answer is due after the same time again.
        """
        if self._requested is None or time.monotonic() - self._requested_at <= ANSWER_TIMEOUT_S:
            return False
        self._requested_at = time.monotonic()
        return True

    def restart(self) -> None:
        """Forget the position. The remaining deliveries of this connection are stale. Numbers mean nothing in another stream."""
        self._last = self._requested = None
        self._is_stale = True
        if isinstance(self._begin, int) or self._begin == "next":
            self._begin = "first"


def is_bookmark(message: StreamMessage) -> bool:
    """Return whether a message is no event, but marks where a reader of an older release was."""
    return BOOKMARK in message.headers
