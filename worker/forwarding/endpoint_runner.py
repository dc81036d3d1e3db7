"""Delivers the events of one endpoint: from a delivery to the ack. Another endpoint never waits for it.

An event is acked when it is delivered, or when RabbitMQ has confirmed its copy in a retry queue or in `forward.dead`. So
`kill -9` at any point repeats an attempt at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from shared import metrics
from shared.amqp.connection import BrokerAddress, GoHome
from shared.amqp.consumer import Consumer
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Publisher
from shared.amqp.server_check import check_server
from shared.amqp.topology import endpoint_topology, forward_queue
from shared.clock import utc_now
from shared.config.endpoint_options import Order
from shared.config.endpoints import Endpoint
from shared.crash_points import crash_point
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.runtime.process import background, wait_at_most
from shared.webhooks.stream_follower import StreamFollower
from worker.forwarding.breaker import Breaker
from worker.forwarding.call_order import CallOrder
from worker.forwarding.consequence import Answer, Disable
from worker.forwarding.outgoing_event import OutgoingEvent
from worker.forwarding.poster import Poster
from worker.forwarding.selection import Selection
from worker.forwarding.settlement import Settlement

log = get_logger(__name__)

_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Common:
    """The parts that the runners of a process share.

    Attributes:
        address: of RabbitMQ; its topology is not used.
        schedule_s: delays before the retries.
        order: the events that wait, which `follower` reads from their stream.
    """

    address: BrokerAddress
    publisher: Publisher
    schedule_s: Sequence[float]
    order: CallOrder
    follower: StreamFollower


class EndpointConsumer(Consumer):
    """The consumer of an endpoint's queue. It never leaves a channel while deliveries are in flight on it.

    Then another forwarder would become the active consumer, and send a later event of a call before the earlier one.
    """

    @property
    def _goes_home(self) -> GoHome:
        return GoHome.NEVER


class EndpointRunner:
    """Consumes the queue of one endpoint until it is stopped, disabled, or cancelled.

    Attributes:
        is_disabled: the endpoint has answered 410.
    """

    def __init__(self, endpoint: Endpoint, common: Common, breaker: Breaker) -> None:
        self.endpoint = endpoint
        declared = endpoint_topology(endpoint.name, endpoint.filters, common.schedule_s)
        self._address = replace(common.address, topology=declared, name=f"{common.address.name} {endpoint.name}")
        declare = partial(check_server, self._address)
        self._settlement = Settlement(endpoint, common.publisher, common.schedule_s, common.order, declare)
        self._selection = Selection(endpoint)
        self._order, self._follower = common.order, common.follower
        self._is_ordered = endpoint.order is Order.CALL
        self._breaker = breaker
        self._lanes: dict[str, tuple[asyncio.Lock, int]] = {}
        self._stopping = asyncio.Event()  # stopped, or disabled by the endpoint
        self._interrupted = asyncio.Event()  # stopping, or the breaker demands a pause
        self.is_disabled = False
        metrics.FORWARD_BREAKER_OPEN.set(breaker.is_open, endpoint.name)

    def stop(self) -> None:
        """Begin no more attempts. `run` returns once those in flight have ended."""
        self._stopping.set()
        self._interrupted.set()

    async def run(self) -> None:
        """Deliver events until stopped.

        Raises:
            ConfigError: the queue exists with other arguments.
        """
        async with Poster(self.endpoint) as poster:
            while not self._stopping.is_set():
                if wait_s := self._breaker.wait_s:
                    await wait_at_most(self._stopping, wait_s)
                    continue
                self._interrupted.clear()
                prefetch = 1 if self._breaker.is_open else self.endpoint.max_in_flight
                consumer = EndpointConsumer(self._address, forward_queue(self.endpoint.name), prefetch=prefetch)
                # When this connection closes, what is unacked returns to its position in the queue.
                async with background(consumer.run()):
                    await self._consume(consumer, poster)

    async def _consume(self, consumer: Consumer, poster: Poster) -> None:
        """Attempt what is delivered, until this is interrupted. Then wait for the attempts in flight."""
        channel: object = None
        was_open = self._breaker.is_open
        async with asyncio.TaskGroup() as group:
            while (delivery := await self._next(consumer)) is not None:
                if self._is_ordered and delivery.channel is not channel:
                    channel = delivery.channel
                    await self._catch_up()
                group.create_task(self._deliver(delivery, poster, was_open=was_open))

    async def _next(self, consumer: Consumer) -> Delivery | None:
        """Wait for the next delivery; None if this is interrupted."""
        getting = asyncio.create_task(consumer.get())
        interrupted = asyncio.create_task(self._interrupted.wait())
        try:
            await asyncio.wait([getting, interrupted], return_when=asyncio.FIRST_COMPLETED)
            return None if self._interrupted.is_set() else getting.result()
        finally:
            for task in (getting, interrupted):
                task.cancel()
            await asyncio.gather(getting, interrupted, return_exceptions=True)

    async def _catch_up(self) -> None:
        """Read to the end which events wait: another forwarder may have been active until now."""
        while not self._stopping.is_set():
            try:
                await self._follower.catch_up()
            except BrokerUnavailableError:
                await wait_at_most(self._stopping, _RETRY_S)
            else:
                return

    async def _deliver(self, delivery: Delivery, poster: Poster, *, was_open: bool) -> None:
        """Process one delivery. Whatever fails, the event is then acked with a consequence, or returns to the queue."""
        name = self.endpoint.name
        try:
            event = OutgoingEvent.of(delivery.body, delivery.headers, delivery.routing_key, name)
        except ValueError as error:
            await self._settlement.refuse(delivery.body, DeadLetterReason.UNDECODABLE, type(error).__name__, delivery.routing_key)
            await delivery.ack()
            return
        try:
            async with self._lane(event.call):
                if not self._interrupted.is_set():
                    await self._process(event, delivery, poster)
        except Exception as fault:  # a bug met by one event must not stop the others
            log.exception("forward_failed", endpoint=name, id=event.id)
            detail = f"{type(fault).__name__}: see the forwarder's log"
            await self._settlement.refuse(delivery.body, DeadLetterReason.FORWARD_FAILED, detail, event.routing_key)
            await self._settlement.release(event)
            await delivery.ack()
        if was_open and not self._breaker.is_open:
            self._interrupted.set()  # consume with the whole prefetch

    async def _process(self, event: OutgoingEvent, delivery: Delivery, poster: Poster) -> None:
        if not self._selection.takes(event):
            await self._settlement.release(event)
            await delivery.ack()
            return
        if self._is_ordered:
            delay_s = self._order.blocked_for(self.endpoint.name, event.call, event.id)
            if delay_s is not None:
                await self._settlement.park(event, delay_s)
                await delivery.ack()
                return
        crash_point("forward.before_post")
        at = utc_now()
        answer = await poster.post(event)
        crash_point("forward.posted")
        self._note(answer)
        consequence = await self._settlement.settle(event, answer, at)
        if isinstance(consequence, Disable):
            self.is_disabled = True
            self.stop()  # unacked, so it returns to the queue
            return
        crash_point("forward.before_ack")
        await delivery.ack()

    def _note(self, answer: Answer) -> None:
        """Record in the breaker how an attempt ended."""
        name = self.endpoint.name
        if answer.is_success:
            if self._breaker.succeeded():
                log.info("endpoint_breaker_closed", endpoint=name)
        elif self._breaker.failed(is_answered=answer.status is not None, retry_after_s=answer.asked_wait_s):
            log.warning("endpoint_breaker_opened", endpoint=name, detail=answer.failure, next_s=round(self._breaker.wait_s, 1))
        metrics.FORWARD_BREAKER_OPEN.set(self._breaker.is_open, name)
        if self._breaker.wait_s:
            self._interrupted.set()

    @asynccontextmanager
    async def _lane(self, call: str) -> AsyncIterator[None]:
        """Keep the events of one call in the order of their deliveries, if the endpoint wants that."""
        if not self._is_ordered:
            yield
            return
        lock, users = self._lanes.get(call) or (asyncio.Lock(), 0)
        self._lanes[call] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._lanes[call]
            if users > 1:
                self._lanes[call] = lock, users - 1
            else:
                del self._lanes[call]
