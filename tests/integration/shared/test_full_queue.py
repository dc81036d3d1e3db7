"""A full fold queue and an alarm of RabbitMQ: nothing is published again and again, and nothing waits for its time-out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import aio_pika
import pytest

from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS, CALLBACKS_FOLD, topology
from shared.errors import BrokerUnavailableError
from shared.runtime.process import background
from tests.helpers.broker_faults import memory_alarm, small_fold_queue
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import RETRY_S, Servers, eventually


@pytest.fixture
def servers(rabbitmq_only: Servers) -> Servers:
    return rabbitmq_only


@asynccontextmanager
async def _publisher(servers: Servers) -> AsyncIterator[Publisher]:
    address = BrokerAddress((servers.stack.amqp_url,), topology(RETRY_S), "tests")
    publisher = Publisher(address, timeout_s=LIMIT_S)
    async with background(publisher.run()):
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
        yield publisher


def _message() -> Message:
    return Message(CALLBACKS, "", b"[" + b"1" * 998 + b"]", uuid.uuid4().hex)


async def _fill(publisher: Publisher) -> int:
    """Publish until the queue rejects; returns the number of messages with the rejected one."""
    for published in range(1, 1000):
        try:
            await publisher.publish(_message())
        except BrokerUnavailableError:
            return published
    raise AssertionError("the queue is never full")


async def _taken_by(journal: aio_pika.abc.AbstractQueue) -> int:
    return (await journal.channel.declare_queue(journal.name, passive=True)).declaration_result.message_count or 0


async def test_what_a_full_queue_rejects_is_journaled_once_and_a_probe_opens_the_gate(servers: Servers) -> None:
    async with (
        _publisher(servers) as publisher,
        servers.subscribed("#", exchange=CALLBACKS) as journal,
        small_fold_queue(servers, 50_000),
    ):
        published = await _fill(publisher)
        assert publisher.gate.is_closed
        for _ in range(20):
            publisher.gate._probe_at = 0  # every attempt may probe
            with pytest.raises(BrokerUnavailableError, match=r"callbacks\.fold is full"):
                await publisher.publish(_message())
        assert await _taken_by(journal) == published
        assert publisher.obstacles() == [publisher.gate.problem]
        async with servers.queue(CALLBACKS_FOLD) as fold:
            await fold.purge()

            async def is_accepted() -> bool:
                publisher.gate._probe_at = 0
                return await publisher.reopen_gate()

            await eventually(is_accepted)
        await publisher.publish(_message())
        assert await _taken_by(journal) == published + 1
        assert publisher.obstacles() == []
        assert publisher.sessions == 1


async def test_the_depth_of_a_queue_is_counted_on_a_channel_of_its_own(servers: Servers) -> None:
    async with _publisher(servers) as publisher:
        for _ in range(3):
            await publisher.publish(_message())

        async def are_counted() -> bool:
            return await publisher.count_messages(CALLBACKS_FOLD) == 3

        await eventually(are_counted)
        with pytest.raises(BrokerUnavailableError, match="no queue"):
            await publisher.count_messages("nobody")
        await publisher.publish(_message())
        assert publisher.sessions == 1


async def test_under_an_alarm_a_publish_fails_at_once_and_what_must_go_out_waits(servers: Servers) -> None:
    """The time-out is long: what waited for it would end the test."""
    async with _publisher(servers) as publisher:
        async with memory_alarm(servers):
            with pytest.raises(BrokerUnavailableError, match="alarm of RabbitMQ"):
                await publisher.publish(_message())  # this one RabbitMQ has read: it takes it after the alarm
            assert publisher.is_blocked
            began = time.monotonic()
            for _ in range(100):
                with pytest.raises(BrokerUnavailableError, match="alarm of RabbitMQ"):
                    await publisher.publish(_message())
            assert time.monotonic() - began < LIMIT_S / 10
            assert len(publisher.obstacles()) == 1
            patient = asyncio.ensure_future(publisher.publish_until_confirmed([_message()]))
            await asyncio.sleep(0)
            assert not patient.done()
        await asyncio.wait_for(patient, LIMIT_S)
        await publisher.publish(_message())
        assert (publisher.is_blocked, publisher.obstacles(), publisher.sessions) == (False, [], 1)
    messages = await servers.take_all(CALLBACKS_FOLD)
    assert len(messages) == 3


async def test_an_alarm_that_comes_while_a_confirm_is_awaited_costs_no_second_publish(servers: Servers) -> None:
    sent = _message()
    async with _publisher(servers) as publisher:
        async with memory_alarm(servers):
            patient = asyncio.ensure_future(publisher.publish_until_confirmed([sent]))

            async def is_known() -> bool:
                return publisher.is_blocked

            await eventually(is_known)
            assert not patient.done()
        await asyncio.wait_for(patient, LIMIT_S)
        assert publisher.sessions == 1
    messages = await servers.take_all(CALLBACKS_FOLD)
    assert [message.message_id for message in messages] == [sent.message_id]


async def test_the_loss_of_a_connection_is_logged_with_the_words_of_the_broker(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    async def is_connected(times: int) -> bool:
        return publisher.is_up and publisher.sessions == times

    async with _publisher(servers) as publisher:
        with pytest.raises(BrokerUnavailableError):
            await publisher.publish(Message("nobody", "", b"[]", uuid.uuid4().hex))
        await eventually(partial(is_connected, 2))
        await servers.stack.rabbitmq.stop()
        await servers.stack.rabbitmq.start()
        await eventually(partial(is_connected, 3))
        publisher.recycle("a test")
        await eventually(partial(is_connected, 4))
    lost = [line for line in capsys.readouterr().out.splitlines() if "broker_connection_lost" in line]
    assert "NOT_FOUND - no exchange 'nobody'" in lost[0]
    assert "CONNECTION_FORCED" in lost[1]
    assert "a test" in lost[2]
