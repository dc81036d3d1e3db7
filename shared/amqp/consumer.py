"""Consumes one queue or stream with explicit acks.

Consumers and publishers have separate connections. Under a memory or disk alarm RabbitMQ stops reading connections that
publish, and would not see acks sent on them.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from callfold_client.stream_end import StreamEnd
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.channel_requests import broker_request
from shared.amqp.connection import BrokerAddress, BrokerConnection, GoHome
from shared.amqp.delivery import Delivery, marker_round
from shared.amqp.in_flight import InFlight
from shared.amqp.plain_connection import CLOSE_TIMEOUT_S
from shared.amqp.stream_end import latest_end
from shared.errors import BrokerUnavailableError, StoreUnavailableError
from shared.log import get_logger

log = get_logger(__name__)

_RESUBSCRIBE_AFTER_S = 15
_ANSWER_TIMEOUT_S = 10
_RENEW_POLL_S = 0.05
Arguments = Mapping[str, HeaderValue]


class Consumer(BrokerConnection):
    """Consumes one queue. Deliveries of a lost channel are discarded, since RabbitMQ has requeued them.

    What was delivered before the connection moved, or before the prefetch changed, has its own `in_flight` and channel.

    A stream that delivers nothing for a while is subscribed again. After a broker was killed, a stream can accept publishes and
    deliver none of them to a consumer whose connection looks open.
    """

    def __init__(
        self,
        address: BrokerAddress,
        queue: str,
        *,
        prefetch: int,
        arguments: Arguments | Callable[[], Arguments] | None = None,
        register: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare the consumer.

        `arguments` that change, such as the offset to resume from, are a function that is called on each connection. Only a queue
        with such a function is a stream that can be subscribed again.
        `register` is called with the name of each new channel before it consumes.
        """
        super().__init__(address, f"consumer of {queue}")
        self.queue = queue
        self._prefetch = self._wanted_prefetch = prefetch
        self._arguments = arguments if callable(arguments) else lambda: arguments or {}
        self._can_resubscribe = callable(arguments)
        self._last_delivery_at = 0.0
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self._tag: str | None = None
        self._is_stopping = False
        self._register = register
        self.in_flight = InFlight("")
        self._left_in_flight: list[InFlight] = []

    def set_prefetch(self, prefetch: int) -> None:
        """Consume with another prefetch soon, on the same channel. RabbitMQ takes it for a new consumer only.

        If it is smaller, the new consumer begins when no more than that is in flight.
        """
        self._wanted_prefetch = prefetch
        self._attention.set()

    @property
    def prefetch(self) -> int:
        """The prefetch that was set last."""
        return self._wanted_prefetch

    def take_settled(self) -> list[str]:
        """Return, once, the registered names under which this no longer consumes, and of which nothing is in flight."""
        settled = [left.consumer for left in self._left_in_flight if left.is_empty]
        self._left_in_flight = [left for left in self._left_in_flight if not left.is_empty]
        return settled

    async def _on_open(self, channel: Channel) -> None:
        if self._is_stopping:
            return
        self._prefetch = self._wanted_prefetch
        self.in_flight = InFlight(f"{self._name}/{uuid.uuid4().hex}")
        await channel.basic_qos(prefetch_count=self._prefetch)
        if self._register is not None:
            await self._register(self.in_flight.consumer)
        await self._consume(channel)

    async def _consume(self, channel: Channel) -> None:
        consumed = await channel.basic_consume(
            self.queue,
            self._deliver,
            arguments=dict(self._arguments()) or None,
            consumer_tag=self._new_tag(),
            timeout=_ANSWER_TIMEOUT_S,
        )
        self._tag = consumed.consumer_tag
        self._last_delivery_at = time.monotonic()

    def _new_tag(self) -> str | None:
        """Return the tag to consume with; None leaves it to the library."""
        return None

    @property
    def _goes_home(self) -> GoHome:
        # A stream is read again from where it was, so a reconnect loses nothing and repeats nothing.
        return GoHome.RECONNECT if self._can_resubscribe else GoHome.MOVE

    def _is_movable(self, channel: Channel) -> bool:
        del channel
        return not self._is_stopping

    async def _leave(self) -> Callable[[], bool]:
        """Stop deliveries on the current channel. Those in flight are acked on it."""
        in_flight, channel, tag = self.in_flight, self._channel, self._tag
        if channel is not None and tag is not None:
            self._tag = None
            await channel.basic_cancel(tag, timeout=_ANSWER_TIMEOUT_S)
            self._forget_later(in_flight)
        return lambda: in_flight.is_empty

    def _forget_later(self, in_flight: InFlight) -> None:
        if self._register is not None:
            self._left_in_flight.append(in_flight)

    async def _before_close(self, channel: Channel) -> None:
        """Wait for an answer behind the last acks: one that the end of its consumer or connection follows at once is lost."""
        if channel.is_closed:
            return
        with suppress(BrokerUnavailableError), broker_request(f"Cannot confirm the acks of {self.queue}"):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await channel.flow(active=True)  # it is so already, and needs no permission

    def _on_close(self, channel: Channel | None) -> None:
        """Drop what the lost channel delivered. A connection that was left may still be open, so its deliveries stay."""
        self._tag = None
        self._left_in_flight.clear()
        waiting = self._take_waiting()
        for delivery in waiting:
            if delivery.channel is not channel and not delivery.channel.is_closed:
                self._waiting.put_nowait(delivery)

    @property
    def _watch_interval_s(self) -> float:
        return super()._watch_interval_s if self._tag is not None or self._is_stopping else _RENEW_POLL_S

    async def _renew(self, channel: Channel) -> bool:
        """Consume again on the same channel, with the prefetch that is wanted; False if RabbitMQ does not answer."""
        try:
            with broker_request(f"Cannot consume {self.queue}"):
                if self._tag is not None:
                    await self._leave()
                if len(self.in_flight) <= self._wanted_prefetch:
                    await self._on_open(channel)
                if self._is_stopping and self._tag is not None:
                    await channel.basic_cancel(self._tag, timeout=CLOSE_TIMEOUT_S)
        except BrokerUnavailableError as error:
            log.warning("consumer_not_renewed", connection=self._name, detail=str(error))
            return False
        except StoreUnavailableError as error:  # it must be registered first; the next attempt follows
            self._forget_later(self.in_flight)
            self._unregistered.failed(str(error), connection=self._name)
        else:
            self._unregistered.succeeded()
        return True

    async def _is_working(self, channel: Channel) -> bool:
        if self._is_stopping:
            return not channel.is_closed
        is_silent = time.monotonic() - self._last_delivery_at > _RESUBSCRIBE_AFTER_S
        # While deliveries are in flight, the stream may only be waiting for credit.
        if self._can_resubscribe and is_silent and self.in_flight.is_empty and self._tag is not None:
            return await self._resubscribe(channel, self._tag)
        if self._tag is None or self._wanted_prefetch != self._prefetch:
            return await self._renew(channel)
        # RabbitMQ cancels the consumer of a queue that was deleted or moved, while the channel stays open.
        return not channel.is_closed and self._tag in channel.consumers

    async def _resubscribe(self, channel: Channel, tag: str) -> bool:
        """Consume again on the same channel; False if RabbitMQ does not answer, so that the connection must be replaced."""
        try:
            with broker_request(f"Cannot consume {self.queue}"):
                await channel.basic_cancel(tag, timeout=_ANSWER_TIMEOUT_S)
                await self._consume(channel)
        except BrokerUnavailableError as error:
            log.warning("stream_not_resubscribed", connection=self._name, detail=str(error))
            return False
        log.debug("stream_resubscribed", connection=self._name)
        return True

    async def _deliver(self, message: DeliveredMessage) -> None:
        tag = message.delivery_tag
        if tag is None or message.channel is not self._channel:
            return  # delivered on a lost channel, so it can no longer be settled
        self._last_delivery_at = time.monotonic()
        headers = message.header.properties.headers or {}
        delivery = Delivery(message.body, headers, message.routing_key or "", tag, message.channel, self.in_flight)
        self.in_flight.add(tag, marker_round(headers) if delivery.is_marker else None)
        self._waiting.put_nowait(delivery)

    async def get(self) -> Delivery:
        """Wait for the next delivery."""
        return await self._waiting.get()

    def get_waiting(self, max_bytes: int) -> list[Delivery]:
        """Return deliveries that have arrived, until their bodies add up to `max_bytes`."""
        deliveries: list[Delivery] = []
        while not self._waiting.empty() and max_bytes > 0:
            deliveries.append(self._waiting.get_nowait())
            max_bytes -= len(deliveries[-1].body)
        return deliveries

    def has_waiting(self) -> bool:
        """Return whether a delivery has arrived that was not returned yet."""
        return not self._waiting.empty()

    async def stream_end(self) -> int | None:
        """Return the offset of the last message that the connected server has, or None if it has none. This publishes nothing.

        When this returns, the first delivery to this consumer has arrived, unless the stream ends before the requested offset.

        Raises:
            BrokerUnavailableError: not connected, or RabbitMQ does not answer.
        """
        channel = self._channel
        if channel is None:
            raise BrokerUnavailableError(f"Cannot read {self.queue}: RabbitMQ is not connected")
        with broker_request(f"Cannot find the end of {self.queue}"):
            end = await StreamEnd(channel, self.queue, self._prefetch).find()
        if channel is not self._channel or channel.is_closed:
            raise BrokerUnavailableError(f"Cannot find the end of {self.queue}: the connection to RabbitMQ was lost")
        return end

    async def latest_stream_end(self) -> int | None:
        """Return the offset of the last message of the stream at any server of the address, or None if it is empty.

        The replica that this consumer reads can be behind. A server that does not answer soon is left out.

        Raises:
            BrokerUnavailableError: not connected, or fewer than half of the servers answer.
        """
        end, urls = await self.stream_end(), self.address.urls
        latest = await latest_end(urls, self.queue) if len(urls) > 1 else None
        return end if latest is None else max(latest, -1 if end is None else end)

    async def stop_intake(self) -> None:
        """Stop deliveries; those already returned can still be acked, the others are requeued when the connection closes."""
        self._is_stopping = True
        if self._channel is not None and self._tag is not None:
            await self._before_close(self._channel)
            with suppress(BrokerUnavailableError), broker_request(f"Cannot cancel the consumer of {self.queue}"):
                await self._channel.basic_cancel(self._tag, timeout=CLOSE_TIMEOUT_S)
        self._take_waiting()

    def _take_waiting(self) -> list[Delivery]:
        return [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]
