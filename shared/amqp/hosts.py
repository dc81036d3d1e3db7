"""Watches which addresses of RabbitMQ answer, so that connections can go back to a node that has returned.

One watch serves all connections of a process. With a single address there is nothing to watch.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import NoReturn

from yarl import URL

from shared import metrics
from shared.amqp.connection_errors import is_cancelled, is_lost, refusal
from shared.amqp.plain_connection import plain_connection
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)

_INTERVAL_S = 15.0
# A node that has just started may stop again. By then at least two probes have succeeded.
_STABLE_S = 15.0
_SHOWN_CHARACTERS = 200


def location(url: str | URL) -> str:
    """Return host and port of an address, without credentials."""
    parsed = URL(url)
    return f"{parsed.host}:{parsed.port or (5671 if parsed.scheme == 'amqps' else 5672)}"


class HostWatch:
    """Which of several addresses have answered for a while."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = tuple(dict.fromkeys(urls))
        self._since: dict[str, float] = {}
        self._outages = {url: Outage(log, "broker_host_unreachable", "broker_host_reachable") for url in self._urls}

    def is_stable(self, url: str) -> bool:
        """Return whether an address has answered every probe for some time."""
        since = self._since.get(url)
        return since is not None and time.monotonic() - since >= _STABLE_S

    async def run(self) -> NoReturn:
        """Probe the addresses until cancelled. Run it as a task."""
        while len(self._urls) > 1:
            await asyncio.gather(*map(self._probe, self._urls))
            await asyncio.sleep(_INTERVAL_S * random.uniform(0.75, 1.25))  # noqa: S311 - spreads the processes, no secret
        await asyncio.Event().wait()
        raise AssertionError("an event that is never set was waited for")

    async def _probe(self, url: str) -> None:
        """Log in as a client would: a port that only accepts connections may belong to a node that does not work."""
        try:
            async with plain_connection(URL(url), {"connection_name": "probe"}):
                self._since.setdefault(url, time.monotonic())
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled() or not (is_lost(error) or isinstance(error, asyncio.CancelledError)):
                raise
            self._since.pop(url, None)
            detail = refusal(error) or f"{type(error).__name__} {error}"
            self._outages[url].failed(detail[:_SHOWN_CHARACTERS], host=location(url))
        else:
            self._outages[url].succeeded()
        metrics.BROKER_HOST_REACHABLE.labels(location(url)).set(url in self._since)
