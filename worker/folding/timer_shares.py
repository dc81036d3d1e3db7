"""Fair shares of the timers: how many calls of one source may fire at a time. A pure function of what was due.

Timer events queue with callbacks. Without a limit, a source with very many open calls would delay the callbacks of all others.
The calls beyond the limit get later wake-ups, one after the other, so that they do not hide due calls of other sources either.
Redis postpones most of them, since a worker leases a limited number of calls of one source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shared.domain.ids import CallKey, SourceName

PER_S = 500
"""Timers of one source that a worker fires per second, in the long run."""
BURST = 500
"""Timers of one source that a worker fires at once after a quiet time."""
_INTERVAL_MS = 1000 / PER_S


@dataclass(slots=True)
class _Share:
    """Number of timers that a source may fire as of `at_ms`, and the last wake-up that this worker has set for it."""

    at_ms: int
    may_fire: float = BURST
    last_ms: float = 0

    def refill(self, now_ms: int) -> None:
        self.may_fire = min(BURST, self.may_fire + max(0, now_ms - self.at_ms) / _INTERVAL_MS)
        self.at_ms = now_ms

    def postpone(self, now_ms: int) -> int:
        self.last_ms = max(self.last_ms, now_ms) + _INTERVAL_MS
        return round(self.last_ms)


class TimerShares:
    """Fires calls at the rate of their source, and spreads the wake-ups of the others so that they come due at that rate."""

    def __init__(self) -> None:
        self._shares: dict[SourceName, _Share] = {}

    def last_wake_ups(self, now_ms: int) -> dict[SourceName, int]:
        """Return the last wake-up that was set for each source, if it is later than now (ms since 1970)."""
        return {source: round(share.last_ms) for source, share in self._shares.items() if share.last_ms > now_ms}

    def note(self, last_wake_ups: Mapping[SourceName, int], now_ms: int) -> None:
        """Take wake-ups that Redis has set."""
        for source, last_ms in last_wake_ups.items():
            share = self._shares.setdefault(source, _Share(now_ms))
            share.last_ms = max(share.last_ms, last_ms)

    def divide(self, due: Iterable[CallKey], now_ms: int) -> tuple[list[CallKey], dict[CallKey, int]]:
        """Return the calls to fire now, and the later wake-ups of the others (ms since 1970)."""
        for share in self._shares.values():
            share.refill(now_ms)
        firing: list[CallKey] = []
        postponed: dict[CallKey, int] = {}
        for key in due:
            share = self._shares.setdefault(key.source, _Share(now_ms))
            if share.may_fire >= 1:
                share.may_fire -= 1
                firing.append(key)
            else:
                postponed[key] = share.postpone(now_ms)
        return firing, postponed
