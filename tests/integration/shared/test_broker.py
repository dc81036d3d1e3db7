"""The door to RabbitMQ, on a real one: confirms, returns, timeouts, deliveries, reconnection."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiormq.channel import Channel
from aiormq.connection import Connection

from shared.amqp import consumer as broker
from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Message, Publisher
from shared.amqp.queue_reader import QueueDepths, QueueReader
from shared.amqp.topology import (
    CALLBACKS,
    CALLBACKS_DEAD,
    CALLBACKS_FOLD,
    CALLS_JOURNAL,
    topology,
)
from shared.errors import BrokerUnavailableError
from shared.runtime.process import background
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.servers import RETRY_S, Servers, eventually


@pytest.fixture
def servers(rabbitmq_only: Servers) -> Servers:
    return rabbitmq_only


def _address(servers: Servers, *more_urls: str) -> BrokerAddress:
    return BrokerAddress((*more_urls, servers.stack.amqp_url), topology(RETRY_S), "tests")


def _message(body: bytes, *, exchange: str = "", routing_key: str = CALLBACKS_DEAD) -> Message:
    return Message(exchange, routing_key, body, uuid.uuid4().hex, headers={"reason": "test"})


@asynccontextmanager
async def _publisher(servers: Servers, *, timeout_s: float = LIMIT_S) -> AsyncIterator[Publisher]:
    publisher = Publisher(_address(servers), timeout_s=timeout_s)
    async with background(publisher.run()):
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
        yield publisher


async def test_a_batch_is_confirmed_message_by_message_and_arrives_whole_persistent_and_in_order(servers: Servers) -> None:
    bodies = [b"%d" % number * (1 + number * 300) for number in range(450)]  # some larger than one frame
    async with _publisher(servers) as publisher:
        await publisher.publish_until_confirmed(_message(body) for body in bodies)
    taken = await servers.take_all(CALLBACKS_DEAD)
    assert list(dict.fromkeys(message.body for message in taken)) == bodies  # one not confirmed in time is sent again
    assert all(message.delivery_mode == 2 and message.headers["reason"] == "test" for message in taken)


async def test_an_unroutable_message_fails_alone(servers: Servers) -> None:
    good = [_message(b"good") for _ in range(5)]
    lost = _message(b"lost", exchange="calls-of-nobody", routing_key="x")
    unroutable = _message(b"nowhere", routing_key="no.such.queue")
    async with _publisher(servers) as publisher:
        failed = await publisher._publish([*good[:2], unroutable, *good[2:]])
        assert [message for message, _ in failed] == [unroutable]
        with pytest.raises(BrokerUnavailableError):
            await publisher.publish(unroutable)
        with pytest.raises(BrokerUnavailableError):
            await publisher.publish(lost)  # an exchange that is not there closes the channel ...
        await asyncio.wait_for(publisher.publish_until_confirmed(good[:1]), LIMIT_S)  # ... and there is a new one
    assert {message.message_id for message in await servers.take_all(CALLBACKS_DEAD)} == {message.message_id for message in good}


async def test_a_broker_that_hangs_fails_the_publish_in_time_and_what_was_sent_is_not_mixed_up_later(servers: Servers) -> None:
    same = _message(b"same id")
    async with _publisher(servers, timeout_s=PACE) as publisher:
        servers.stack.rabbitmq.pause()
        try:
            with pytest.raises(BrokerUnavailableError, match=f"did not confirm within {PACE:g} s"):
                await asyncio.wait_for(publisher.publish(same), LIMIT_S)
            with pytest.raises(BrokerUnavailableError, match="not connected"):
                await publisher.publish(same)
        finally:
            servers.stack.rabbitmq.resume()
        await asyncio.wait_for(publisher.publish_until_confirmed([same]), LIMIT_S)
    assert {message.body for message in await servers.take_all(CALLBACKS_DEAD)} == {b"same id"}


@pytest.mark.parametrize("reason", [asyncio.CancelledError(), None], ids=["cancelled", "bare"])
@pytest.mark.parametrize("request_name", ["publish", "count consumers", "get", "count", "depths", "lock"])
async def test_a_request_that_is_cut_off_by_the_end_of_its_connection_fails_as_an_outage(
    servers: Servers, request_name: str, reason: BaseException | None
) -> None:
    """The library then rejects it: with the cancellation of its reader, or with a bare `Exception`."""
    publisher = Publisher(_address(servers), timeout_s=LIMIT_S)
    getter, depths = QueueReader(_address(servers), CALLBACKS_DEAD), QueueDepths(_address(servers))
    requests: dict[str, tuple[Publisher | QueueReader | QueueDepths, Callable[[], Coroutine[Any, Any, object]]]] = {
        "publish": (publisher, lambda: publisher.publish(_message(b"1"), _message(b"2"))),
        "count consumers": (publisher, lambda: publisher.count_consumers(CALLBACKS_FOLD)),
        "get": (getter, getter.get),
        "count": (getter, getter.count),
        "depths": (depths, lambda: depths.count([CALLBACKS_DEAD])),
        "lock": (getter, lambda: getter.try_lock("turn")),
    }
    connection, request = requests[request_name]
    async with background(connection.run()):
        await asyncio.wait_for(connection.wait_until_up(), LIMIT_S)
        channel = cast("Channel", connection._channel)
        servers.stack.rabbitmq.pause()
        try:
            pending = asyncio.ensure_future(request())
            for _ in range(50):
                await asyncio.sleep(0)  # until it is written, and waits for its answer
            await eventually(lambda: _is_rejected(channel, reason, pending))
        finally:
            servers.stack.rabbitmq.resume()
        with pytest.raises(BrokerUnavailableError, match=r"the connection to RabbitMQ was lost$"):
            await pending


async def _is_rejected(channel: Channel, reason: BaseException | None, pending: asyncio.Future[Any]) -> bool:
    """Have the library reject what is pending, as it does when its connection ends; whether it was."""
    await cast("Connection", channel.connection)._cancel_tasks(reason)
    return pending.done()


async def test_without_a_connection_a_publish_fails_at_once(servers: Servers) -> None:
    publisher = Publisher(BrokerAddress(("amqp://127.0.0.1:1/",), topology(RETRY_S), "tests"), timeout_s=2 * LIMIT_S)
    async with background(publisher.run()):
        with pytest.raises(BrokerUnavailableError, match="not connected"):
            await asyncio.wait_for(publisher.publish(_message(b"x")), LIMIT_S)  # sooner than its time-out


async def test_the_next_address_is_tried_when_one_does_not_answer(servers: Servers) -> None:
    publisher = Publisher(_address(servers, "amqp://127.0.0.1:1/"), timeout_s=LIMIT_S)
    async with background(publisher.run()):
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)


async def test_acks_that_meet_the_end_of_their_connection_wait_for_nothing_and_all_comes_again(servers: Servers) -> None:
    """More of them than the library's queue of frames holds, when what empties that queue has just ended."""
    bodies = {b"%d" % number for number in range(50)}
    async with _publisher(servers) as publisher:
        await publisher.publish_until_confirmed(_message(body, exchange=CALLBACKS, routing_key="") for body in bodies)
    consumer = Consumer(_address(servers), CALLBACKS_FOLD, prefetch=50)
    async with background(consumer.run()):
        deliveries = [await asyncio.wait_for(consumer.get(), LIMIT_S) for _ in bodies]
        cast("Connection", deliveries[0].channel.connection)._writer_task.cancel()
        async with asyncio.timeout(LIMIT_S):
            for delivery in deliveries:
                await delivery.ack()
            again = {(await consumer.get()).body for _ in bodies}
    assert again == bodies


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_an_ack_that_the_end_of_its_consumer_follows_at_once_is_not_lost(servers: Servers, *, is_cancelled: bool) -> None:
    bodies = [b"%d" % number for number in range(12)]
    async with _publisher(servers) as publisher:
        await publisher.publish_until_confirmed(_message(body, exchange=CALLBACKS, routing_key="") for body in bodies)
    taken: list[bytes] = []
    async with asyncio.timeout(LIMIT_S):
        for _ in range(3):
            consumer = Consumer(_address(servers), CALLBACKS_FOLD, prefetch=8)
            async with background(consumer.run()):
                for delivery in [await consumer.get() for _ in range(4)]:  # nothing may pass the time between an ack and the end
                    taken.append(delivery.body)
                    await delivery.ack()
                if is_cancelled:
                    await consumer.stop_intake()
    assert sorted(taken) == sorted(bodies)


async def test_what_was_not_acked_comes_again(servers: Servers) -> None:
    async with _publisher(servers) as publisher:
        await publisher.publish_until_confirmed(_message(b"%d" % n, exchange=CALLBACKS, routing_key="") for n in range(5))
    first = Consumer(_address(servers), CALLBACKS_FOLD, prefetch=10)
    async with background(first.run()):
        deliveries = [await asyncio.wait_for(first.get(), LIMIT_S) for _ in range(5)]
        for delivery in deliveries[:3]:
            await delivery.ack()
    second = Consumer(_address(servers), CALLBACKS_FOLD, prefetch=10)
    async with background(second.run()):
        again = [await asyncio.wait_for(second.get(), LIMIT_S) for _ in range(2)]
        for delivery in again:
            await delivery.ack()
    assert sorted(delivery.body for delivery in again) == [b"3", b"4"]
    assert await servers.take_all(CALLBACKS_FOLD) == []


async def test_a_consumer_resumes_after_the_broker_was_killed_and_an_old_ack_does_no_harm(servers: Servers) -> None:
    consumer = Consumer(_address(servers), CALLBACKS_FOLD, prefetch=10)
    async with _publisher(servers) as publisher, background(consumer.run()):
        await publisher.publish(_message(b"kept", exchange=CALLBACKS, routing_key=""))
        old = await asyncio.wait_for(consumer.get(), LIMIT_S)
        await servers.stack.rabbitmq.kill()
        await servers.stack.rabbitmq.start()
        again = await asyncio.wait_for(consumer.get(), LIMIT_S)
        assert again.body == b"kept"
        await old.ack()
        await again.ack()
    assert await servers.take_all(CALLBACKS_FOLD) == []


async def test_stop_intake_gives_back_what_was_not_taken(servers: Servers) -> None:
    consumer = Consumer(_address(servers), CALLBACKS_FOLD, prefetch=10)
    async with _publisher(servers) as publisher:
        await publisher.publish_until_confirmed(_message(b"%d" % n, exchange=CALLBACKS, routing_key="") for n in range(4))
    async with background(consumer.run()):
        one = await asyncio.wait_for(consumer.get(), LIMIT_S)
        await consumer.stop_intake()
        await one.ack()
    bodies: list[bytes] = []

    async def are_back() -> bool:
        bodies.extend([message.body for message in await servers.take_all(CALLBACKS_FOLD)])
        return len(bodies) >= 3

    await eventually(are_back)
    assert bodies == [b"1", b"2", b"3"]


async def test_a_broker_that_closes_while_a_channel_opens_is_tried_again(servers: Servers) -> None:
    """The library ends this in a bare `Exception`; the connection must outlive it and connect once the broker behaves."""
    upstream = int(servers.stack.amqp_url.rsplit(":", 1)[1].strip("/"))
    cut, refused = True, 0
    handled: list[asyncio.Future[tuple[BaseException | None, BaseException | None]]] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", upstream)

        async def up() -> None:
            while data := await reader.read(65536):
                far_writer.write(data)
            far_writer.close()
            writer.close()

        async def down() -> None:
            nonlocal refused
            while data := await far_reader.read(65536):
                writer.write(data)
                if cut and b"\x00\x0a\x00\x29" in data:  # Connection.OpenOk: class 10, method 41
                    refused += 1
                    break
            writer.close()

        handled.append(asyncio.gather(up(), down(), return_exceptions=True))
        await handled[-1]
        far_writer.close()
        await asyncio.gather(far_writer.wait_closed(), writer.wait_closed(), return_exceptions=True)

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    publisher = Publisher(
        BrokerAddress((f"amqp://guest:guest@127.0.0.1:{port}/",), topology(RETRY_S), "tests"), timeout_s=LIMIT_S
    )

    async def was_refused() -> bool:
        return refused >= 2

    async with background(publisher.run()):
        await eventually(was_refused)
        cut = False
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
    server.close()
    await asyncio.wait_for(asyncio.gather(*handled), LIMIT_S)


async def test_what_a_slow_broker_has_confirmed_is_not_sent_again(servers: Servers) -> None:
    """Only the first messages get through at first; then their confirms, and no others, come back."""
    upstream = int(servers.stack.amqp_url.rsplit(":", 1)[1].strip("/"))
    is_slow, confirmed, ended = False, asyncio.Event(), asyncio.Event()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", upstream)

        async def up() -> None:
            while data := await reader.read(65536):
                far_writer.write(data)
                if is_slow:
                    await confirmed.wait()
            far_writer.close()

        async def down() -> None:
            while data := await far_reader.read(65536):
                if not confirmed.is_set():
                    writer.write(data)
                if is_slow and b"\x00\x3c\x00\x50" in data:  # Basic.Ack: class 60, method 80
                    confirmed.set()
            writer.close()

        await asyncio.gather(up(), down(), return_exceptions=True)
        await asyncio.gather(far_writer.wait_closed(), writer.wait_closed(), return_exceptions=True)
        ended.set()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    messages = [_message(b"%d" % number * 20_000) for number in range(100)]
    address = BrokerAddress((f"amqp://guest:guest@127.0.0.1:{port}/",), topology(RETRY_S), "tests")
    publisher = Publisher(address, timeout_s=10 * PACE)  # by then, the first has been confirmed
    async with background(publisher.run()):
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
        is_slow = True
        failed = [message for message, _ in await publisher._publish(messages)]
        server.close()
    await asyncio.wait_for(ended.wait(), LIMIT_S)
    assert confirmed.is_set()
    assert 0 < len(failed) < len(messages)
    assert failed == messages[-len(failed) :]
    there = {message.body for message in await servers.take_all(CALLBACKS_DEAD)}
    assert there >= {message.body for message in messages if message not in failed}


async def test_a_stream_that_says_nothing_is_subscribed_again_on_the_same_connection_from_where_it_was(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = uuid.uuid4().hex.encode()
    read: list[int] = []

    def where() -> dict[str, str | int]:
        return {"x-stream-offset": read[-1] + 1 if read else "next"}

    # No ack reaches the broker, and credit is for one: it falls silent, as it can after it was killed.
    consumer = Consumer(_address(servers), CALLS_JOURNAL, prefetch=1, arguments=where)
    async with _publisher(servers) as publisher, background(consumer.run()):
        await asyncio.wait_for(consumer.wait_until_up(), LIMIT_S)
        await publisher.publish_until_confirmed(_message(own + b"%d" % number, routing_key=CALLS_JOURNAL) for number in range(3))
        for number in range(3):
            delivery = await asyncio.wait_for(consumer.get(), LIMIT_S)
            # A stream begins at a chunk, and has what others left in it.
            while delivery.offset <= (read[-1] if read else -1) or not delivery.body.startswith(own):
                delivery = await asyncio.wait_for(consumer.get(), LIMIT_S)
            assert delivery.body == own + b"%d" % number
            read.append(delivery.offset)
            assert delivery.in_flight
            delivery.in_flight.settle(delivery.tag)
            # Not before: without a first offset it would skip these messages.
            monkeypatch.setattr(broker, "_RESUBSCRIBE_AFTER_S", 1)
        assert consumer.sessions == 1
