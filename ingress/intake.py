"""The intake of valid callbacks: each is published, waits for the fold, or is refused, by the fair share of its source."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Collection
from typing import NamedTuple, NoReturn

from ingress.fair_shares import TICK_S, FairShares, Load, Route
from ingress.group_commit import GroupCommit
from ingress.probes import Probes
from ingress.waiting import Waiting
from shared import metrics
from shared.config.live_sources import LiveSources
from shared.domain.ids import SourceName
from shared.errors import SpoolUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.health import Handicap

log = get_logger(__name__)

_WAITS = "it sends more than its share while the fold is behind"
_REFUSED = {
    Route.OVER_DAY: "it has used up CALLFOLD_SOURCE_BYTES_PER_DAY",
    Route.OVER_WAITING: "its waiting callbacks have used up its part of CALLFOLD_SPOOL_MAX_BYTES",
}
# How soon waiting callbacks are drained is unknown: it depends on the fold.
_RETRY_WAITING_S = 10


class Refusal(NamedTuple):
    """Why callbacks of a source are refused, and the seconds after which they may be accepted again."""

    reason: str
    retry_after_s: int


class Intake:
    """Routes callbacks, and reports the sources that wait or are refused."""

    def __init__(self, shares: FairShares, commit: GroupCommit, waiting: Waiting, probes: Probes) -> None:
        self._shares = shares
        self._commit = commit
        self._waiting = waiting
        self._probes = probes
        self._outages: dict[SourceName, tuple[Outage, Outage]] = {}
        self._routes: dict[SourceName, Route] = {}

    def take(self, source: SourceName, size: int) -> Route:
        """Count a callback of `size` bytes and return its route."""
        return self._shares.of(source).take(size)

    def refusal(self, source: SourceName) -> Refusal | None:
        """Return why callbacks of a source are refused, or None if they are accepted."""
        share = self._shares.of(source)
        if not share.route.is_refusal:
            return None
        return Refusal(_REFUSED[share.route], share.refilled_in_s() if share.route is Route.OVER_DAY else _RETRY_WAITING_S)

    def submit(self, source: SourceName, encoded: bytes, route: Route) -> Awaitable[None]:
        """Make a callback durable by a route that is no refusal; the result is awaited.

        Raises:
            SpoolUnavailableError: nothing accepts it, now or when the result is awaited.
        """
        return self._commit.submit(encoded) if route is Route.PUBLISH else self._wait(source, encoded)

    async def _wait(self, source: SourceName, encoded: bytes) -> None:
        try:
            await self._waiting.add(source, encoded)
        except SpoolUnavailableError:
            await self._commit.submit(encoded)  # to accept it matters more than the order of service
        else:
            metrics.CALLBACKS_WAITED.labels(source).inc()

    async def run(self, sources: LiveSources) -> NoReturn:
        """Decide the routes until cancelled. Run it as a task."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self._follow(sources.current)
            lag_s, waiting = self._probes.lag_s(), self._waiting.waiting_bytes
            load = Load(lag_s, is_fold_away=self._probes.is_fold_away(), waiting_bytes=waiting)
            for source, route in self._shares.update(now - before, load).items():
                self._report(source, route)
            before = now
            metrics.PUBLISH_TO_FOLD_SECONDS.set(lag_s)
            for source in waiting.keys() | self._routes.keys():
                metrics.WAITING_BYTES.labels(source).set(waiting.get(source, 0))

    def _follow(self, sources: Collection[SourceName]) -> None:
        """Take over a change of the sources. What still waits of a source that was removed is drained."""
        for gone in self._shares.follow(sources):
            self._routes.pop(gone, None)
            for outage in self._outages.pop(gone, ()):
                outage.succeeded()
            metrics.WAITING_BYTES.labels(gone).set(0)

    def _report(self, source: SourceName, route: Route) -> None:
        """Log a change. A source that keeps changing is logged once a minute."""
        if source not in self._outages:
            self._outages[source] = (
                Outage(log, "source_delayed", "source_undelayed"),
                Outage(log, "source_limited", "source_unlimited"),
            )
        waiting, limited = self._outages[source]
        self._routes[source] = route
        if route.is_refusal:
            limited.failed(_REFUSED[route], source=source)
        else:
            limited.succeeded()
        if route is Route.WAIT:
            waiting.failed(_WAITS, source=source)
        elif route is Route.PUBLISH:
            waiting.succeeded()

    def problems(self) -> list[str]:
        """Return which sources are limited. Ingress is ready nevertheless: other sources are not affected."""
        problems = []
        for source, route in self._routes.items():
            if route is Route.WAIT:
                problems.append(Handicap(f"callbacks of source {source} wait: {_WAITS}"))
            elif route.is_refusal:
                problems.append(Handicap(f"callbacks of source {source} are refused with 429: {_REFUSED[route]}"))
        return list(problems)
