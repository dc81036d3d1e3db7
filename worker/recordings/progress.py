"""Records which jobs have begun and not ended, for the metric of the oldest. An outage of Redis delays no job because of it."""

from __future__ import annotations

from contextlib import suppress

from shared.domain.times import milliseconds
from shared.errors import StoreUnavailableError
from shared.state.store import Store
from worker.recordings.attempt import Attempt


class Progress:
    """The jobs of all workers, in Redis."""

    def __init__(self, store: Store, takes_s: float) -> None:
        """`takes_s` is the sum of all waits between the attempts at one job."""
        self._store = store
        self._takes_s = takes_s

    async def begin(self, attempt: Attempt) -> None:
        with suppress(StoreUnavailableError, ValueError, TypeError):  # a header that another program wrote may be no time
            first_ms, now = milliseconds(attempt.first_seen), self._store.clock.now()
            await self._store.unfinished_recordings.begin(attempt.job.id, first_ms, now=now, takes_s=self._takes_s)

    async def finish(self, attempt: Attempt) -> None:
        with suppress(StoreUnavailableError):
            await self._store.unfinished_recordings.finish(attempt.job.id)
