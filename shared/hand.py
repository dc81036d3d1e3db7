"""What a consumer has in hand: delivered to it and not yet settled."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

# Under load there are moments between two batches in which nothing is in hand, though more is on its way.
_LINGERS_S = 0.5
# What waits in a queue is delivered within this time to a consumer that has room.
_FIRST_DELIVERY_S = 1.0

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, eq=False)
class Held(Generic[_Item]):
    """Something in hand, and since when (monotonic seconds)."""

    item: _Item
    since: float


class Hand(Generic[_Item]):
    """Keeps what was taken until it is settled, and for a moment longer. Empty and unknown are not the same: see `is_known`."""

    def __init__(self) -> None:
        self._held: dict[Hashable, Held[_Item]] = {}
        self._settled: deque[tuple[float, Held[_Item]]] = deque()
        self._known_from: float | None = None
        self.changed = asyncio.Event()

    def open(self) -> None:
        """Begin to take: what is waiting comes within a moment."""
        self._known_from = time.monotonic() + _FIRST_DELIVERY_S
        self.changed.set()

    def take(self, tag: Hashable, item: _Item) -> None:
        now = time.monotonic()
        self._held[tag] = Held(item, now)
        if self._known_from is not None:
            self._known_from = min(self._known_from, now)  # the oldest come first

    def settle(self, tag: Hashable) -> None:
        held = self._held.pop(tag, None)
        if held is not None:
            self._settled.append((time.monotonic(), held))

    def lose(self) -> None:
        """Forget everything: it goes to whoever takes it next."""
        self._held.clear()
        self._settled.clear()
        self._known_from = None
        self.changed.set()

    @property
    def is_open(self) -> bool:
        return self._known_from is not None

    @property
    def is_known(self) -> bool:
        """Whether what is in hand is all there is: not while the consumer has only just begun."""
        return self._known_from is not None and time.monotonic() >= self._known_from

    def items(self) -> list[Held[_Item]]:
        """What is in hand, the longest held first; what was settled a moment ago among it."""
        limit = time.monotonic() - _LINGERS_S
        while self._settled and self._settled[0][0] < limit:
            self._settled.popleft()
        return [*(held for _, held in self._settled), *self._held.values()]
