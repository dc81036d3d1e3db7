"""Once a day one of the workers deletes what is older than the retention time."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from shared.archive import Archive
from shared.broker import Publisher
from shared.errors import UnavailableError
from shared.log import get_logger
from shared.retention import Retention
from shared.settings import Settings
from shared.sources import Sources
from shared.store import Store

log = get_logger(__name__)

_LOOK_S = 600
_DAY_S = 25 * 3600.0


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
        """Look every ten minutes for as long as the process lives. Run it as a task."""
        while True:
            await self._archive.sweep()
            if self._days:
                try:
                    await self.once(datetime.now(UTC))
                except UnavailableError as error:
                    log.warning("retention_waits", detail=str(error))
            await asyncio.sleep(_LOOK_S)

    async def once(self, now: datetime) -> bool:
        """Run for the day it is now; False where that was done, or is being done."""
        name, holder = f"retention/{now:%Y-%m-%d}", uuid.uuid4().hex
        if not await self._store.lock(name, holder, lease_s=_DAY_S):
            return False
        retention = Retention(self._archive, self._publisher, self._store, now - timedelta(days=self._days), self._with_records)
        try:
            done = await retention.run(self._sources, lambda day: log.debug("retention_day", day=day))
        except BaseException:
            await self._store.unlock(name, holder)
            raise
        for problem in done.problems:
            log.warning("retention_problem", detail=problem)
        told = {"recordings": done.recordings, "records": done.records, "bytes": done.bytes}
        log.info("retention", **told, held=done.held, waiting=done.waiting, problems=len(done.problems))
        return True
