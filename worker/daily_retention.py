"""Once a day one of the workers deletes what is older than the retention time.

Who runs has a lock that he keeps only while he lives; that a day is done is noted when it is, so that what a killed worker
began is taken up by another.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from shared.amqp.publisher import Publisher
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.crash_points import crash_point
from shared.errors import UnavailableError
from shared.log import get_logger
from shared.retention.recording_lock import BusyError, locked
from shared.retention.retention import Retention, told
from shared.runtime.audit import Audit
from shared.runtime.process import leaf_errors
from shared.state.replies import until_redis_answers
from shared.state.store import Store

log = get_logger(__name__)

_WHO = "worker:retention"
_LOOK_S = 60
_LOOKS_A_SWEEP = 10
# Longer than a day lasts, clocks that disagree included.
_NOTED_S = 2 * 86400.0


class DailyRetention:
    """Runs retention once for each UTC day, whichever worker comes first. A run that failed is left to the next look."""

    def __init__(self, archive: Archive, publisher: Publisher, store: Store, sources: Sources, settings: Settings) -> None:
        self._archive = archive
        self._publisher = publisher
        self._store = store
        self._sources = sources
        self._days = settings.retention_days
        self._with_records = settings.retention_with_records

    async def run(self) -> NoReturn:
        """Look every minute for as long as the process lives. Run it as a task."""
        while True:
            await self._archive.sweep()
            for _ in range(_LOOKS_A_SWEEP):
                if self._days:
                    await self._publisher.wait_until_up()  # nothing is deleted untold
                    try:
                        await self.once(datetime.now(UTC))
                    except UnavailableError as error:
                        log.warning("retention_waits", detail=str(error))
                await asyncio.sleep(_LOOK_S)

    async def once(self, now: datetime) -> bool:
        """Run for the day it is now; False where that was done, or is being done.

        Raises:
            UnavailableError: it could not be done; it is left to the next look.
        """
        failed, is_done = None, False
        try:
            async with locked(self._store, "retention"):
                is_done = await self._unless_noted(f"retention/{now:%Y-%m-%d}", now)
        except* BusyError:
            is_done = False
        except* UnavailableError as group:
            failed = leaf_errors(group)[0]
        if failed is not None:
            raise failed
        return is_done

    async def _unless_noted(self, day: str, now: datetime) -> bool:
        if await self._store.flags.is_set(day):
            return False
        crash_point("retention.begun")
        retention = Retention(self._archive, self._publisher, self._store, now - timedelta(days=self._days), self._with_records)
        asked = {"older_than": f"{self._days}d", "with_records": self._with_records}
        async with told(Audit(self._publisher), _WHO, retention.done, asked):
            done = await retention.run(self._sources, lambda day: log.debug("retention_day", day=day))
        await until_redis_answers(lambda: self._store.flags.set(day, expires_in_s=_NOTED_S))
        for problem in done.problems:
            log.warning("retention_problem", detail=problem)
        counts = {"recordings": done.recordings, "records": done.records, "bytes": done.bytes}
        log.info("retention", **counts, held=done.held, waiting=done.waiting, problems=len(done.problems))
        return True
