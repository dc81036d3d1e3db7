"""Operator events of the whole system. Every worker observes it, and all of them raise and clear each condition together.

Their records are in Redis (`shared/state/ops_conditions.py`). While Redis is away, nothing is raised or cleared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final, NoReturn

from shared.amqp.publisher import Publisher
from shared.archive.storage import Archive
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.domain.condition import Kind, Observation
from shared.domain.times import rfc3339
from shared.errors import StoreUnavailableError
from shared.runtime.ops_reporter import OpsReporter, ops_publish
from shared.runtime.process import background
from shared.state.replies import REDIS_OUTAGE
from shared.state.store import Store
from worker.watching.archive import ArchiveWatch
from worker.watching.certificates import CertificateWatch
from worker.watching.dead_letters import DeadLetterWatch
from worker.watching.lost_state import LostState

_INTERVAL_S: Final = 5.0

Observe = Callable[[], Sequence[Observation]]


class Watcher:
    """Observes the system and reports.

    Attributes:
        lost_state: takes the reports of rebuilds.
    """

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        sources: LiveSources,
        settings: Settings,
        *,
        silences: Observe,
    ) -> None:
        """Take the parts of the system; `silences` returns an observation of each source that is known."""
        self._publisher, self._sources, self._silences = publisher, sources, silences

        def now() -> str:
            return rfc3339(store.clock.now())

        self.lost_state = LostState(store.positions, now)
        self._dead_letters = DeadLetterWatch(publisher, now)
        self._archive = ArchiveWatch(Archive(settings.archive_url), now)
        self._certificates = CertificateWatch(settings, sources, store.clock.now)
        address = publisher.address
        self._reporter = OpsReporter(
            store.ops_conditions,
            ops_publish(address.urls, address.name),
            holder=address.name,
            now=now,
            hold_s=settings.ops_hold_seconds,
        )

    async def run(self) -> NoReturn:
        """Observe and report until cancelled. Run it as a task."""
        async with background(self._dead_letters.run(), self._archive.run(), self._certificates.run()):
            while True:
                await self.step()
                await asyncio.sleep(_INTERVAL_S)

    async def step(self) -> None:
        """Report once what is known now."""
        configured: dict[Kind, Collection[str]] = {Kind.SOURCE_SILENT: self._sources.current.keys()}
        if self._certificates.servers is not None:
            configured[Kind.CERTIFICATE_EXPIRING] = self._certificates.servers
        may_publish = self._publisher.is_up and not self._publisher.is_blocked
        try:
            await self._reporter.report(self._observations(), configured=configured, may_publish=may_publish)
        except StoreUnavailableError as error:
            REDIS_OUTAGE.failed(str(error), task=self)
        else:
            self.lost_state.stored()
            REDIS_OUTAGE.succeeded(task=self)

    def _observations(self) -> list[Observation]:
        observations = [*self.lost_state.observations(), *self._dead_letters.observations()]
        return [*observations, *self._archive.observations(), *self._certificates.observations(), *self._silences()]
