"""Operator events on real servers: two workers raise and clear a condition once, and a missing exchange concerns nothing else."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import aio_pika
import orjson
import pytest
from redis.asyncio import Redis

from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Message, Publisher
from shared.amqp.single_publish import publish_alone
from shared.amqp.topology import CALLBACKS, OPS, topology
from shared.clock import utc_now
from shared.domain.condition import Kind, Observation, read_record
from shared.errors import BrokerUnavailableError
from shared.runtime.ops_reporter import OpsReporter, ops_publish
from shared.runtime.process import background
from shared.state.store import Store
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import RETRY_S, Servers, taken_from

HOLD_S = 0.2


def _seen(subject: str, *, is_bad: bool) -> Observation:
    return Observation(Kind.ARCHIVE_AWAY, subject, is_bad=is_bad, at=utc_now(), detail="The archive is away.")


async def test_two_workers_at_once_raise_a_condition_once_and_clear_it_once(servers: Servers) -> None:
    subject = uuid.uuid4().hex
    stores = [Store(servers.stack.redis_url) for _ in range(2)]
    publish = ops_publish([servers.stack.amqp_url], "tests")
    workers = [
        OpsReporter(store.ops_conditions, publish, holder=f"worker-{number}", now=utc_now, hold_s=HOLD_S)
        for number, store in enumerate(stores)
    ]
    try:
        async with servers.subscribed(f"{OPS}.#", exchange=OPS) as queue, asyncio.timeout(LIMIT_S):
            for is_bad in (True, False):
                states: list[bool | None] = []
                while not states or states[-1] is not is_bad:
                    seen = _seen(subject, is_bad=is_bad)
                    await asyncio.gather(*(worker.report([seen], configured={}, may_publish=True) for worker in workers))
                    record = read_record((await stores[0].ops_conditions.read()).get(seen.name))
                    states.append(record.is_raised if record and record.event is None else None)
            messages = [message async for message in _all_of(queue)]
    finally:
        for store in stores:
            await store.aclose()
    ids = [message.message_id for message in messages]
    assert [str(name).rpartition("/")[2] for name in ids] == ["raised", "cleared"]
    assert [message.content_type for message in messages] == ["application/cloudevents+json"] * 2
    assert {orjson.loads(message.body)["subject"] for message in messages} == {subject}


async def _all_of(queue: aio_pika.abc.AbstractQueue) -> AsyncIterator[aio_pika.abc.AbstractIncomingMessage]:
    while message := await taken_from(queue):
        yield message


async def test_a_swap_happens_only_if_the_record_is_still_the_same(redis_only: Servers) -> None:
    store = Store(redis_only.stack.redis_url)
    try:
        records = store.ops_conditions
        assert await records.swap("a/b", None, b"1")
        assert not await records.swap("a/b", None, b"2")
        assert not await records.swap("a/b", b"0", b"2")
        assert await records.swap("a/b", b"1", b"2")
        assert await records.swap("a/b", b"1", b"2")  # repeated after a lost answer
        assert await records.read() == {"a/b": b"2"}
        assert await records.swap("a/b", b"2", None)
        assert await records.read() == {}
        async with Redis.from_url(redis_only.stack.redis_url) as redis:
            assert not await redis.exists("callfold:ops")
    finally:
        await store.aclose()


async def test_a_missing_exchange_concerns_no_other_publisher(rabbitmq_only: Servers) -> None:
    url = rabbitmq_only.stack.amqp_url
    publisher = Publisher(BrokerAddress((url,), topology(RETRY_S), "tests"), timeout_s=LIMIT_S)
    async with background(publisher.run()):
        await publisher.wait_until_up()
        for exchange in (f"missing-{uuid.uuid4().hex}", OPS):
            event = Message(exchange, "ops.archive_away.raised", b"{}", uuid.uuid4().hex)
            attempt = publish_alone([url], "tests", event, timeout_s=LIMIT_S)
            if exchange == OPS:
                await attempt
            else:
                with pytest.raises(BrokerUnavailableError, match="no exchange"):
                    await attempt
            await publisher.publish(Message(CALLBACKS, "", b"[]", uuid.uuid4().hex))
        assert publisher.sessions == 1
