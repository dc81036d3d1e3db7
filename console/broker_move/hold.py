"""Keeps all timers waiting while callbacks may be on two brokers, by the report of a spool that never drains."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from shared.domain.barrier import complete_round
from shared.domain.times import milliseconds, rfc3339
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from shared.state.watermark import SpoolReport

_SPOOL = "broker-move"
_REPORT_S = 10
_LOOK_S = 0.3
# If no worker has reported a round, everything that was received this long ago counts as folded.
_UNKNOWN_MS = 7 * 24 * 3600 * 1000


class TimerHold:
    """Timers run up to what was folded when the hold began. Workers forget it an hour after its last report."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._until_ms: int | None = 0

    async def begin(self) -> None:
        """Hold the timers, or take over the hold of a move that was interrupted."""
        now_ms = await self._now_ms()
        reports = await until_redis_answers(self._store.watermarks.reports)
        known = [spool.oldest_ms for spool in reports.spools if spool.name == _SPOOL and spool.oldest_ms is not None]
        folded = await until_redis_answers(self._store.watermarks.folded_until)
        self._until_ms = known[0] if known else folded.ms if folded else now_ms - _UNKNOWN_MS
        await self._report()

    async def keep(self) -> NoReturn:
        """Repeat the report until cancelled, also that the hold has ended. Run it as a task."""
        while True:
            await asyncio.sleep(_REPORT_S)
            await self._report()

    async def end(self) -> None:
        """Wait until the workers have folded everything that is in the new broker now, then let the timers run."""
        moved_ms = await self._now_ms()
        while True:
            reports = await until_redis_answers(self._store.watermarks.reports)
            complete = complete_round(reports.rounds, reports.members)
            if complete is not None and complete.opened_ms > moved_ms:
                break
            await asyncio.sleep(_LOOK_S)
        self._until_ms = None
        await self._report()

    async def _report(self) -> None:
        now_ms = await self._now_ms()
        report = SpoolReport(_SPOOL, self._until_ms, now_ms)
        await until_redis_answers(lambda: self._store.watermarks.store_spool_reports([report]))

    async def _now_ms(self) -> int:
        return milliseconds(rfc3339(await until_redis_answers(self._store.now)))
