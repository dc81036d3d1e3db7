"""How far the fold is behind, measured by probes: messages that a worker answers once it has folded them. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

_INTERVAL_S = 0.1  # between two probes of callbacks that are published as they arrive
_AWAY_S = 10.0
_LOST_S = 600.0  # a probe without an echo for this time was lost, for example dead-lettered

Answered = Callable[[], None]


class FoldLag:
    """Probes without an echo. Times are in seconds of one steady clock."""

    def __init__(self) -> None:
        self._unanswered: OrderedDict[int, tuple[float, Answered | None]] = OrderedDict()
        self._number = 0
        self._probed_at = float("-inf")
        self._answered_at = float("-inf")

    def is_due(self, now_s: float) -> bool:
        """Return whether the next message should be a probe."""
        return now_s - self._probed_at >= _INTERVAL_S

    def probe(self, now_s: float, *, answered: Answered | None = None) -> int:
        """Begin a probe and return its number. `answered` is called once it is answered or given up."""
        self._number += 1
        self._probed_at = now_s
        self._unanswered[self._number] = (now_s, answered)
        return self._number

    def give_up(self, number: int) -> None:
        """Forget a probe whose message was not published."""
        if probe := self._unanswered.pop(number, None):
            _call(probe[1])

    def give_up_all(self) -> None:
        """Forget all probes, because their echoes would go to a queue that no longer exists."""
        for number in [*self._unanswered]:
            self.give_up(number)

    def answer(self, number: int, now_s: float) -> None:
        """Take an echo. The queue is a FIFO, so it also answers every earlier probe."""
        if number not in self._unanswered:
            return
        self._answered_at = now_s
        for earlier in [each for each in self._unanswered if each <= number]:
            self.give_up(earlier)

    def seconds(self, now_s: float) -> float:
        """Return the lag from publish to fold: the age of the oldest probe without an echo.

        Before the first echo it is unknown, and 0: there may be no worker yet, or only workers that do not echo.
        """
        while (oldest := self._oldest_at()) is not None and now_s - oldest > _LOST_S:
            self.give_up(next(iter(self._unanswered)))
        is_known = self._answered_at > float("-inf")
        return now_s - oldest if oldest is not None and is_known else 0.0

    def is_away(self, now_s: float) -> bool:
        """Return whether no worker seems to fold: none has answered for a while although probes wait."""
        oldest = self._oldest_at()
        return oldest is not None and now_s - max(oldest, self._answered_at) > _AWAY_S

    def _oldest_at(self) -> float | None:
        return next((at for at, _ in self._unanswered.values()), None)


def _call(answered: Answered | None) -> None:
    if answered is not None:
        answered()
