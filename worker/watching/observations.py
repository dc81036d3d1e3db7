"""What a worker observes of the PBXs while it folds: nothing here waits or calls a server.

What is not flushed yet is lost if the worker is killed. That is a few seconds of counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from shared.config.sources import Source, Sources
from shared.domain.ids import CallKey, SourceName
from shared.domain.link_changes import compare_with_link
from shared.domain.lost_callbacks import Losses
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent, Undecodable
from shared.domain.request_id_gaps import LARGEST_ID
from shared.state.pbx_watch import PbxObservations

_SAMPLE_EACH_S: Final = 1.0
_ID_DIGITS: Final = len(str(LARGEST_ID)) - 1
# While Redis is away, what is observed is kept up to these numbers.
_MOST_IDS: Final = 50_000
_MOST_DIALS: Final = 10_000
_MOST_MINUTES: Final = 3 * 24 * 60
_MINUTE: Final = len("2026-11-23T07:44")


class Observations:
    """Observations of all sources since they were last taken."""

    def __init__(self) -> None:
        self._seen: dict[SourceName, PbxObservations] = {}
        self._sample_at: dict[SourceName, float] = {}

    def folded(self, events: Sequence[RawEvent | Undecodable], keys: Iterable[CallKey], sources: Sources) -> None:
        """Observe the events of a batch; `keys` are its calls. A batch may be folded again: only sets and maxima grow."""
        callbacks, dials = _last_of_minutes(events)
        for callback in callbacks:
            if callback.source in sources:
                self._add_minute(callback)
                self._compare(sources[callback.source], callback.query)
        for dial in dials:
            if dial.source in sources:
                self._add_dial(dial)
        by_source: dict[SourceName, set[int]] = {}
        for source, call in keys:
            if call.isdigit() and len(call) <= _ID_DIGITS:
                ids = by_source.get(source)
                if ids is None:
                    ids = by_source[source] = set()
                ids.add(int(call))
        for source, ids in by_source.items():
            if source in sources and len(self._of(source).ids) < _MOST_IDS:
                self._of(source).ids |= ids

    def ended(self, losses: Mapping[CallKey, Losses]) -> None:
        """Observe calls whose first revision this worker has just marked as published."""
        for key, of_call in losses.items():
            seen = self._of(key.source)
            seen.calls += 1
            seen.losses = Losses(seen.losses.expected + of_call.expected, seen.losses.lost + of_call.lost)

    def unheard(self, source: SourceName, count: int) -> None:
        """Observe dials of which nothing was heard."""
        self._of(source).unheard += count

    def clocks(self, ahead_s: Mapping[SourceName, float]) -> None:
        """Observe how far the clocks of PBXs are ahead."""
        for source, value in ahead_s.items():
            self._of(source).ahead_s = value

    def take(self) -> dict[SourceName, PbxObservations]:
        """Return what was observed, and begin again."""
        taken, self._seen = self._seen, {}
        return taken

    def put_back(self, source: SourceName, seen: PbxObservations) -> None:
        """Add observations that could not be stored to those made since."""
        now = self._of(source)
        for minute, at in seen.minutes.items():
            now.minutes[minute] = max(at, now.minutes.get(minute, ""))
        now.ids |= seen.ids
        now.dials = seen.dials | now.dials
        now.calls += seen.calls
        now.losses = Losses(now.losses.expected + seen.losses.expected, now.losses.lost + seen.losses.lost)
        now.unheard += seen.unheard
        now.unknown += seen.unknown
        now.missing += seen.missing
        now.arrived |= seen.arrived
        now.ahead_s = seen.ahead_s if now.ahead_s is None else now.ahead_s

    def _of(self, source: SourceName) -> PbxObservations:
        seen = self._seen.get(source)
        if seen is None:
            seen = self._seen[source] = PbxObservations()
        return seen

    def _add_minute(self, event: CallbackEvent) -> None:
        known, minute = self._of(event.source).minutes, event.received_at[:_MINUTE]
        if len(known) < _MOST_MINUTES:
            known[minute] = max(event.received_at, known.get(minute, ""))

    def _add_dial(self, event: DialEvent) -> None:
        seen = self._of(event.source)
        if len(seen.dials) < _MOST_DIALS and event.request_id < LARGEST_ID:
            seen.dials.setdefault(event.request_id, event.received_at)

    def _compare(self, source: Source, query: str) -> None:
        """Compare a callback with the adapter link of its source, about one a second."""
        now = time.monotonic()
        if now < self._sample_at.get(source.name, 0):
            return
        self._sample_at[source.name] = now + _SAMPLE_EACH_S
        differences, seen = compare_with_link(source.adapter, query), self._of(source.name)
        seen.unknown.update(differences.unknown)
        seen.missing.update(differences.missing)
        for name in differences.arrived:
            seen.arrived.add(name)
            del seen.missing[name]


def _last_of_minutes(events: Iterable[RawEvent | Undecodable]) -> tuple[Iterable[CallbackEvent], list[DialEvent]]:
    """Return one of the last callbacks of each source in each minute, and all dials.

    Most callbacks follow one of the same source and minute. These cost little.
    """
    last: dict[tuple[SourceName, str], CallbackEvent] = {}
    dials: list[DialEvent] = []
    latest: CallbackEvent | None = None
    minute = ""
    for event in events:
        if isinstance(event, CallbackEvent):
            if latest is None or event.source != latest.source or not event.received_at.startswith(minute):
                if latest is not None:
                    last[latest.source, minute] = latest
                minute = event.received_at[:_MINUTE]
            latest = event
        elif isinstance(event, DialEvent):
            dials.append(event)
    if latest is not None:
        last[latest.source, minute] = latest
    return last.values(), dials
