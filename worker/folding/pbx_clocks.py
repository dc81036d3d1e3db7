"""Estimates how far the clock of each PBX is ahead of the times of receipt, from events that have their own timestamp.

A callback is late by its way, never early. So of the recent events, the one whose timestamp is furthest ahead shows the clock
best. A call whose own events do not show the clock gets the estimate as a fact, if it is of about the same time. Older estimates
say nothing, since the clock may have been corrected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared import metrics
from shared.domain.facts import Fact
from shared.domain.ids import CallKey, SourceName
from shared.domain.pbx_clock import EQUAL_S, clock_problem, estimate_fact, event_ahead, needs_estimate
from shared.log import get_logger
from shared.outage import Outage
from shared.state.pbx_clocks import PbxClockNote, PbxClockNotes
from shared.state.replies import until_redis_answers
from worker.folding.recent_maximum import RecentMaximum

log = get_logger(__name__)
_DIFFERENCES = Outage(log, "pbx_clock_differs", "pbx_clock_agrees")

_WINDOW_S: Final = 300.0
_RECORD_EACH_S: Final = 60.0
# An event takes the estimate of this worker if it has seen the clock this recently, else the nearest one that is known.
_OWN_S: Final = 2 * _WINDOW_S
_USABLE_S: Final = 3600.0


@dataclass(slots=True)
class _Estimate:
    """The seconds by which one clock is ahead at least, and what was stored of it."""

    ahead: RecentMaximum
    recorded_at_s: float = 0
    was_wrong: bool = False


class PbxClocks:
    """The clocks of the sources whose callbacks this worker folds. Its size is bounded by the number of sources."""

    def __init__(self) -> None:
        self._estimates: dict[SourceName, _Estimate] = {}

    def observe(self, facts: Mapping[CallKey, Iterable[Sequence[Fact]]]) -> dict[SourceName, PbxClockNote]:
        """Learn from the facts of events; returns the estimates to be stored for the console and other workers."""
        latest: dict[SourceName, str] = {}
        for key, events in facts.items():
            for event in events:
                sample = event_ahead(event)
                if sample is not None:
                    received_at, ahead_s = sample
                    if self._add(key.source, ahead_s, _seconds(received_at)):
                        latest[key.source] = max(received_at, latest.get(key.source, ""))
        return {
            source: PbxClockNote(self._estimates[source].ahead.value, received_at)
            for source, received_at in latest.items()
            if self._judge(source, _seconds(received_at))
        }

    def current(self, now_s: float) -> dict[SourceName, float]:
        """Return by how many seconds clocks are ahead that were observed in the last window before `now_s`."""
        return {
            source: estimate.ahead.value
            for source, estimate in self._estimates.items()
            if abs(now_s - estimate.ahead.last_s) <= _WINDOW_S
        }

    def _add(self, source: SourceName, ahead_s: float, received_s: float) -> bool:
        estimate = self._estimates.get(source)
        if estimate is None:
            estimate = self._estimates[source] = _Estimate(RecentMaximum(_WINDOW_S, received_s, ahead_s))
        return estimate.ahead.add(ahead_s, received_s)

    def unknown(self, facts: Mapping[CallKey, Iterable[Sequence[Fact]]]) -> set[SourceName]:
        """Return the sources whose clock an event needs and this worker has not observed at about that time."""
        return {
            key.source
            for key, events in facts.items()
            if any(needs_estimate(event) and self._own(key.source, event) is None for event in events)
        }

    def add_estimates(self, facts: Mapping[CallKey, Iterable[list[Fact]]], stored: Mapping[SourceName, PbxClockNote]) -> None:
        """Add the estimate to the facts of each event that needs it. `stored`: those of sources that are `unknown`."""
        for key, events in facts.items():
            for event in filter(needs_estimate, events):
                ahead_s = self._own(key.source, event)
                if ahead_s is None:
                    ahead_s = self._nearest(event, key.source, stored.get(key.source))
                if ahead_s is not None:
                    event.insert(1, estimate_fact(event, ahead_s))

    def _own(self, source: SourceName, event: Sequence[Fact]) -> float | None:
        estimate = self._estimates.get(source)
        if estimate is None or abs(_received_s(event) - estimate.ahead.last_s) > _OWN_S:
            return None
        return estimate.ahead.value

    def _nearest(self, event: Sequence[Fact], source: SourceName, stored: PbxClockNote | None) -> float | None:
        """Return the estimate whose time is nearest to the receipt of an event; None if it is more than an hour away."""
        known = [(stored.ahead_s, _seconds(stored.received_at))] if stored and stored.received_at else []
        if source in self._estimates:
            own = self._estimates[source].ahead
            known.append((own.value, own.last_s))
        near = [(abs(_received_s(event) - at_s), ahead_s) for ahead_s, at_s in known]
        return min((each for each in near if each[0] <= _USABLE_S), default=(0.0, None))[1]

    def _judge(self, source: SourceName, at_s: float) -> bool:
        """Report a clock; returns whether its estimate is to be stored."""
        estimate = self._estimates[source]
        known_s = estimate.ahead.value
        metrics.PBX_CLOCK_OFFSET.set(known_s, source)
        problem = clock_problem(source, known_s)
        # A callback can be held up on its way. A clock that is behind is so in every window.
        if problem and (known_s > 0 or estimate.ahead.is_below(-EQUAL_S)):
            _DIFFERENCES.failed(problem, task=source, source=source, offset_s=round(known_s, 1))
        elif not problem:
            _DIFFERENCES.succeeded(task=source)
        is_due = abs(at_s - estimate.recorded_at_s) >= _RECORD_EACH_S or bool(problem) != estimate.was_wrong
        if is_due:
            estimate.recorded_at_s, estimate.was_wrong = at_s, bool(problem)
        return is_due


async def apply_pbx_clocks(clocks: PbxClocks, notes: PbxClockNotes, facts: Mapping[CallKey, list[list[Fact]]]) -> None:
    """Learn the clocks of the PBXs from events, store them, and give the estimates to the events that need them."""
    observed = clocks.observe(facts)
    if observed:
        await until_redis_answers(lambda: notes.record(observed))
    unknown = clocks.unknown(facts)
    stored = await until_redis_answers(lambda: notes.of(unknown)) if unknown else {}
    clocks.add_estimates(facts, stored)


def _received_s(event: Sequence[Fact]) -> float:
    return _seconds(event[0][1])


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
