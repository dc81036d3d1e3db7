"""Where a reader of a stream stands, across connections; and whether the stream is still the one that was read."""

from __future__ import annotations

import time

# The event asked for comes at once where there is one.
_ANSWERED_S = 10


class Place:
    """The last event that was read: each connection asks for it again, and what comes first must be that event.

    A stream that was made anew, as its queue or all of the broker's data was, has another event there, or none.
    """

    def __init__(self) -> None:
        self._last: tuple[int, object] | None = None
        self._asked: tuple[int, object] | None = None  # by the connection there is now, until it was answered
        self._asked_at = 0.0
        self._is_left = False

    def read(self, offset: int, content: object) -> None:
        """Note what was read last; `content` is what it is known again by."""
        self._last = offset, content

    def ask(self) -> int | None:
        """Tell, on each connection, from which offset to read; None where nothing was read yet."""
        self._is_left = False
        self._asked, self._asked_at = self._last, time.monotonic()
        return self._asked[0] if self._asked else None

    @property
    def asked(self) -> int | None:
        """Where the event stands that this connection was asked for, until something came."""
        return self._asked[0] if self._asked else None

    @property
    def is_left(self) -> bool:
        """Tell whether what still comes is of a place that was left: of a connection that is about to be given up."""
        return self._is_left

    def is_same(self, offset: int, content: object) -> bool:
        """Tell whether the stream is the one that was read: what comes first on a connection must be what was asked for."""
        asked, self._asked = self._asked, None
        return asked is None or offset > asked[0] or content == asked[1]

    def is_overdue(self) -> bool:
        """Tell whether the event that was asked for should have come: the stream has none there."""
        return self._asked is not None and time.monotonic() - self._asked_at > _ANSWERED_S

    def leave(self) -> None:
        """Forget the place; nothing more that comes on this connection is to be read."""
        self._last = self._asked = None
        self._is_left = True
