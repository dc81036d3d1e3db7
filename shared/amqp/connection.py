"""A connection to RabbitMQ that reconnects by itself and declares the topology each time.

The library's own reconnection is not used. It takes a single URL, and if a queue cannot be declared again, its consumer stays
silent while the connection looks open.

With several addresses, each connection has a random one as its home, so that connections spread evenly. If its home is away, it
uses another one, and goes home once that has answered for a while. No request fails: the new connection is open before the old
one is left. The old one stays until everything in flight on it is settled.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused

from shared import metrics
from shared.amqp.channel_requests import broker_request, wait_while_open
from shared.amqp.connection_errors import is_cancelled, is_lost, loss, refusal
from shared.amqp.hosts import HostWatch, location
from shared.amqp.plain_connection import CONNECT_TIMEOUT_S
from shared.amqp.session import Session, open_session
from shared.amqp.topology import Topology
from shared.errors import BrokerUnavailableError, ConfigError, StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)

BACKOFF_S = (0.1, 0.3, 1, 2, 5)
_WATCH_INTERVAL_S = 2
_ROUND_TRIP_TIMEOUT_S = 5
# A shorter connection does not reset the backoff: a message may be what ends it.
_STABLE_S = 10
# Connections go home within this time after their home is stable, not all at once.
_SPREAD_S = 60.0
# How long a connection that was left stays open at least, for requests that have just begun.
_LINGER_S = 10.0
_SETTLE_POLL_S = 0.5
_UNREACHABLE = "cannot be reached"
NOT_PERMITTED = "does not permit this user what it needs"
_CONFLICT = "has a queue or exchange with other settings"
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """URLs of RabbitMQ and the topology to declare there; `name` begins the name in RabbitMQ's list of connections."""

    urls: tuple[str, ...]
    topology: Topology
    name: str
    hosts: HostWatch | None = None


class GoHome(Enum):
    """The step by which a connection goes back to its home: none, a reconnect, or a move while the old one is still open."""

    NEVER = "never"
    RECONNECT = "reconnect"
    MOVE = "move"


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
        self._attention = asyncio.Event()
        self._channel: Channel | None = None
        self._session: Session | None = None
        self._left: set[asyncio.Task[None]] = set()
        self._home = ""
        self._home_at: float | None = None
        self._up = asyncio.Event()
        # `broker_connected` logs the end of each of these.
        self._unreachable = Outage(log, "broker_unreachable")
        self._unregistered = Outage(log, "consumer_not_registered")

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def is_usable(self) -> bool:
        """True while the connection is up, and RabbitMQ accepts what it is for."""
        return self.is_up

    async def round_trip_s(self) -> float:
        """Measure how long RabbitMQ takes to answer, on a separate channel: a late answer would cost the other one.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        if self._channel is None or not self.is_usable:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        with broker_request("Cannot measure RabbitMQ"):
            async with asyncio.timeout(_ROUND_TRIP_TIMEOUT_S):
                channel = await self._channel.connection.channel(publisher_confirms=False)
                try:
                    began = time.perf_counter()
                    await channel.flow(active=True)  # it is so already, and needs no permission
                    return time.perf_counter() - began
                finally:
                    await channel.close()

    async def wait_until_up(self) -> None:
        """Wait without limit for a working channel; callers set the time limit."""
        await self._up.wait()

    def recycle(self, reason: str) -> None:
        """Drop the connection and open a new one; `reason` is logged."""
        self._up.clear()
        self._recycled_for = self._recycled_for or reason
        self._lost.set()
        self._attention.set()

    async def run(self) -> NoReturn:
        """Connect, and reconnect whenever the connection is lost. Run it as a task; cancel it to close.

        Raises:
            ConfigError: a queue or exchange exists with other arguments; with `retries_conflicts` only before the first success.
        """
        attempt = 0
        urls = random.sample(self.address.urls, len(self.address.urls))
        self._home = urls[0]
        positions = itertools.count()
        try:
            while True:
                began = time.monotonic()
                if await self._use(urls[next(positions) % len(urls)]):
                    positions = itertools.count()  # home is first
                if time.monotonic() - began > _STABLE_S:
                    attempt = 0
                delay_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
                attempt += 1
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, no secret
        finally:
            for task in self._left:
                task.cancel()
            await asyncio.gather(*self._left, return_exceptions=True)

    async def _use(self, url: str) -> bool:
        """Connect, and return once the connection is lost or cannot be opened; True if it is given up to go home."""
        try:
            return await self._connected(url)
        except Exception as error:
            if not self._may_retry(error):
                raise
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            self._log_unreachable("CancelledError", "the library gave up")
        return False

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
        self.problem = refusal(error) or (NOT_PERMITTED if isinstance(error, ChannelAccessRefused) else _UNREACHABLE)
        self._log_unreachable(type(error).__name__, refusal(error) or str(error))
        return True

    def _log_unreachable(self, error: str, detail: str) -> None:
        self._unreachable.failed(detail[:_SHOWN_CHARACTERS], connection=self._name, error=error)

    async def _connected(self, url: str) -> bool:
        self._lost.clear()
        self._recycled_for = ""
        self._home_at = None
        try:
            await self._enter(await open_session(url, self.address.topology, self._name))
            self._up.set()
            self.sessions += 1
            log.info("broker_connected", connection=self._name)
            self._unreachable.succeeded()
            self._unregistered.succeeded()
            goes_home = await self._watch()
            channel = self._channel
            reason = self._recycled_for or (loss(channel) if channel else "") or "it did not work"
        finally:
            self._up.clear()
            channel, self._channel = self._channel, None
            try:
                self._on_close(channel)
            finally:
                session, self._session = self._session, None
                if session is not None:
                    try:
                        await self._before_close(session.channel)
                    finally:
                        await session.close()
        if goes_home:
            log.info("broker_connection_moved", connection=self._name, host=location(self._home))
            metrics.BROKER_MOVES.inc()
        else:
            log.warning("broker_connection_lost", connection=self._name, detail=reason[:_SHOWN_CHARACTERS])
        return goes_home

    async def _enter(self, session: Session) -> None:
        self._session = session
        async with asyncio.timeout(CONNECT_TIMEOUT_S * 2):
            self._channel = session.channel
            await self._on_open(session.channel)

    async def _watch(self) -> bool:
        """Return once the channel is closed, stops working, or is to be recycled; True if it is given up to go home."""
        self._attention.clear()
        while (
            (channel := self._channel) and not self._lost.is_set() and not channel.is_closed and await self._is_working(channel)
        ):
            if self._may_go_home(channel):
                if self._goes_home is GoHome.RECONNECT:
                    return True
                await self._move()
            else:
                await wait_while_open(channel, self._attention, timeout_s=self._watch_interval_s)
                self._attention.clear()
        return False

    def _may_go_home(self, channel: Channel) -> bool:
        hosts, session = self.address.hosts, self._session
        if hosts is None or session is None or session.url == self._home or not hosts.is_stable(self._home):
            self._home_at = None
            return False
        if self._home_at is None:
            self._home_at = time.monotonic() + random.uniform(0, _SPREAD_S)  # noqa: S311 - no secret
        return self._goes_home is not GoHome.NEVER and time.monotonic() >= self._home_at and self._is_movable(channel)

    async def _move(self) -> None:
        """Open a connection to the home address and continue there. If that fails, stay, and try again later."""
        self._home_at = None
        try:
            new = await open_session(self._home, self.address.topology, self._name)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled() or not (is_lost(error) or isinstance(error, ConfigError | asyncio.CancelledError)):
                raise
            return
        old = self._session
        try:
            is_settled = await self._leave()
        except BaseException:
            await new.close()
            raise
        if old is not None:
            task = asyncio.create_task(_close_when_settled(old, is_settled))
            self._left.add(task)
            task.add_done_callback(self._left.discard)
        await self._enter(new)
        log.info("broker_connection_moved", connection=self._name, host=location(self._home))
        metrics.BROKER_MOVES.inc()

    @property
    def _watch_interval_s(self) -> float:
        return _WATCH_INTERVAL_S

    @property
    def _goes_home(self) -> GoHome:
        return GoHome.NEVER

    def _is_movable(self, channel: Channel) -> bool:
        """Return whether this is a good moment to move."""
        del channel
        return True

    async def _leave(self) -> Callable[[], bool]:
        """Begin nothing more on the current channel; returns a function that says whether all that was begun has ended."""
        return lambda: True

    async def _on_open(self, channel: Channel) -> None:
        """Prepare a new channel; the connection is up once this returns."""

    async def _before_close(self, channel: Channel) -> None:
        """Finish what was begun on a channel that is about to be closed, or is lost."""

    def _on_close(self, channel: Channel | None) -> None:
        """Forget what belongs to a channel that is lost."""

    async def _is_working(self, channel: Channel) -> bool:
        return not channel.is_closed


async def _close_when_settled(session: Session, is_settled: Callable[[], bool]) -> None:
    """Close a session that was left. What is in flight on it is not cut off, however long it takes."""
    try:
        await asyncio.sleep(_LINGER_S)
        while not session.channel.is_closed and not is_settled():  # noqa: ASYNC110 - acks and confirms set no event
            await asyncio.sleep(_SETTLE_POLL_S)
    finally:
        await session.close()
