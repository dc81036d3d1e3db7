"""A connection to RabbitMQ that reconnects by itself and declares the topology each time.

The library's own reconnection is not used. It takes a single URL, and if a queue cannot be declared again, its consumer stays
silent while the connection looks open.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from dataclasses import dataclass
from typing import NoReturn, cast

from aiormq.channel import Channel
from yarl import URL

from shared.amqp.channel_requests import wait_while_open
from shared.amqp.connection_errors import is_cancelled, is_lost, loss, refusal
from shared.amqp.declare import declare
from shared.amqp.plain_connection import CONNECT_TIMEOUT_S, plain_connection
from shared.amqp.topology import Topology
from shared.errors import ConfigError, StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)

BACKOFF_S = (0.1, 0.3, 1, 2, 5)
_HEARTBEAT_S = 5  # the library drops a silent peer after (heartbeat + 1) * 3 = 18 s
_WATCH_INTERVAL_S = 2
_STABLE_S = 10  # a shorter connection does not reset the backoff: a message may be what ends it
_UNREACHABLE = "cannot be reached"
_CONFLICT = "has a queue or exchange with other settings"
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """URLs of RabbitMQ and the topology to declare there; `name` begins the name in RabbitMQ's list of connections."""

    urls: tuple[str, ...]
    topology: Topology
    name: str


class BrokerConnection:
    """One connection with one channel, kept up by `run`; a subclass defines what the channel does.

    Attributes:
        sessions: the number of times the connection has been up.
        problem: why the connection is down, as the rest of a sentence that begins with "RabbitMQ".
    """

    def __init__(self, address: BrokerAddress, role: str, *, retries_conflicts: bool = False) -> None:
        """Prepare the connection.

        With `retries_conflicts`, a queue that exists with other arguments counts as an outage once the connection has been up.
        """
        self.address = address
        self._retries_conflicts = retries_conflicts
        self.sessions = 0
        self.problem = _UNREACHABLE
        self._name = f"{address.name} {role}"
        self._lost = asyncio.Event()
        self._recycled_for = ""
        self._channel: Channel | None = None
        self._up = asyncio.Event()
        # `broker_connected` logs the end of each of these.
        self._unreachable = Outage(log, "broker_unreachable")
        self._unregistered = Outage(log, "consumer_not_registered")

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def wait_until_up(self) -> None:
        """Wait without limit for a working channel; callers set the time limit."""
        await self._up.wait()

    def recycle(self, reason: str) -> None:
        """Drop the connection and open a new one; `reason` is logged."""
        self._up.clear()
        self._recycled_for = self._recycled_for or reason
        self._lost.set()

    async def run(self) -> NoReturn:
        """Connect, and reconnect whenever the connection is lost. Run it as a task; cancel it to close.

        Raises:
            ConfigError: a queue or exchange exists with other arguments; with `retries_conflicts` only before the first success.
        """
        attempt = 0
        for url in itertools.cycle(self.address.urls):
            began = time.monotonic()
            try:
                await self._session(URL(url))
            except Exception as error:
                if not self._may_retry(error):
                    raise
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                self._log_unreachable("CancelledError", "the library gave up")
            if time.monotonic() - began > _STABLE_S:
                attempt = 0
            delay_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
            attempt += 1
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, no secret
        raise AssertionError("cycle() of at least one URL does not end")

    def _may_retry(self, error: Exception) -> bool:
        """Log why a session failed, and return whether another attempt may succeed."""
        if isinstance(error, ConfigError) and self._retries_conflicts and self.sessions:
            self.problem = _CONFLICT
            detail = str(error.__cause__)[:_SHOWN_CHARACTERS]  # names the queue
            log.error("broker_conflict", connection=self._name, detail=detail)
            return True
        if isinstance(error, StoreUnavailableError):
            self._unregistered.failed(str(error), connection=self._name)
            return True
        if not is_lost(error):
            return False
        self.problem = refusal(error) or _UNREACHABLE
        self._log_unreachable(type(error).__name__, refusal(error) or str(error))
        return True

    def _log_unreachable(self, error: str, detail: str) -> None:
        self._unreachable.failed(detail[:_SHOWN_CHARACTERS], connection=self._name, error=error)

    async def _session(self, url: URL) -> None:
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=str(_HEARTBEAT_S))
        self._lost.clear()
        self._recycled_for = ""
        async with plain_connection(url, {"connection_name": self._name}) as connection:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S * 2):
                    # mandatory and on_return_raises: an unroutable publish must fail, and by default the library confirms it.
                    channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                    await channel.initialize()
                    await declare(channel, self.address.topology)
                    underlay = cast("Channel", await channel.get_underlay_channel())
                    self._channel = underlay
                    await self._on_open(underlay)
                self._up.set()
                self.sessions += 1
                log.info("broker_connected", connection=self._name)
                self._unreachable.succeeded()
                self._unregistered.succeeded()
                await self._watch(underlay)
                reason = self._recycled_for or loss(underlay) or "it did not work"
            finally:
                self._up.clear()
                self._channel = None
                self._on_close()
        log.warning("broker_connection_lost", connection=self._name, detail=reason[:_SHOWN_CHARACTERS])

    async def _watch(self, channel: Channel) -> None:
        """Return once the channel is closed, stops working, or is to be recycled."""
        while not self._lost.is_set() and not channel.is_closed and await self._is_working(channel):
            await wait_while_open(channel, self._lost, timeout_s=_WATCH_INTERVAL_S)

    async def _on_open(self, channel: Channel) -> None:
        """Prepare a new channel; the connection is up once this returns."""

    def _on_close(self) -> None:
        """Forget what belonged to the channel that was closed."""

    async def _is_working(self, channel: Channel) -> bool:
        return not channel.is_closed
