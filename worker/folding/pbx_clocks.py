"""Estimates how far the clock of each PBX is ahead of the times of receipt, from events that have their own timestamp.

A callback is late by its way, never early. So of the recent events, the one whose timestamp is furthest ahead shows the clock
best. A call whose own events do not show the clock gets the estimate as a fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared import metrics
from shared.domain.facts import Fact
from shared.domain.ids import CallKey, SourceName
from shared.domain.pbx_clock import clock_problem, estimate_fact, event_ahead, needs_estimate
from shared.log import get_logger
from shared.outage import Outage
from shared.state.pbx_clocks import PbxClockNotes
from shared.state.replies import until_redis_answers

log = get_logger(__name__)
_DIFFERENCES = Outage(log, "pbx_clock_differs", "pbx_clock_agrees")

_WINDOW_S: Final = 300.0
_RECORD_EACH_S: Final = 60.0


@dataclass(slots=True)
class _Estimate:
    """The seconds by which one clock is ahead at least, in this window and in the one before. Times are seconds since 1970."""

    began_s: float
    ahead_s: float
    before_s: float | None = None
    recorded_at_s: float = 0
    was_wrong: bool = False

    def add(self, ahead_s: float, received_s: float) -> None:
        if abs(received_s - self.began_s) >= _WINDOW_S:
            self.began_s, self.before_s, self.ahead_s = received_s, self.ahead_s, ahead_s
        self.ahead_s = max(self.ahead_s, ahead_s)

    @property
    def known_s(self) -> float:
        return self.ahead_s if self.before_s is None else max(self.ahead_s, self.before_s)


class PbxClocks:
    """The clocks of the sources whose callbacks this worker folds. Its size is bounded by the number of sources."""

    def __init__(self) -> None:
        self._estimates: dict[SourceName, _Estimate] = {}

    def observe(self, facts: Mapping[CallKey, Iterable[Sequence[Fact]]]) -> dict[SourceName, float]:
        """Learn from the facts of events; returns the estimates to be stored for the console (seconds ahead)."""
        latest: dict[SourceName, float] = {}
        for key, events in facts.items():
            for event in events:
                sample = event_ahead(event)
                if sample is not None:
                    received_at, ahead_s = sample
                    received_s = datetime.fromisoformat(received_at).timestamp()
                    self._estimates.setdefault(key.source, _Estimate(received_s, ahead_s)).add(ahead_s, received_s)
                    latest[key.source] = received_s
        return {source: self._estimates[source].known_s for source, at_s in latest.items() if self._judge(source, at_s)}

    def unknown(self, facts: Mapping[CallKey, Iterable[Sequence[Fact]]]) -> set[SourceName]:
        """Return the sources whose clock an event needs and this worker has not observed."""
        sources = {key.source for key, events in facts.items() if any(map(needs_estimate, events))}
        return sources - self._estimates.keys()

    def add_estimates(self, facts: Mapping[CallKey, Iterable[list[Fact]]], stored: Mapping[SourceName, float]) -> None:
        """Add the estimate to the facts of each event that needs it. `stored`: those of sources that are unknown here."""
        known = {**stored, **{source: estimate.known_s for source, estimate in self._estimates.items()}}
        for key, events in facts.items():
            if key.source in known:
                for event in filter(needs_estimate, events):
                    event.insert(1, estimate_fact(event, known[key.source]))

    def _judge(self, source: SourceName, at_s: float) -> bool:
        """Report a clock; returns whether its estimate is to be stored."""
        estimate = self._estimates[source]
        known_s = estimate.known_s
        metrics.PBX_CLOCK_OFFSET.labels(source).set(known_s)
        problem = clock_problem(source, known_s)
        # A callback can be held up on its way. A clock that is behind is so in every window.
        if problem and (known_s > 0 or estimate.before_s is not None):
            _DIFFERENCES.failed(problem, task=source, source=source, offset_s=round(known_s, 1))
        elif not problem:
            _DIFFERENCES.succeeded(task=source)
        is_due = abs(at_s - estimate.recorded_at_s) >= _RECORD_EACH_S or bool(problem) != estimate.was_wrong
        if is_due:
            estimate.recorded_at_s, estimate.was_wrong = at_s, bool(problem)
        return is_due


async def apply_pbx_clocks(clocks: PbxClocks, notes: PbxClockNotes, facts: Mapping[CallKey, list[list[Fact]]]) -> None:
    """Learn the clocks of the PBXs from events, store them, and give the estimates to the events that need them."""
    for source, ahead_s in clocks.observe(facts).items():
        await until_redis_answers(lambda: notes.record(source, ahead_s))  # noqa: B023 - awaited before the loop goes on
    unknown = clocks.unknown(facts)
    stored = await until_redis_answers(lambda: notes.of(unknown)) if unknown else {}
    clocks.add_estimates(facts, stored)
