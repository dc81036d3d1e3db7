"""How many callbacks that waited go into one message: as many as are folded in a fraction of a second. No I/O, no clock."""

from __future__ import annotations

from shared.domain.raw_event import MAX_EVENTS_PER_MESSAGE

SMALLEST = 50
_SLOW_S, _QUICK_S = 0.4, 0.2


class MessageSize:
    """The size of the next message: doubled after a quick echo, halved after a slow one."""

    def __init__(self) -> None:
        self.events = 2 * SMALLEST

    def echoed(self, seconds: float) -> None:
        """Take the seconds from the publish of a message to its echo."""
        if seconds > _SLOW_S:
            self.events = max(SMALLEST, self.events // 2)
        elif seconds < _QUICK_S:
            self.events = min(MAX_EVENTS_PER_MESSAGE, self.events * 2)
