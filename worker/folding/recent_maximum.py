"""The largest of the values that were seen recently, in two windows of time, so that it forgets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RecentMaximum:
    """The maximum of the values of this window and of the one before. Times are seconds since 1970.

    Attributes:
        began_s, largest: of this window.
        before_s, before: the same of the last earlier window that had a value.
        last_s: time of the latest value.
    """

    window_s: float
    began_s: float
    largest: float
    before_s: float = 0
    before: float | None = None
    last_s: float = 0

    def add(self, value: float, at_s: float) -> bool:
        """Add a value; returns whether it counts. One that is older than this window by another window says nothing of now."""
        if at_s <= self.began_s - self.window_s:
            return False
        if at_s - self.began_s >= self.window_s:
            self.before_s, self.before = self.began_s, self.largest
            self.began_s, self.largest = at_s, value
        self.largest = max(self.largest, value)
        self.last_s = max(self.last_s, at_s)
        return True

    @property
    def value(self) -> float:
        """Return the maximum, without values that are older than two windows."""
        is_recent = self.last_s - self.before_s < 2 * self.window_s
        return max(self.largest, self.before) if self.before is not None and is_recent else self.largest

    def is_below(self, limit: float) -> bool:
        """Return whether the values of this window and of the last earlier one are all below a limit.

        A single value can be low because a message was held up.
        """
        return self.before is not None and max(self.largest, self.before) < limit
