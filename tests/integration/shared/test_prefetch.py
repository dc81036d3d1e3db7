"""A consumer changes its prefetch on the same channel, on a real RabbitMQ: nothing is lost, and another consumer gets its share."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import pytest_asyncio

from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS_FOLD, topology
from shared.runtime.process import background
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import RETRY_S, Servers, eventually
from worker.folding.prefetch import FEWEST_MESSAGES, MOST_MESSAGES, FoldPrefetch


@pytest_asyncio.fixture
async def address(rabbitmq_only: Servers) -> BrokerAddress:
    return BrokerAddress((rabbitmq_only.stack.amqp_url,), topology(RETRY_S), "tests")


@pytest_asyncio.fixture
async def publisher(address: BrokerAddress) -> AsyncIterator[Publisher]:
    publisher = Publisher(address, timeout_s=LIMIT_S)
    async with background(publisher.run()):
        await publisher.wait_until_up()
        yield publisher


class Folding:
    """A consumer as a worker has it. Its deliveries are taken and acked by the test."""

    def __init__(self, address: BrokerAddress, prefetch: int) -> None:
        self.registered: list[str] = []
        self.consumer = Consumer(address, CALLBACKS_FOLD, prefetch=prefetch, register=self._register)
        self.prefetch = FoldPrefetch(self.consumer)

    async def _register(self, name: str) -> None:
        self.registered.append(name)

    async def take(self, count: int) -> list[Delivery]:
        return [await asyncio.wait_for(self.consumer.get(), LIMIT_S) for _ in range(count)]

    async def holds(self, is_enough: Callable[[int], bool]) -> int:
        """Wait until enough deliveries have arrived; returns how many there are."""

        async def arrived() -> bool:
            return is_enough(self.consumer._waiting.qsize())

        await eventually(arrived)
        return self.consumer._waiting.qsize()


async def _publish(publisher: Publisher, count: int) -> list[bytes]:
    bodies = [b"%d" % number for number in range(count)]
    await publisher.publish_until_confirmed(Message("", CALLBACKS_FOLD, body, uuid.uuid4().hex) for body in bodies)
    return bodies


async def test_a_worker_that_starts_during_a_backlog_of_large_messages_gets_its_share_at_once(
    address: BrokerAddress, publisher: Publisher
) -> None:
    await _publish(publisher, 60)
    first, second = Folding(address, FEWEST_MESSAGES), Folding(address, FEWEST_MESSAGES)
    async with background(first.consumer.run()):
        taken = await first.take(4)
        first.prefetch.observe(4, 4 * 500)
        await first.holds(lambda waiting: waiting == FEWEST_MESSAGES - 4)
        async with background(second.consumer.run()):
            await second.holds(lambda waiting: waiting == FEWEST_MESSAGES)
        assert len(first.consumer.in_flight) * 500 <= 4000
        for delivery in taken:
            await delivery.ack()


async def test_a_backlog_of_large_messages_after_small_ones_shrinks_what_is_in_flight(
    address: BrokerAddress, publisher: Publisher
) -> None:
    bodies = await _publish(publisher, 300)
    folding = Folding(address, FEWEST_MESSAGES)
    seen: list[bytes] = []

    async def fold(deliveries: list[Delivery], callbacks: int) -> None:
        folding.prefetch.observe(len(deliveries), callbacks * len(deliveries))
        for delivery in deliveries:
            seen.append(delivery.body)
            await delivery.ack()

    async with background(folding.consumer.run()):
        await fold(await folding.take(FEWEST_MESSAGES), 1)
        await folding.holds(lambda waiting: waiting >= MOST_MESSAGES)
        waiting_after: list[int] = []
        while len(seen) < len(bodies):
            await fold(await folding.take(1), 500)
            if len(folding.registered) > 2:  # the first consumers are cancelled
                waiting_after.append(folding.consumer._waiting.qsize())
        # Each comes once. What RabbitMQ sends to a cancelled consumer can arrive after the first messages for the new one.
        assert sorted(seen, key=int) == bodies
        assert folding.consumer.prefetch * 500 <= 6000
        assert waiting_after
        assert max(waiting_after) * 500 <= 2 * 6000
        settled: set[str] = set()

        async def are_settled() -> bool:
            settled.update(folding.consumer.take_settled())
            return settled == set(folding.registered[:-1])

        await eventually(are_settled)
        assert folding.consumer.sessions == 1
