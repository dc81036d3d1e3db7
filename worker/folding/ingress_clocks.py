"""Compares the clocks of the machines that publish callbacks with that of Redis, by the time at which each message was sent.

A message that was sent in the future comes from a clock that is ahead. One that was sent long ago comes from a clock that is
behind, or it waited in the queue. How long messages wait is known from the markers of rounds, whose numbers are times of Redis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from callfold_client.envelope import is_time
from shared import metrics
from shared.amqp.delivery import Delivery, marker_round
from shared.amqp.topology import SENT_AT, SENT_BY
from shared.domain.sender_clock import EQUAL_CLOCKS
from shared.log import get_logger
from shared.outage import Outage
from shared.state.redis_clock import RedisClock
from worker.folding.recent_maximum import RecentMaximum

log = get_logger(__name__)
_DIFFERENCES = Outage(log, "ingress_clock_differs", "ingress_clock_agrees")

_WINDOW_S: Final = 20.0
_FORGOTTEN_S: Final = 600.0
_MAX_MACHINES: Final = 100


def sent_at(headers: Mapping[str, object]) -> str:
    """Return when a message was sent by the clock of its sender, or ''."""
    value = headers.get(SENT_AT)
    return value if isinstance(value, str) and is_time(value) else ""


class IngressClocks:
    """The clocks of all machines whose messages this worker folds."""

    def __init__(self, clock: RedisClock) -> None:
        self._clock = clock
        self._wait_s = 0.0
        self._machines: dict[str, RecentMaximum] = {}  # by how many seconds each clock is ahead of Redis

    def observe(self, deliveries: Iterable[Delivery]) -> None:
        """Learn from deliveries that have just arrived, markers included."""
        now_s = self._clock.now().timestamp()
        for delivery in deliveries:
            if delivery.is_marker:
                if opened_ms := marker_round(delivery.headers):  # a marker of round 0 belongs to no round
                    self._wait_s = max(0.0, now_s - opened_ms / 1000)
            elif at := sent_at(delivery.headers):
                self._observe(str(delivery.headers.get(SENT_BY)), datetime.fromisoformat(at).timestamp() - now_s, now_s)

    def _observe(self, name: str, ahead_s: float, now_s: float) -> None:
        if ahead_s < 0:  # part of it, or all, is the time in the queue
            ahead_s = min(0.0, ahead_s + self._wait_s)
        machine = self._machines.get(name)
        if machine is None:
            self._forget_old(now_s)
            if len(self._machines) >= _MAX_MACHINES:
                return
            machine = self._machines[name] = RecentMaximum(_WINDOW_S, now_s, ahead_s)
        machine.add(ahead_s, now_s)
        self._judge(name, machine)

    def _judge(self, name: str, machine: RecentMaximum) -> None:
        limit_s = EQUAL_CLOCKS.total_seconds()
        known_s = machine.value
        metrics.INGRESS_CLOCK_OFFSET.labels(name).set(known_s)
        # A single message can be late because a worker died. A clock that is behind is so in every window.
        if known_s > limit_s or machine.is_below(-limit_s):
            sentence = f"The clock of {name} is {'ahead of' if known_s > 0 else 'behind'} that of Redis"
            _DIFFERENCES.failed(sentence, task=name, machine=name, offset_s=round(known_s, 1))
        elif abs(known_s) <= limit_s:
            _DIFFERENCES.succeeded(task=name)

    def _forget_old(self, now_s: float) -> None:
        for name in [name for name, machine in self._machines.items() if now_s - machine.last_s > _FORGOTTEN_S]:
            del self._machines[name]
            _DIFFERENCES.gave_up(task=name)
            metrics.INGRESS_CLOCK_OFFSET.remove(name)
