"""What is in flight on one channel: delivered to a consumer and not settled yet."""

from __future__ import annotations

import asyncio


class InFlight:
    """The unsettled deliveries of one channel, and the markers among them. Delivery tags of a channel only grow."""

    def __init__(self, consumer: str) -> None:
        """Begin with none; `consumer` names the channel among all that ever were."""
        self.consumer = consumer
        self._tags: dict[int, None] = {}
        self._markers: dict[int, int] = {}
        self.passed = 0
        self.has_passed = asyncio.Event()

    def take(self, tag: int, marker: int | None) -> None:
        """Add a delivery; `marker` is the number of the round if it is one."""
        self._tags[tag] = None
        if marker is not None:
            self._markers[tag] = marker

    def settle(self, tag: int) -> None:
        """Remove a delivery. Every marker with nothing unsettled before it is passed."""
        self._tags.pop(tag, None)
        oldest = next(iter(self._tags), None)
        for at in [at for at in self._markers if oldest is None or at < oldest]:
            self.passed = max(self.passed, self._markers.pop(at))
            self.has_passed.set()
