"""Connections go back to their home address when it answers again: nothing fails meanwhile, and nothing is delivered twice."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from shared.amqp import connection, hosts
from shared.amqp.connection import BrokerAddress, BrokerConnection
from shared.amqp.consumer import Consumer
from shared.amqp.hosts import HostWatch
from shared.amqp.publisher import Message, Publisher
from shared.amqp.session import Session, open_session
from shared.amqp.topology import CALLBACKS, CALLBACKS_DEAD, CALLBACKS_FOLD, CALLS_JOURNAL, Topology, topology
from shared.runtime.process import background
from tests.helpers.forwarder import Forwarder
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.servers import RETRY_S, Servers, eventually


class Addresses:
    """Two addresses of one broker. The first is everyone's home, and is away at first."""

    def __init__(self, home: Forwarder, other: Forwarder) -> None:
        self.home, self.other = home, other
        urls = (home.amqp_url, other.amqp_url)
        self.watch = HostWatch(urls)
        self.address = BrokerAddress(urls, topology(RETRY_S), "tests", self.watch)

    async def has_moved(self, moved: BrokerConnection) -> None:
        async def is_home() -> bool:
            return moved._session is not None and moved._session.url == self.home.amqp_url

        await eventually(is_home)

    async def other_is_left(self) -> None:
        async def is_left() -> bool:
            return self.other.connections == 0

        await self.other_is_not_probed()
        await eventually(is_left)

    async def other_is_not_probed(self) -> None:
        self.watch._urls = (self.home.amqp_url,)


@pytest_asyncio.fixture
async def addresses(rabbitmq_only: Servers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Addresses]:
    monkeypatch.setattr("random.sample", lambda urls, _: list(urls))
    for name, seconds in (("_SPREAD_S", 0.1), ("_WATCH_INTERVAL_S", 0.05), ("_LINGER_S", 0.2), ("_SETTLE_POLL_S", 0.05)):
        monkeypatch.setattr(connection, name, seconds * PACE)
    monkeypatch.setattr(hosts, "_INTERVAL_S", 0.1 * PACE)
    monkeypatch.setattr(hosts, "_STABLE_S", 0.2 * PACE)
    port = rabbitmq_only.stack.rabbitmq.port
    async with Forwarder(port) as home, Forwarder(port) as other:
        await other.open()
        yield Addresses(home, other)


async def test_a_publisher_goes_home_and_no_publish_fails(addresses: Addresses, rabbitmq_only: Servers) -> None:
    publisher = Publisher(addresses.address, timeout_s=LIMIT_S)
    published: list[bytes] = []
    stop = asyncio.Event()

    async def publish() -> None:
        while not stop.is_set():
            body = b"%d" % len(published)
            await publisher.publish(Message("", CALLBACKS_DEAD, body, uuid.uuid4().hex))  # raises if it fails
            published.append(body)

    async with background(publisher.run(), addresses.watch.run()):
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
        publishing = [asyncio.create_task(publish()) for _ in range(5)]
        await addresses.home.open()
        await addresses.has_moved(publisher)
        moved_at = len(published)

        async def goes_on() -> bool:
            return len(published) > moved_at + 20

        await eventually(goes_on)
        stop.set()
        await asyncio.gather(*publishing)
        await addresses.other_is_left()
        assert publisher.sessions == 1  # so that no timer is held
    assert len(await rabbitmq_only.take_all(CALLBACKS_DEAD)) == len(published)


async def test_a_consumer_goes_home_and_finishes_what_is_in_flight_where_it_was_delivered(
    addresses: Addresses, rabbitmq_only: Servers
) -> None:
    registered: list[str] = []

    async def register(name: str) -> None:
        registered.append(name)

    consumer = Consumer(addresses.address, CALLBACKS_FOLD, prefetch=4, register=register)
    publisher = Publisher(BrokerAddress((rabbitmq_only.stack.amqp_url,), topology(RETRY_S), "tests"), timeout_s=LIMIT_S)
    async with background(publisher.run(), consumer.run(), addresses.watch.run()):
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
        await publisher.publish_until_confirmed(Message(CALLBACKS, "", b"%d" % number, uuid.uuid4().hex) for number in range(8))
        before = [await asyncio.wait_for(consumer.get(), LIMIT_S) for _ in range(2)]
        await addresses.home.open()
        await addresses.has_moved(consumer)
        after = [await asyncio.wait_for(consumer.get(), LIMIT_S) for _ in range(6)]
        assert addresses.other.connections  # for the two that are not acked
        assert [delivery.body for delivery in (*before, *after)] == [b"%d" % number for number in range(8)]
        for delivery in (*before, *after):
            await delivery.ack()
        await addresses.other_is_left()
        assert (len(registered), consumer.sessions, consumer.in_flight.is_empty) == (2, 1, True)
    assert await rabbitmq_only.take_all(CALLBACKS_FOLD) == []


async def test_the_reader_of_a_stream_goes_home_and_reads_on_from_where_it_was(
    addresses: Addresses, rabbitmq_only: Servers
) -> None:
    read: list[int] = []

    def position() -> dict[str, str | int]:
        return {"x-stream-offset": read[-1] + 1 if read else "next"}

    consumer = Consumer(addresses.address, CALLS_JOURNAL, prefetch=10, arguments=position)
    publisher = Publisher(BrokerAddress((rabbitmq_only.stack.amqp_url,), topology(RETRY_S), "tests"), timeout_s=LIMIT_S)

    async def publish_and_read(body: bytes) -> None:
        await publisher.publish(Message("", CALLS_JOURNAL, body, uuid.uuid4().hex))
        delivery = await asyncio.wait_for(consumer.get(), LIMIT_S)
        while delivery.offset <= (read[-1] if read else -1):  # the beginning of a chunk
            delivery = await asyncio.wait_for(consumer.get(), LIMIT_S)
        assert delivery.body == body
        await delivery.ack()
        read.append(delivery.offset)

    async with background(publisher.run(), consumer.run(), addresses.watch.run()):
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
        await asyncio.wait_for(consumer.wait_until_up(), LIMIT_S)
        await publish_and_read(b"before")
        await addresses.home.open()
        await addresses.has_moved(consumer)
        await publish_and_read(b"after")


async def test_a_connection_whose_home_does_not_take_it_stays_where_it_is(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    async def refuse_home(url: str, topology: Topology, name: str) -> Session:
        if url == addresses.home.amqp_url:
            tried.append(url)
            raise ConnectionError("refused")
        return await open_session(url, topology, name)

    monkeypatch.setattr(connection, "open_session", refuse_home)
    publisher = Publisher(addresses.address, timeout_s=LIMIT_S)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(background(publisher.run(), addresses.watch.run()))
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
        await addresses.home.open()

        async def has_tried_again() -> bool:
            return len(tried) > 2

        await eventually(has_tried_again)
        await publisher.publish(Message("", CALLBACKS_DEAD, b"x", uuid.uuid4().hex))
        assert publisher.sessions == 1
