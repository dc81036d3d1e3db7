"""Whether the depth of a queue of dead letters grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 300.0
"""Dead letters grow until none was added for this time."""


@dataclass(slots=True)
class Growth:
    """The growth of one queue.

    Attributes:
        depth: of the last sample; None before the first one.
        since, last_at: when the current growth was first and last seen.
        added: how many messages were added in it.
    """

    depth: int | None = None
    since: str = ""
    last_at: str = ""
    added: int = 0
    _last_s: float = 0.0

    @property
    def is_growing(self) -> bool:
        return bool(self.since)

    def sample(self, depth: int, clock_s: float, at: str) -> None:
        """Take the depth at a time. The first one is no growth, whatever it is: a redrive or drop begins lower again."""
        before, self.depth = self.depth, depth
        if before is not None and depth > before:
            self.since = self.since or at
            self.added += depth - before
            self.last_at, self._last_s = at, clock_s
        elif self.since and clock_s - self._last_s >= WINDOW_S:
            self.since, self.added = "", 0
