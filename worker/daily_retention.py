"""Runs retention once a day, in one of the workers.

The worker that runs it holds a lock, which expires if the worker dies. A day is noted as done only after its run, so another
worker repeats what a killed worker has begun.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from shared.amqp.publisher import Publisher
from shared.archive.storage import Archive
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.crash_points import crash_point
from shared.errors import BusyError, UnavailableError, leaf_errors
from shared.log import get_logger
from shared.retention.recording_lock import locked
from shared.retention.retention import Retention, audited
from shared.runtime.audit import Audit
from shared.state.replies import until_redis_answers
from shared.state.store import Store

log = get_logger(__name__)

_WHO = "worker:retention"
_CHECK_S = 60
_CHECKS_PER_SWEEP = 10
# Longer than a day, even if clocks differ.
_NOTE_KEPT_S = 2 * 86400.0


class DailyRetention:
    """Runs retention once for each UTC day, in the first worker that gets the lock. The next check repeats a failed run."""

    def __init__(self, archive: Archive, publisher: Publisher, store: Store, sources: LiveSources, settings: Settings) -> None:
        self._archive = archive
        self._publisher = publisher
        self._store = store
        self._sources = sources
        self._days = settings.retention_days
        self._with_records = settings.retention_with_records

    async def run(self) -> NoReturn:
        """Check every minute whether a run is due, as long as the process lives. Run it as a task."""
        while True:
            await self._archive.sweep()
            for _ in range(_CHECKS_PER_SWEEP):
                if self._days:
                    await self._publisher.wait_until_up()  # no deletion without its event
                    try:
                        await self.once(datetime.now(UTC))
                    except UnavailableError as error:
                        log.warning("retention_postponed", detail=str(error))
                await asyncio.sleep(_CHECK_S)

    async def once(self, now: datetime) -> bool:
        """Run for the current day; return False if another worker does, or has done so.

        Raises:
            UnavailableError: the run failed. The next check repeats it.
        """
        failed, is_done = None, False
        try:
            async with locked(self._store, "retention"):
                is_done = await self._run_unless_noted(f"retention/{now:%Y-%m-%d}", now)
        except* BusyError:
            is_done = False
        except* UnavailableError as group:
            failed = leaf_errors(group)[0]
        if failed is not None:
            raise failed
        return is_done

    async def _run_unless_noted(self, day: str, now: datetime) -> bool:
        if await self._store.flags.is_set(day):
            return False
        crash_point("retention.begun")
        retention = Retention(self._archive, self._publisher, self._store, now - timedelta(days=self._days), self._with_records)
        request = {"older_than": f"{self._days}d", "with_records": self._with_records}
        async with audited(Audit(self._publisher), _WHO, retention.done, request):
            done = await retention.run(self._sources.current, lambda day: log.debug("retention_day_finished", day=day))
        await until_redis_answers(lambda: self._store.flags.set(day, expires_in_s=_NOTE_KEPT_S))
        for problem in done.problems:
            log.warning("retention_problem_found", detail=problem)
        counts = {"recordings": done.recordings, "records": done.records, "bytes": done.bytes}
        log.info("retention_finished", **counts, held=done.held, waiting=done.waiting, problems=len(done.problems))
        return True
