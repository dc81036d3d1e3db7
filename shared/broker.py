"""The one door to RabbitMQ: connections that come back by themselves, confirmed publishes, deliveries that are acked last.

Publishing and consuming have a connection each, because a broker under a memory or disk alarm stops reading the
connections that publish, acks included. The library's own reconnection is not used: it takes one URL, and a consumer
whose queue cannot be declared again stays silent while its connection looks open.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn, cast

import aio_pika
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, ChannelPreconditionFailed
from pamqp.commands import Basic
from pamqp.common import FieldTable
from yarl import URL

from shared.errors import BrokerUnavailableError, ConfigError
from shared.log import get_logger
from shared.topology import Topology

log = get_logger(__name__)

_CONNECT_TIMEOUT_S = 5
_CLOSE_TIMEOUT_S = 2
_HEARTBEAT_S = 5  # a silent peer is given up after (heartbeat + 1) * 3 = 18 s
_WATCH_INTERVAL_S = 2
_BACKOFF_S = (0.1, 0.3, 1, 2, 5)
_PERSISTENT = 2
_PUBLISHES_IN_FLIGHT = 200
# What the library raises when the wire or the broker is gone; TimeoutError is an OSError.
_LOST = (AMQPError, OSError, ChannelInvalidStateError)

HeaderValue = str | int | datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A persistent message. In flight on one channel no two may share a `message_id` (see Publisher.publish)."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    content_type: str = "application/json"
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where RabbitMQ is, and what must exist there. `name` shows in the broker's list of connections."""

    urls: tuple[str, ...]
    topology: Topology
    name: str


class Link(ABC):
    """One connection with one channel, kept alive by `run`; a subclass says what the channel is for."""

    def __init__(self, address: BrokerAddress, role: str) -> None:
        self._address = address
        self._name = f"{address.name} {role}"
        self._lost = asyncio.Event()
        self._up = asyncio.Event()

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
            ConfigError: a queue or exchange exists with other arguments.
        """
        attempt = 0
        for url in itertools.cycle(self._address.urls):
            try:
                await self._session(URL(url))
                attempt = 0
            except _LOST as error:
                log.warning("broker_unreachable", link=self._name, error=type(error).__name__, detail=str(error)[:200])
            delay_s = _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]
            attempt += 1
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, no secret
        raise AssertionError("cycle() of at least one URL does not end")

    async def _session(self, url: URL) -> None:
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=str(_HEARTBEAT_S))
        self._lost.clear()
        properties: FieldTable = {"connection_name": self._name}
        connection = await aio_pika.connect(url, timeout=_CONNECT_TIMEOUT_S, client_properties=properties)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S * 2):
                # mandatory + on_return_raises: an unroutable publish must fail, the library's default is to confirm it
                channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                await channel.initialize()
                await declare(channel, self._address.topology)
                underlay = cast("Channel", await channel.get_underlay_channel())
                await self._open(underlay)
            self._up.set()
            log.info("broker_connected", link=self._name)
            await self._until_lost(underlay)
        finally:
            self._up.clear()
            self._closed()
            with suppress(*_LOST):
                await asyncio.wait_for(connection.close(), _CLOSE_TIMEOUT_S)
        log.warning("broker_connection_lost", link=self._name)

    async def _until_lost(self, channel: Channel) -> None:
        while not self._lost.is_set() and not channel.is_closed and self._is_working(channel):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._lost_or(channel), _WATCH_INTERVAL_S)

    async def _lost_or(self, channel: Channel) -> None:
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait((lost, channel.closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()

    @abstractmethod
    async def _open(self, channel: Channel) -> None: ...

    @abstractmethod
    def _closed(self) -> None: ...

    def _is_working(self, channel: Channel) -> bool:
        return not channel.is_closed


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


class Publisher(Link):
    """Publishes with mandatory routing, publisher confirms and a timeout."""

    def __init__(self, address: BrokerAddress, *, timeout_s: float) -> None:
        super().__init__(address, "publisher")
        self._timeout_s = timeout_s
        self._channel: Channel | None = None

    async def _open(self, channel: Channel) -> None:
        self._channel = channel

    def _closed(self) -> None:
        self._channel = None

    async def publish(self, message: Message) -> None:
        """Return once the broker has confirmed the message in every queue it was routed to.

        A publish that timed out gives its channel up: the library ties returns to publishes by message id, so the same id
        must never be in flight twice on one channel.

        Raises:
            BrokerUnavailableError: not connected, refused, unroutable, or not confirmed in time; it may have arrived.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        properties = Basic.Properties(
            content_type=message.content_type,
            delivery_mode=_PERSISTENT,
            message_id=message.message_id,
            headers=dict(message.headers) or None,
        )
        try:
            confirmation = await channel.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                properties=properties,
                mandatory=True,
                timeout=self._timeout_s,
            )
        except TimeoutError as error:
            self.recycle()
            raise BrokerUnavailableError(f"RabbitMQ did not confirm within {self._timeout_s:g} s") from error
        except _LOST as error:
            raise BrokerUnavailableError(f"RabbitMQ refused a message for {message.exchange or message.routing_key}") from error
        if not isinstance(confirmation, Basic.Ack):
            raise BrokerUnavailableError(f"RabbitMQ answered a publish with {type(confirmation).__name__}")

    async def publish_all(self, messages: Iterable[Message]) -> None:
        """Publish messages patiently, so many at a time that none times out for waiting behind the others."""
        free = asyncio.Semaphore(_PUBLISHES_IN_FLIGHT)

        async def one(message: Message) -> None:
            async with free:
                await self.publish_patiently(message)

        async with asyncio.TaskGroup() as group:
            for message in messages:
                group.create_task(one(message))

    async def publish_patiently(self, message: Message) -> None:
        """Publish, and try again for as long as it takes: an outage is waited out, never turned into a loss."""
        for attempt in itertools.count():
            await self.wait_up()
            try:
                return await self.publish(message)
            except BrokerUnavailableError as error:
                log.warning("publish_retry", message_id=message.message_id, attempt=attempt, detail=str(error))
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
        raise AssertionError("count() does not end")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that stays ours until it is acked, or until its channel is gone and the broker delivers it again."""

    body: bytes
    headers: Mapping[str, object]
    routing_key: str
    tag: int
    channel: Channel

    async def ack(self, *, with_all_before: bool = False) -> None:
        """Settle it. On a channel that is gone this does nothing: the message comes again."""
        with suppress(*_LOST):
            await self.channel.basic_ack(self.tag, multiple=with_all_before, wait=False)


class Consumer(Link):
    """Consumes one queue. Deliveries of a lost channel are forgotten: the broker has requeued them."""

    def __init__(
        self, address: BrokerAddress, queue: str, *, prefetch: int, arguments: Mapping[str, HeaderValue] | None = None
    ) -> None:
        super().__init__(address, f"consumer of {queue}")
        self._queue = queue
        self._prefetch = prefetch
        self._arguments = dict(arguments or {})
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self._tag: str | None = None
        self._channel: Channel | None = None
        self._stopping = False

    async def _open(self, channel: Channel) -> None:
        self._channel = channel
        if self._stopping:
            return
        await channel.basic_qos(prefetch_count=self._prefetch)
        consumed = await channel.basic_consume(self._queue, self._deliver, arguments=dict(self._arguments) or None)
        self._tag = consumed.consumer_tag

    def _closed(self) -> None:
        self._channel = None
        while not self._waiting.empty():
            self._waiting.get_nowait()

    def _is_working(self, channel: Channel) -> bool:
        # A queue that was deleted or moved cancels its consumer while the channel stays open.
        return not channel.is_closed and (self._stopping or self._tag in channel.consumers)

    async def _deliver(self, message: DeliveredMessage) -> None:
        tag = message.delivery_tag
        if tag is None or message.channel is not self._channel:
            return  # not ours to settle: it belongs to a channel that is gone
        headers = message.header.properties.headers or {}
        self._waiting.put_nowait(Delivery(message.body, headers, message.routing_key or "", tag, message.channel))

    async def get(self) -> Delivery:
        """Wait for the next delivery."""
        return await self._waiting.get()

    def get_waiting(self, max_bytes: int) -> list[Delivery]:
        """Take what has arrived already, until the bodies add up to `max_bytes`."""
        taken: list[Delivery] = []
        while not self._waiting.empty() and max_bytes > 0:
            taken.append(self._waiting.get_nowait())
            max_bytes -= len(taken[-1].body)
        return taken

    async def stop_intake(self) -> None:
        """Ask for no more deliveries; those taken can still be acked, the rest goes back when the connection closes."""
        self._stopping = True
        if self._channel is not None and self._tag is not None:
            with suppress(*_LOST):
                await self._channel.basic_cancel(self._tag, timeout=_CLOSE_TIMEOUT_S)
        while not self._waiting.empty():
            self._waiting.get_nowait()
