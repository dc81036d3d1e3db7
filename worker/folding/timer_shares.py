"""Fair shares of the timers: how many calls of one source may fire at a time. A pure function of what was due.

Timer events queue with callbacks. Without a limit, a source with very many open calls would delay the callbacks of all others.
The calls beyond the limit get later wake-ups, one after the other, so that they do not hide due calls of other sources either.
"""

from __future__ import annotations

from collections.abc import Iterable

from shared.domain.ids import CallKey, SourceName

PER_S = 500
"""Timers of one source that a worker fires per second, in the long run."""
BURST = 500
"""Timers of one source that a worker fires at once after a quiet time."""
_INTERVAL_MS = 1000 / PER_S


class TimerShares:
    """Gives each timer a time; the times of one source are at least an interval apart, after a burst."""

    def __init__(self) -> None:
        self._next_ms: dict[SourceName, float] = {}

    def divide(self, due: Iterable[CallKey], now_ms: int) -> tuple[list[CallKey], dict[CallKey, int]]:
        """Return the calls to fire now, and the later times of the others (ms since 1970)."""
        firing: list[CallKey] = []
        postponed: dict[CallKey, int] = {}
        for key in due:
            at_ms = max(self._next_ms.get(key.source, 0), now_ms - BURST * _INTERVAL_MS)
            self._next_ms[key.source] = at_ms + _INTERVAL_MS
            if at_ms <= now_ms:
                firing.append(key)
            else:
                postponed[key] = round(at_ms)
        return firing, postponed
