"""The clock of Redis as this process knows it. It is the reference for all processes, because timers run by it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

# A longer round trip says too little about the difference of two clocks.
_MAX_ROUND_TRIP_S: Final = 0.5


class RedisClock:
    """Redis' time, from the last measurement and the time since. A local clock that is set does not disturb it.

    Attributes:
        offset_s: how far the local clock is ahead of Redis by the last measurement; None before the first one.
    """

    def __init__(self) -> None:
        self.offset_s: float | None = None
        self._redis_minus_monotonic: float | None = None

    def measured(self, redis_s: float, *, began: float, ended: float) -> None:
        """Record an answer of Redis; `began` and `ended` are the monotonic times of the question and of the answer."""
        if ended - began > _MAX_ROUND_TRIP_S:
            return
        middle = (began + ended) / 2
        self._redis_minus_monotonic = redis_s - middle
        uncertainty_s = (ended - began) / 2
        local_s = time.time() - (time.monotonic() - middle)
        difference_s = local_s - redis_s
        self.offset_s = 0.0 if abs(difference_s) <= uncertainty_s else difference_s

    def now(self) -> datetime:
        """Return the time of Redis; the local time before the first measurement."""
        known = self._redis_minus_monotonic
        return datetime.fromtimestamp(time.time() if known is None else time.monotonic() + known, UTC)
