"""Watches whether Redis has the state that workers wrote, and begins the rebuild of what it has lost.

After each new connection that may lead to another state, this process writes nothing. It first compares Redis with everything
that workers have published to `state.journal`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, NoReturn

from shared import metrics
from shared.errors import BrokerUnavailableError, StateLostError, StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.health import Handicap
from shared.runtime.process import wait_at_most
from shared.state.store import Store
from shared.state.stored_position import Known
from worker.folding.state_journal import StateJournal

log = get_logger(__name__)
_CHECKS = Outage(log, "state_not_verified", "state_verified")

_CHECK_S: Final = 1.0
_LOOK_S: Final = 5.0
_MAP_S: Final = 10.0
# A process that writes nothing shows that it lives, long before it would be forgotten.
_ALIVE_S: Final = 3600.0
_RETRY_S: Final = 0.5
_CONNECT_S: Final = 5.0


class StateWatch:
    """Compares what is known with Redis, and publishes full maps."""

    def __init__(self, store: Store, journal: StateJournal) -> None:
        self._store = store
        self._journal = journal
        self._looked_at = -_LOOK_S
        self._mapped_at = time.monotonic()
        self._map: dict[int, tuple[int, dict[str, int]]] = {}
        store.partitions.is_watched = True

    def problems(self) -> list[Handicap]:
        """Return why calls of some partitions are not concluded. A restart would not help."""
        problems = []
        if not self._store.partitions.is_verified:
            problems.append(Handicap("the state of Redis is not verified yet"))
        if waiting := self._store.positions.not_ready():
            problems.append(Handicap(f"{len(waiting)} partitions of Redis are rebuilt after a loss of state; their calls wait"))
        return problems

    async def run(self) -> NoReturn:
        """Watch until cancelled. Run it as a task."""
        due = self._store.partitions.verification_due
        # A process that has just started is not connected yet, which is no failure.
        await self._journal.wait_until_connected(_CONNECT_S)
        while True:
            due.clear()
            try:
                await self.check()
                _CHECKS.succeeded()
            except (StoreUnavailableError, BrokerUnavailableError) as error:
                _CHECKS.failed(str(error))
                await asyncio.sleep(_RETRY_S)
            metrics.PARTITIONS_REBUILDING.set(len(self._store.positions.not_ready()))
            if self._store.partitions.is_verified:
                await wait_at_most(due, _CHECK_S)

    async def check(self) -> None:
        """Verify the state if the connection is new, look at it now and then, and publish what is known.

        Raises:
            StoreUnavailableError, BrokerUnavailableError: something is to be repeated.
        """
        now = time.monotonic()
        try:
            if not self._store.partitions.is_verified:
                await self._journal.sync()
                await self._store.partitions.verify()
            elif now - self._looked_at >= _LOOK_S:
                await self._store.partitions.look()
        except StateLostError:
            await self._store.fence()
        self._looked_at = now if now - self._looked_at >= _LOOK_S else self._looked_at
        if now - self._mapped_at >= _MAP_S:
            await self._publish_map(now)

    async def _publish_map(self, now: float) -> None:
        positions, now_ms = self._store.positions, self._journal.now_ms
        if (content := _content(positions.known(now_ms))) == self._map and now - self._mapped_at < _ALIVE_S:
            return
        positions.alive(now_ms)
        await self._journal.publish_map(positions.known(now_ms))
        await self._store.partitions.forget(positions.forget(now_ms))
        self._map, self._mapped_at = content, now


def _content(known: dict[int, Known]) -> dict[int, tuple[int, dict[str, int]]]:
    return {number: (each.generation, {name: row[0] for name, row in each.writers.items()}) for number, each in known.items()}
