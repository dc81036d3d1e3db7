"""Sizes and ages of queues on a real RabbitMQ: they change by policy while messages flow, and older queues are used as they are."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import orjson
import pytest
import pytest_asyncio

from console.local.stack import LocalStack
from shared.amqp import declare as declaring
from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.definitions import policies
from shared.amqp.publisher import Message, Publisher
from shared.amqp.server_check import check_server
from shared.amqp.topology import CALLBACKS_FOLD, CALLBACKS_QUARANTINE, topology
from shared.errors import BrokerRejectedError
from shared.runtime.process import background
from tests.helpers.pace import LIMIT_S
from tests.helpers.rabbitmq_cluster import run_tool
from tests.helpers.servers import RETRY_S, Servers, declare, eventually, taken_from

TOPOLOGY = topology(RETRY_S)


@asynccontextmanager
async def _publisher(url: str) -> AsyncIterator[Publisher]:
    publisher = Publisher(BrokerAddress((url,), TOPOLOGY, "tests"), timeout_s=LIMIT_S)
    async with background(publisher.run()):
        await publisher.wait_until_up()
        yield publisher


@pytest_asyncio.fixture
async def private(tmp_path: Path) -> AsyncIterator[LocalStack]:
    """A RabbitMQ of the test's own: its policies change."""
    async with LocalStack(tmp_path / "stack", only=frozenset({"rabbitmq"})) as stack:
        yield stack


async def _import(stack: LocalStack, directory: Path, limits: Mapping[str, Mapping[str, object]]) -> None:
    """Import the definitions with other limits, as an operator would."""
    changed = [
        {**policy, "definition": limits.get(str(policy["name"]).removeprefix("callfold-"), policy["definition"])}
        for policy in policies(TOPOLOGY, vhost="/")
    ]
    path = directory / "changed.json"
    path.write_bytes(orjson.dumps({"policies": changed}))
    await run_tool(stack.rabbitmq.environment, "rabbitmqctl", "import_definitions", str(path))


def _to(queue: str, body: bytes) -> Message:
    return Message("", queue, body, uuid.uuid4().hex)


@pytest.mark.volume
async def test_limits_change_on_a_running_broker_and_nothing_is_lost(private: LocalStack, tmp_path: Path) -> None:
    await declare(private.amqp_url)
    async with _publisher(private.amqp_url) as publisher:
        kept = [b"%d" % number + b"x" * 10_000 for number in range(50)]
        await publisher.publish_until_confirmed(_to(CALLBACKS_FOLD, body) for body in kept)
        megabyte = b"x" * (1 << 20)
        await publisher.publish_until_confirmed(_to(CALLBACKS_QUARANTINE, megabyte) for _ in range(20))
        assert await _first_offset(private.amqp_url) == 0

        await _import(
            private,
            tmp_path,
            {
                CALLBACKS_FOLD: {"max-length-bytes": 100_000},
                CALLBACKS_QUARANTINE: {"max-length-bytes": 8 << 20, "stream-max-segment-size-bytes": 4 << 20},
            },
        )

        async def is_full() -> bool:
            try:
                await publisher.publish(_to(CALLBACKS_FOLD, b"more"))
            except BrokerRejectedError:
                return True
            kept.append(b"more")
            return False

        async def is_shorter() -> bool:
            await publisher.publish(_to(CALLBACKS_QUARANTINE, megabyte))  # retention runs when a segment ends
            return await _first_offset(private.amqp_url) > 0

        await eventually(is_full)
        await eventually(is_shorter)
        await _import(private, tmp_path, {CALLBACKS_FOLD: {"max-length-bytes": 4 << 30}})

        async def takes_again() -> bool:
            try:
                await publisher.publish(_to(CALLBACKS_FOLD, b"again"))
            except BrokerRejectedError:
                return False
            return True

        await eventually(takes_again)
        assert publisher.sessions == 1  # no queue was deleted, and no connection ended
    async with await aio_pika.connect(private.amqp_url, timeout=LIMIT_S) as connection:
        queue = await (await connection.channel()).get_queue(CALLBACKS_FOLD)
        taken = [message.body for _ in range(len(kept) + 1) if (message := await taken_from(queue))]
    assert taken == [*kept, b"again"]


async def _first_offset(url: str) -> int:
    """Read the offset of the first message that the quarantine has."""
    consumer = Consumer(
        BrokerAddress((url,), TOPOLOGY, "tests"), CALLBACKS_QUARANTINE, prefetch=1, arguments={"x-stream-offset": "first"}
    )
    async with background(consumer.run()):
        return (await consumer.get()).offset


async def test_queues_that_the_first_release_declared_are_used_as_they_are(
    rabbitmq_only: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declaring, "_earlier", set())
    logged: list[str] = []
    monkeypatch.setattr(declaring.log, "warning", lambda _, queue, **__: logged.append(queue))
    url = rabbitmq_only.stack.amqp_url
    earlier = {queue.name: {**queue.arguments, **queue.earlier_arguments} for queue in TOPOLOGY.queues if queue.earlier_arguments}
    address = BrokerAddress((url,), TOPOLOGY, "tests")
    name = CALLBACKS_FOLD  # the streams are of other tests too
    async with await aio_pika.connect(url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        await channel.queue_delete(name)
        await channel.declare_queue(name, durable=True, arguments=dict(earlier[name]))
        try:
            for _ in range(2):
                assert (await check_server(address)).fixed == [name]
            assert logged == [name]
            async with _publisher(url) as publisher:
                await publisher.publish(Message("callbacks", "", b"x", uuid.uuid4().hex))  # it is bound
            assert len(await rabbitmq_only.take_all(name)) == 1
        finally:
            await channel.queue_delete(name)
            await declare(url)
    assert (await check_server(address)).fixed == []
