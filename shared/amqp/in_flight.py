"""Deliveries of one channel that are not settled yet."""

from __future__ import annotations

import asyncio
import itertools


class InFlight:
    """The unsettled deliveries of one channel and the markers among them; delivery tags of a channel only grow.

    Attributes:
        consumer: a name of the channel that is never used again.
        passed_round: the latest round of which a marker was passed: everything delivered before the marker is settled.
    """

    def __init__(self, consumer: str) -> None:
        self.consumer = consumer
        self._tags: dict[int, None] = {}
        self._marker_rounds: dict[int, int] = {}
        self.passed_round = 0
        self.has_passed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tags)

    @property
    def is_empty(self) -> bool:
        return not self._tags

    def add(self, tag: int, marker_round: int | None) -> None:
        """Add a delivery; `marker_round` is the number of the round if it is a marker."""
        self._tags[tag] = None
        if marker_round is not None:
            self._marker_rounds[tag] = marker_round

    def settle(self, tag: int) -> None:
        """Remove a delivery and pass every marker that has no unsettled delivery before it."""
        self._tags.pop(tag, None)
        self._pass_markers()

    def settle_until(self, tag: int) -> None:
        """Remove a delivery and all before it."""
        for settled in list(itertools.takewhile(lambda each: each <= tag, self._tags)):
            del self._tags[settled]
        self._pass_markers()

    def _pass_markers(self) -> None:
        oldest = next(iter(self._tags), None)
        for marker in [marker for marker in self._marker_rounds if oldest is None or marker < oldest]:
            self.passed_round = max(self.passed_round, self._marker_rounds.pop(marker))
            self.has_passed.set()
