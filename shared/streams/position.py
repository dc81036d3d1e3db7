"""The position of a stream reader across connections, and the check that the stream was not replaced."""

from __future__ import annotations

import time

from shared.amqp.consumer import Consumer
from shared.errors import BrokerUnavailableError

# If the requested event exists, the broker delivers it at once.
_ANSWER_TIMEOUT_S = 10


class StreamPosition:
    """The last event read. Each connection requests it again, and the first delivery must be that event.

    If someone deleted the stream or the broker's data, the new stream has another event at that offset, or none.
    """

    def __init__(self) -> None:
        self._last: tuple[int, object] | None = None
        self._requested: tuple[int, object] | None = None  # by the current connection, until the first delivery
        self._requested_at = 0.0
        self._is_stale = False

    def advance(self, offset: int, content: object) -> None:
        """Record the last event read; `content` identifies it."""
        self._last = offset, content

    def request(self) -> int | None:
        """Return the offset to read from on a new connection, or None if nothing was read yet."""
        self._is_stale = False
        self._requested, self._requested_at = self._last, time.monotonic()
        return self.requested_offset

    @property
    def requested_offset(self) -> int | None:
        """The offset this connection requested; None after its first delivery."""
        return self._requested[0] if self._requested else None

    @property
    def is_stale(self) -> bool:
        """True while deliveries belong to a connection that is about to be closed after `reset`."""
        return self._is_stale

    def is_same_stream(self, offset: int, content: object) -> bool:
        """Return whether the first delivery of a connection is the requested event or a later one."""
        requested, self._requested = self._requested, None
        return requested is None or offset > requested[0] or content == requested[1]

    async def is_lost(self, consumer: Consumer) -> bool:
        """Return whether no server of RabbitMQ has the requested event: the stream was replaced.

        This looks once the event is overdue. The server that is read can be behind another one, so half of them must answer.
        """
        if self._requested is None or time.monotonic() - self._requested_at <= _ANSWER_TIMEOUT_S:
            return False
        offset, self._requested_at = self._requested[0], time.monotonic()
        try:
            end = await consumer.latest_stream_end()
        except BrokerUnavailableError:
            return False
        return (end is None or end < offset) and not consumer.has_waiting()

    def reset(self) -> None:
        """Forget the position. The remaining deliveries of this connection are stale."""
        self._last = self._requested = None
        self._is_stale = True
