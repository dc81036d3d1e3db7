"""Keeps publishes away from an exchange while the queue behind it is full.

A full queue rejects publishes. The exchange is a fanout, so its journal takes what the queue rejects, and would take it again
with each retry. After a rejection nothing is published to the exchange, until the queue has confirmed a probe: an empty message
to the queue alone. The pauses between probes grow.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from shared import metrics
from shared.log import get_logger

log = get_logger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 90.0
# A queue that rejects again so soon after a probe keeps the pauses long.
_STABLE_S = 60.0


class QueueGate:
    """The state of one queue as a publisher knows it: full at the last attempt, nearly full by its depth, or neither."""

    def __init__(self, exchange: str, queue: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.exchange = exchange
        self.queue = queue
        self._clock = clock
        self._is_rejecting = False
        self._is_nearly_full = False
        self._pause_s = _FIRST_PAUSE_S
        self._probe_at = 0.0
        self._accepted_at = clock() - _STABLE_S

    @property
    def is_closed(self) -> bool:
        return self._is_rejecting or self._is_nearly_full

    @property
    def problem(self) -> str:
        """Why nothing may be published to the exchange, or ''."""
        if not self.is_closed:
            return ""
        state = "full" if self._is_rejecting else "nearly full"
        return f"the queue {self.queue} is {state}. Check that workers fold its messages"

    def reject(self) -> None:
        """Record that the queue rejected a message or a probe."""
        now = self._clock()
        if not self._is_rejecting and now - self._accepted_at >= _STABLE_S:
            self._pause_s = _FIRST_PAUSE_S
        was_closed, self._is_rejecting = self.is_closed, True
        self._probe_at = now + self._pause_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads the processes, no secret
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._announce(was_closed=was_closed)

    def take_probe(self) -> bool:
        """Return whether the caller may send a probe now; no other may until its pause is over."""
        if self._is_nearly_full or self._clock() < self._probe_at:
            return False
        self._probe_at = self._clock() + self._pause_s
        return True

    def accept(self) -> None:
        """Record that the queue confirmed a probe."""
        was_closed, self._is_rejecting = self.is_closed, False
        self._accepted_at = self._clock()
        self._announce(was_closed=was_closed)

    def set_nearly_full(self, *, is_nearly_full: bool) -> None:
        """Record what the depth of the queue says."""
        was_closed, self._is_nearly_full = self.is_closed, is_nearly_full
        self._announce(was_closed=was_closed)

    def _announce(self, *, was_closed: bool) -> None:
        metrics.QUEUE_FULL.labels(self.queue).set(self.is_closed)
        if self.is_closed and not was_closed:
            log.error("queue_full", queue=self.queue, detail=self.problem)
        elif was_closed and not self.is_closed:
            log.info("queue_accepts_again", queue=self.queue)
