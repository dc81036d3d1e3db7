"""Stores what workers observe of the PBXs, judges it, and shows it as metrics.

Every worker judges every source, by what all workers have stored. A worker that is killed loses the observations of some seconds.
While Redis is away, nothing is judged, and observations are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from shared import metrics
from shared.config.live_sources import LiveSources
from shared.domain.barrier import FoldedUntil
from shared.domain.condition import Kind, Observation
from shared.domain.facts import is_receipt_of_leg
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.pbx_habit import HOUR_MINUTES, Habit, Silence, judge_silence, learn_habit
from shared.domain.pbx_report import PbxReport, describe_silence
from shared.domain.request_id_gaps import is_gapless
from shared.domain.times import at_microseconds
from shared.errors import StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.state.pbx_watch import PbxObservations, Settled
from shared.state.store import Store
from worker.watching.observations import Observations

log = get_logger(__name__)
_SILENCES = Outage(log, "pbx_silent", "pbx_heard_again")
_STORED = Outage(log, "pbx_watch_paused", "pbx_watch_resumed")

_FLUSH_EACH_S: Final = 5.0
_JUDGE_EACH: Final = 3  # flushes
_JUDGED_FOR_S: Final = 120.0  # longer than timers are held after a reconnect
_NOTHING: Final = PbxObservations()
_MEASURED: Final = (
    metrics.PBX_LOST_CALLBACKS,
    metrics.PBX_LOST_CALLBACKS_LOW,
    metrics.PBX_CLOCK_DRIFT,
    metrics.PBX_SILENT_SECONDS,
    metrics.PBX_CLOCK_OFFSET,
)


class PbxWatch:
    """The watch of one worker over all sources."""

    def __init__(
        self,
        store: Store,
        sources: LiveSources,
        observations: Observations,
        *,
        folded: Callable[[], FoldedUntil | None],
        clocks: Callable[[float], Mapping[SourceName, float]],
        flush_each_s: float = _FLUSH_EACH_S,
    ) -> None:
        """Prepare; `folded` returns until when everything is folded, `clocks` how far clocks of PBXs are ahead at a time."""
        self._store = store
        self._sources = sources
        self._observations = observations
        self._folded = folded
        self._clocks = clocks
        self._flush_each_s = flush_each_s
        self._habits: dict[SourceName, tuple[int, Habit]] = {}
        self._last_ms: dict[SourceName, int] = {}
        self._shown: set[SourceName] = set()
        self._judged_at: dict[SourceName, float] = {}
        self._observed: dict[SourceName, Observation] = {}
        self._due_dials: dict[SourceName, list[int]] = {}

    async def run(self) -> NoReturn:
        """Store and judge until cancelled. Run it as a task."""
        flushes = _JUDGE_EACH
        while True:
            await asyncio.sleep(self._flush_each_s)
            flushes += 1
            try:
                await self.flush()
                if flushes >= _JUDGE_EACH and await self.judge():
                    flushes = 0
            except StoreUnavailableError as error:
                _STORED.failed(str(error))
            else:
                _STORED.succeeded()

    async def flush(self) -> None:
        """Store what was observed. What cannot be stored is kept.

        Raises:
            StoreUnavailableError: Redis is not available.
        """
        self._observations.clocks(self._clocks(self._store.clock.now().timestamp()))
        seen = self._observations.take()
        try:
            for source in list(seen):
                if source in self._sources.current:
                    await self._store.pbx_watch.add(source, seen[source], None)
                del seen[source]
        finally:
            for source, kept in seen.items():
                self._observations.put_back(source, kept)

    async def judge(self) -> bool:
        """Judge every source and set its metrics. False if silences cannot be judged now, because callbacks may wait.

        Raises:
            StoreUnavailableError: Redis is not available.
        """
        sources = self._sources.current
        now_ms = round((await self._store.now()).timestamp() * 1000)
        folded = None if self._store.positions.not_ready() else self._folded()
        for report in await self._store.pbx_watch.reports(sources, now_ms):
            silence = None if folded is None else await self._silence(report, folded.of(report.source))
            if folded is not None:
                verdict = None if silence is None else (silence, now_ms)
                settled = await self._store.pbx_watch.add(report.source, _NOTHING, folded.of(report.source), verdict)
                self._show_gaps(report, settled)
                self._due_dials.setdefault(report.source, []).extend(settled.due_dials)
                await self._look_up_dials(report.source)
            self._show(report, silence)
        for gone in self._shown - sources.keys():
            self._forget(gone)
        return folded is not None

    async def _silence(self, report: PbxReport, until_ms: int) -> Silence | None:
        """Judge the silence of a source; None if no callback is known. Redis may lose a callback that this worker knows."""
        last_ms = max(report.last_ms or 0, self._last_ms.get(report.source, 0))
        if not last_ms:
            return None
        self._last_ms[report.source] = last_ms
        habit = await self._habit(report.source, min(last_ms, until_ms) // 60_000)
        return judge_silence(habit, last_ms / 1000, until_ms / 1000)

    async def _habit(self, source: SourceName, minute: int) -> Habit:
        """Return the habit as it was at the last callback: the silence is no part of it. It is read once an hour."""
        hour = minute // HOUR_MINUTES
        known = self._habits.get(source)
        if known is None or known[0] != hour or not known[1].is_known:
            days = await self._store.pbx_watch.active_minutes(source, hour // 24)
            known = self._habits[source] = (hour, learn_habit(days, minute))
        return known[1]

    async def _look_up_dials(self, source: SourceName) -> None:
        """Count the dials of which something should have been heard by now, and was not. A dial without facts is unknown."""
        due = self._due_dials[source]
        calls = [CallKey(source, CallRef(str(number))) for number in due]
        facts = await self._store.read_facts(calls) if calls else {}
        unheard = sum(1 for call in calls if facts[call] and not any(map(is_receipt_of_leg, facts[call])))
        if unheard:
            self._observations.unheard(source, unheard)
            metrics.PBX_UNHEARD_DIALS.labels(source).inc(unheard)
            log.warning("dials_unheard", source=source, dials=unheard)
        due.clear()

    def _show_gaps(self, report: PbxReport, settled: Settled) -> None:
        """Count skipped ids of a PBX that usually skips none."""
        if settled.skipped and is_gapless(report.ids_used, report.ids_skipped):
            metrics.PBX_REQUEST_ID_GAPS.labels(report.source).inc(settled.skipped)

    def _show(self, report: PbxReport, silence: Silence | None) -> None:
        source, loss = report.source, report.loss
        self._shown.add(source)
        metrics.PBX_LOST_CALLBACKS.set(None if loss is None else loss.share, source)
        metrics.PBX_LOST_CALLBACKS_LOW.set(None if loss is None else loss.low, source)
        metrics.PBX_CLOCK_DRIFT.set(report.drift, source)
        metrics.PBX_ADAPTER_CHANGED.labels(source).set(report.has_other_link)
        metrics.PBX_SILENT_SECONDS.set(None if silence is None else silence.seconds, source)
        if silence is None:
            if time.monotonic() - self._judged_at.get(source, 0) > _JUDGED_FOR_S:
                metrics.PBX_SILENT.labels(source).set(0)
            return
        self._judged_at[source] = time.monotonic()
        metrics.PBX_SILENT.labels(source).set(silence.is_unusual)
        self._observed[source] = _observation(source, silence, self._last_ms[source])
        if silence.is_unusual:
            _SILENCES.failed(describe_silence(source, silence), task=source, source=source, seconds=round(silence.seconds))
        else:
            _SILENCES.succeeded(task=source)

    def _forget(self, source: SourceName) -> None:
        """Remove what is shown of a source that was removed."""
        for measured in _MEASURED:
            measured.set(None, source)
        metrics.PBX_ADAPTER_CHANGED.labels(source).set(0)
        metrics.PBX_SILENT.labels(source).set(0)
        _SILENCES.gave_up(task=source)
        self._shown.discard(source)
        self._observed.pop(source, None)

    def observations(self) -> list[Observation]:
        """Return the last judgement of each source, for operator events."""
        return list(self._observed.values())


def _observation(source: SourceName, silence: Silence, last_ms: int) -> Observation:
    at = at_microseconds(last_ms * 1000)
    if silence.is_unusual:
        detail, figures = describe_silence(source, silence), {"seconds": round(silence.seconds)}
        return Observation(Kind.SOURCE_SILENT, source, is_bad=True, at=at, detail=detail, figures=figures)
    return Observation(Kind.SOURCE_SILENT, source, is_bad=False, at=at, detail=f"{source} sends callbacks again.")
