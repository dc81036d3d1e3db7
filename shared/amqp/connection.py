"""One connection to RabbitMQ that comes back by itself, with the topology declared on it.

The library's own reconnection is not used: it takes one URL, and a consumer whose queue cannot be declared again stays
silent while its connection looks open.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn, cast

import aio_pika
from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pamqp.common import FieldTable
from yarl import URL

from shared.amqp import lenient_decoding as decoding
from shared.amqp.topology import Topology
from shared.errors import BrokerUnavailableError, ConfigError, StoreUnavailableError
from shared.log import get_logger

log = get_logger(__name__)
decoding.install()

_CONNECT_TIMEOUT_S = 5
CLOSE_TIMEOUT_S = 2
_HEARTBEAT_S = 5  # a silent peer is given up after (heartbeat + 1) * 3 = 18 s
_WATCH_INTERVAL_S = 2
_LASTING_S = 10  # a connection that ends sooner is no success: what ends it may be in the messages
BACKOFF_S = (0.1, 0.3, 1, 2, 5)
# What the library raises when the wire or the broker is gone; TimeoutError is an OSError.
LOST = (AMQPError, OSError, ChannelInvalidStateError)
_AWAY = "cannot be reached"
_CONFLICT = "has a queue or exchange with other settings"
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where RabbitMQ is, and what must exist there. `name` shows in the broker's list of connections."""

    urls: tuple[str, ...]
    topology: Topology
    name: str


class BrokerConnection(ABC):
    """One connection with one channel, kept alive by `run`; a subclass says what the channel is for."""

    def __init__(self, address: BrokerAddress, role: str, *, outlasts_conflicts: bool = False) -> None:
        """Prepare; `outlasts_conflicts`: once it was up, a queue that exists with other arguments is a broker that is away."""
        self.address = address
        self._outlasts_conflicts = outlasts_conflicts
        self.sessions = 0
        self._name = f"{address.name} {role}"
        self._lost = asyncio.Event()
        self._is_left = False  # given up by ourselves, for no fault of it
        self._up = asyncio.Event()
        self.problem = _AWAY  # what is told of a server that never answered: goes on from "RabbitMQ"

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def wait_up(self) -> None:
        """Wait, without limit, for the next working channel: callers bound it or run for as long as the process."""
        await self._up.wait()

    def recycle(self) -> None:
        """Give the connection up and make a new one."""
        self._up.clear()
        self._lost.set()

    async def run(self) -> NoReturn:
        """Connect, and connect again whenever the connection is lost. Run it as a task, cancel it to close.

        Raises:
            ConfigError: a queue or exchange exists with other arguments; at the first connection only, if it outlasts that.
        """
        attempt = 0
        for url in itertools.cycle(self.address.urls):
            began = time.monotonic()
            try:
                await self._session(URL(url))
            except Exception as error:
                if not self._is_waited_out(error):
                    raise
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                log.warning("broker_unreachable", link=self._name, error="CancelledError", detail="the library gave up")
            if time.monotonic() - began > _LASTING_S:
                attempt = 0
            delay_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
            attempt += 1
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, no secret
        raise AssertionError("cycle() of at least one URL does not end")

    def _is_waited_out(self, error: Exception) -> bool:
        """Tell whether the next try may do better, and log what was wrong with this one."""
        if isinstance(error, ConfigError) and self._outlasts_conflicts and self.sessions:
            self.problem = _CONFLICT
            log.error("broker_conflict", link=self._name, detail=str(error.__cause__)[:_SHOWN_CHARACTERS])  # names the queue
            return True
        if isinstance(error, StoreUnavailableError):
            log.warning("consumer_not_registered", link=self._name, detail=str(error))
            return True
        if not is_lost(error):
            return False
        self.problem = refusal(error) or _AWAY
        detail = _words(error)[:_SHOWN_CHARACTERS]
        log.warning("broker_unreachable", link=self._name, error=type(error).__name__, detail=detail)
        return True

    async def _session(self, url: URL) -> None:
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=str(_HEARTBEAT_S))
        self._lost.clear()
        self._is_left = False
        properties: FieldTable = {"connection_name": self._name}
        async with _connected(url, properties) as connection:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S * 2):
                    # mandatory + on_return_raises: an unroutable publish must fail, the library's default is to confirm it
                    channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                    await channel.initialize()
                    await declare(channel, self.address.topology)
                    underlay = cast("Channel", await channel.get_underlay_channel())
                    await self._open(underlay)
                self._up.set()
                self.sessions += 1
                log.info("broker_connected", link=self._name)
                await self._until_lost(underlay)
            finally:
                self._up.clear()
                self._closed()
        if not self._is_left:
            log.warning("broker_connection_lost", link=self._name)

    async def _until_lost(self, channel: Channel) -> None:
        while not self._lost.is_set() and not channel.is_closed and self._is_working(channel):
            with suppress(TimeoutError):
                # Not wait_for: on Python 3.11 it can swallow a cancellation, and this loop would go on for ever.
                async with asyncio.timeout(_WATCH_INTERVAL_S):
                    await self._lost_or(channel)

    async def _lost_or(self, channel: Channel) -> None:
        lost, closing = asyncio.ensure_future(self._lost.wait()), channel.closing
        try:
            await asyncio.wait((lost, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            closing.cancel()  # this observer alone: the channel would keep each

    @abstractmethod
    async def _open(self, channel: Channel) -> None: ...

    @abstractmethod
    def _closed(self) -> None: ...

    def _is_working(self, channel: Channel) -> bool:
        return not channel.is_closed


@asynccontextmanager
async def _connected(url: URL, properties: FieldTable | None = None) -> AsyncIterator[aio_pika.Connection]:
    """Have a connection, and close it whatever became of it: one that is dropped closes itself, in whatever thread that is."""
    connection = aio_pika.Connection(url, client_properties=properties)
    try:
        try:
            await connection.connect(timeout=_CONNECT_TIMEOUT_S)
        except StopAsyncIteration as error:  # the library's word for an end before the first frame; ours would be no error at all
            raise ConnectionError("the server closed the connection before it answered") from error
        yield connection
    finally:
        try:
            with suppress(*LOST):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await connection.close()
        finally:
            await connection.close()  # where that failed: without the wire, it is at once


async def write_while_open(channel: Channel, writing: Coroutine[object, object, object]) -> None:
    """Await what writes to a channel, for as long as the channel is open.

    The library writes through a queue of ten frames. Once the connection is lost nothing empties it, and a write to a full one
    would wait for ever.

    Raises:
        ChannelInvalidStateError: the channel closed first.
    """
    written, closing = asyncio.ensure_future(writing), channel.closing
    try:
        await asyncio.wait((written, closing), return_when=asyncio.FIRST_COMPLETED)
        if not written.done():
            raise ChannelInvalidStateError("the channel closed before this was written")
        written.result()
    finally:
        written.cancel()
        closing.cancel()


def is_lost(error: BaseException) -> bool:
    """Tell an error of the wire from one of ours: a broker that goes while a channel opens ends in a bare `Exception`."""
    return isinstance(error, LOST) or type(error) is Exception


@contextmanager
def requesting(problem: str) -> Iterator[None]:
    """Guard requests to the broker on a channel.

    Raises:
        BrokerUnavailableError: the connection was lost, or there was no answer in time; it begins with `problem`.
    """
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        if not is_lost(error) and (is_cancelled() or not isinstance(error, asyncio.CancelledError)):
            raise
        lost = "RabbitMQ did not answer in time" if isinstance(error, TimeoutError) else "the connection to RabbitMQ was lost"
        raise BrokerUnavailableError(f"{problem}: {str(error) or lost}") from error


def refusal(error: BaseException) -> str | None:
    """Say what the broker refused when the connection was opened; None where it is another trouble."""
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return "refused the user or password"
    if isinstance(error, InvalidFrameError) and "Connection.Close" in str(error):  # the library's words for the answer to an open
        return "refused the virtual host: it does not exist, or the user may not use it"
    return None


def _words(error: BaseException) -> str:
    return refusal(error) or str(error)


def is_cancelled() -> bool:
    """Tell whether it is us who are being cancelled: the library lets cancellations of its own reach its callers."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def declare(channel: aio_pika.abc.AbstractChannel, wanted: Topology) -> None:
    """Declare exchanges, queues and bindings; what exists with the same arguments stays as it is.

    Raises:
        ConfigError: something exists with other arguments; the broker's own words say which.
    """
    try:
        for exchange in wanted.exchanges:
            await channel.declare_exchange(exchange.name, exchange.type, durable=True)
        for queue in wanted.queues:
            await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in wanted.bindings:
            bound = await channel.get_queue(binding.queue, ensure=False)
            await bound.bind(binding.exchange, binding.routing_key)
    except ChannelPreconditionFailed as error:
        raise ConfigError(
            f"RabbitMQ has this queue or exchange with other settings: {error}. Delete it (or use another vhost) and start again."
        ) from error


@dataclass(frozen=True, slots=True)
class Inspected:
    """The server that answered: its version, and where it is, without credentials."""

    version: str
    server: str


async def inspect(address: BrokerAddress) -> Inspected:
    """Connect once to the first server that answers, as `BrokerConnection` would, and declare the topology there.

    Raises:
        BrokerUnavailableError: none can be reached, or it does not know quorum queues or streams.
        ConfigError: a queue or exchange exists with other arguments.
    """
    failures: list[str] = []
    for url in map(URL, address.urls):
        server = f"{url.host}:{url.port or (5671 if url.scheme == 'amqps' else 5672)}"
        try:
            return Inspected(await _version(url, address.topology), server)
        except Exception as error:
            if not is_lost(error):
                raise
            failures.append(f"{server}: {refusal(error) or f'{type(error).__name__}: {error}'}")
    raise BrokerUnavailableError(f"RabbitMQ: {'; '.join(failures)}")


async def _version(url: URL, wanted: Topology) -> str:
    async with asyncio.timeout(_CONNECT_TIMEOUT_S * 2), _connected(url) as connection:
        await declare(await connection.channel(), wanted)
        properties = connection.transport.connection.server_properties if connection.transport else {}
        return str(properties.get("version", "unknown"))
