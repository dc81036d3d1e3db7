"""Rebuilds partitions of Redis that have lost state, from the journals. One worker at a time does it.

The order matters:

1. The partitions are fenced (`shared/state/positions.py`): no other process writes to them, and nothing is concluded.
2. A complete round of markers that was opened after the fence shows that no claim of before is still being published.
3. `calls.journal` is read to its end: what was published is known.
4. `callbacks.journal` is replayed, and each call is decided about.
5. The partitions are ready, unless they were lost again.

Every step may be repeated. If this worker dies or freezes, its lock expires, and another one begins with step 2. A worker that
wakes up late writes the same once more, or is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NoReturn

from shared import metrics
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.crash_points import crash_point
from shared.errors import CallfoldError, NotBegunError, StateLostError, StateMovedError, leaf_errors
from shared.log import get_logger
from shared.outage import Outage
from shared.rebuild.call_search import CallSearch
from shared.rebuild.patient_store import PatientStore
from shared.rebuild.replay import Replay
from shared.rebuild.scope import Scope
from shared.retention.recording_lock import Lock, locked
from shared.runtime.process import wait_at_most
from shared.state.rebuild_note import RebuildStep
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from worker.rebuilding.progress import Progress

log = get_logger(__name__)
_FAILURES = Outage(log, "rebuild_failed", is_error=True)

_LOCK: Final = "rebuild"
# Events wait until the lease shows that the worker that was rebuilding has died. A rebuild that begins again loses only time.
_LEASE_S: Final = 6.0
_LOOK_S: Final = 1.0
_RETRY_S: Final = 1.0
_ROUND_LOOK_S: Final = 0.2
# Clocks differ, and timers may be some minutes late. Calls that were left open for longer are found by the search.
_MARGIN: Final = timedelta(minutes=10)


OnFigures = Callable[[Mapping[str, int | float]], None]


def _ignore(_: Mapping[str, int | float]) -> None:
    """Report a rebuild to no other task."""


class Rebuilder:
    """Waits for partitions that are to be rebuilt, and rebuilds them."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        sources: LiveSources,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_begin: OnFigures = _ignore,
        on_finish: OnFigures = _ignore,
    ) -> None:
        """Take the store; `now` is the clock of RabbitMQ."""
        self._on_begin, self._on_finish = on_begin, on_finish
        self._store, self._settings, self._sources = store, settings, sources
        self._now = now

    async def run(self) -> NoReturn:
        """Rebuild until cancelled. Run it as a task."""
        due = self._store.positions.rebuild_due
        while True:
            await wait_at_most(due, _LOOK_S)
            due.clear()
            try:
                await self.rebuild_lost()
                _FAILURES.succeeded()
            except NotBegunError:
                continue  # another worker is at it
            except Exception as error:  # noqa: BLE001 - calls of other partitions are folded although this one cannot be rebuilt
                await self._failed(error)

    async def _failed(self, error: Exception) -> None:
        causes = leaf_errors(error) if isinstance(error, ExceptionGroup) else [error]
        cause = causes[0]
        metrics.REBUILDS.labels("failed").inc()
        _FAILURES.failed(str(cause) if isinstance(cause, CallfoldError) else f"{type(cause).__name__}: {cause}")
        if any(isinstance(each, StateLostError) for each in causes):
            try:
                await self._store.fence()
            except CallfoldError as again:
                _FAILURES.failed(str(again))
        await asyncio.sleep(_RETRY_S)
        self._store.positions.rebuild_due.set()

    async def rebuild_lost(self) -> None:
        """Rebuild the partitions that are to be rebuilt now, if there are any.

        Raises:
            NotBegunError: another worker rebuilds them.
            CallfoldError: it could not be finished. Begin again.
        """
        # While Redis is away nothing is to be rebuilt yet, so that is no rebuild that failed.
        if not await until_redis_answers(self._store.rebuilding):
            return
        async with locked(self._store, _LOCK, lease_s=_LEASE_S) as lock:
            # Another worker may have finished since. A loss often concerns all partitions, which are then rebuilt together.
            await self._store.fence()
            generations = await self._store.rebuilding()
            if generations:
                await self._rebuild(generations, lock)

    async def _rebuild(self, generations: Mapping[int, int], lock: Lock) -> None:
        progress = Progress(self._store.flags, generations)
        log.warning("rebuild_started", partitions=sorted(generations), generations=sorted(set(generations.values())))
        self._on_begin({"partitions": len(generations)})
        await progress.report()
        crash_point("rebuild.fenced")
        go_on = partial(self._go_on, lock, progress, generations)
        await self._wait_for_round(go_on)
        scope, sources = Scope(frozenset(generations)), self._sources.known
        store = PatientStore(self._store.for_rebuild(generations))
        with ExitStack() as resources:
            progress.step = RebuildStep.READING
            search = CallSearch(
                self._settings,
                store,
                sources,
                scope,
                resources,
                directory=self._settings.recording_dir,
                on_messages=progress.read,
                on_step=go_on,
            )
            since = self._now() - timedelta(seconds=self._settings.max_call_seconds) - _MARGIN
            candidates = await search.find(since, is_extended=True)
            crash_point("rebuild.published_read")
            metrics.JOURNAL_TOO_SHORT.set(candidates.is_cut)
            if candidates.is_cut:
                log.warning("journal_too_short", detail="Calls may have begun before the first message of callbacks.journal.")
            progress.step = RebuildStep.REPLAYING
            replay = Replay(
                self._settings,
                store,
                sources,
                scope,
                candidates,
                on_events=progress.replay,
                on_step=go_on,
            )
            replayed = await replay.run()
        await lock.confirm()
        for number, generation in generations.items():
            if not await until_redis_answers(lambda: self._store.finish_rebuild(number, generation)):  # noqa: B023 - awaited here
                raise StateMovedError(f"Partition {number} of Redis was lost again while it was rebuilt.")
        crash_point("rebuild.finished")
        metrics.REBUILDS.labels("finished").inc()
        metrics.REBUILD_SECONDS.set(progress.seconds)
        decisions = {decision.name.lower(): count for decision, count in replayed.done.items() if count}
        self._on_finish({**progress.figures(), "calls": len(replayed.calls)})
        log.warning("rebuild_finished", **progress.figures(), calls=len(replayed.calls), **decisions)

    async def _go_on(self, lock: Lock, progress: Progress, generations: Mapping[int, int]) -> None:
        """Report the progress, and check that the rest is not in vain.

        Raises:
            BusyError: another worker may have begun.
            StateMovedError: a partition was lost again. Without this check, that would be noticed only when it is written.
        """
        if progress.is_due():
            for number, generation in generations.items():
                if self._store.positions.generation(number) > generation:
                    raise StateMovedError(f"Partition {number} of Redis was lost again while it was rebuilt.")
            await lock.confirm()
            await progress.report()

    async def _wait_for_round(self, go_on: Callable[[], Awaitable[None]]) -> None:
        """Wait until every worker has settled what it had received before the fence."""
        opened_from_ms = round((await until_redis_answers(self._store.now)).timestamp() * 1000)
        watermarks = self._store.watermarks
        while await until_redis_answers(lambda: watermarks.folded_until(opened_from_ms=opened_from_ms)) is None:
            await go_on()
            await asyncio.sleep(_ROUND_LOOK_S)
