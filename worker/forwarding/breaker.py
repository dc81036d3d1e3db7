"""The circuit breaker of one endpoint: after several failures in a row, only a probe now and then is sent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

FAILURES: Final = 20
"""Failures in a row after which the breaker opens. An endpoint that refuses some events takes others in between."""
UNANSWERED: Final = 5
"""Attempts in a row without an answer after which it opens: nothing listens, or nothing works."""
PROBE_S: Final = (5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Pauses before the probes; the last one repeats."""
_JITTER: Final = 0.2


class Breaker:
    """Counts failures in a row. A success closes it. An endpoint that asks to wait (Retry-After) gets nothing until then."""

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        unanswered: int = UNANSWERED,
        probe_s: Sequence[float] = PROBE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._unanswered_limit = failures, unanswered
        self._probe_s, self._clock = probe_s, clock
        self._failures = self._unanswered = 0
        self._probes = 0
        self._until = self._asked_until = 0.0
        self.is_open = False

    @property
    def wait_s(self) -> float:
        """The time until the next request is allowed; 0 if one is allowed now."""
        return max(0.0, max(self._until, self._asked_until) - self._clock())

    def succeeded(self) -> bool:
        """Record a delivery. Return whether it closed the breaker.

        It may be the answer to a request that was in flight when the endpoint asked to wait, so that still holds.
        """
        was_open, self.is_open = self.is_open, False
        self._failures = self._unanswered = self._probes = 0
        self._until = 0.0
        return was_open

    def failed(self, *, is_answered: bool = True, retry_after_s: float | None = None) -> bool:
        """Record a failure, and how long the endpoint asked to wait. Return whether it opened the breaker."""
        self._failures += 1
        self._unanswered = 0 if is_answered else self._unanswered + 1
        was_open = self.is_open
        if was_open or self._failures >= self._limit or self._unanswered >= self._unanswered_limit:
            self.is_open = True
            pause_s = self._probe_s[min(self._probes, len(self._probe_s) - 1)]
            self._probes += 1
            pause_s *= random.uniform(1 - _JITTER, 1)  # noqa: S311 - spreads load, no secret
            self._until = max(self._until, self._clock() + pause_s)
        if retry_after_s:
            self._asked_until = max(self._asked_until, self._clock() + retry_after_s)
        return self.is_open and not was_open
