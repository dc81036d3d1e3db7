"""A RabbitMQ as subscribers see it: the test publishes to it as Callfold does, and looks into their queues."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import orjson

from shared.amqp.roles import USER_PREFIX, Role, users
from tests.helpers.history import call_event
from tests.helpers.pace import LIMIT_S
from tests.helpers.rabbitmq_cluster import run_tool
from tests.helpers.servers import Servers, Stack, empty_streams


def event(call: int, *, revision: int = 1, outcome: str = "answered", **data: Any) -> tuple[str, str, bytes]:  # noqa: ANN401
    """Return routing key, id and body of the event of a call."""
    made = call_event(call, revision=revision, outcome=outcome, **data)
    kind = "completed" if revision == 1 else "amended"
    return f"call.{kind}.{made['data']['source']}.{outcome}", made["id"], orjson.dumps(made)


class Broker:
    """Publishes as Callfold does, and looks into queues."""

    def __init__(self, stack: Stack, connection: aio_pika.abc.AbstractConnection, channel: aio_pika.abc.AbstractChannel) -> None:
        self.url = stack.amqp_url
        self._environment = stack.rabbitmq.environment
        self._connection = connection
        self._channel = channel

    async def publish(self, *events: tuple[str, str, bytes]) -> None:
        exchange = await self._channel.get_exchange("calls")
        for routing_key, event_id, body in events:
            await exchange.publish(aio_pika.Message(body, message_id=event_id, delivery_mode=2), routing_key)

    async def put(self, queue: str, event_id: str, body: bytes) -> None:
        """Put a message into a queue, without the exchange `calls`."""
        await self._channel.default_exchange.publish(aio_pika.Message(body, message_id=event_id, delivery_mode=2), queue)

    async def waiting(self, name: str) -> list[str | None]:
        """Take every message of a queue; returns their ids."""
        queue, taken = await self._channel.get_queue(name), []
        while message := await queue.get(fail=False, timeout=LIMIT_S):
            await message.ack()
            taken.append(message.message_id)
        return taken

    async def has_consumer(self, name: str) -> bool:
        """Return whether a queue exists and is consumed."""
        channel = await self._connection.channel()  # of its own: a queue that is missing closes it
        try:
            return bool((await channel.declare_queue(name, passive=True)).declaration_result.consumer_count)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False

    @asynccontextmanager
    async def user(self, name: str, role: Role) -> AsyncIterator[str]:
        """Create a user with the permissions of a role for as long as the block; yields its URL."""
        password = secrets.token_hex(16)
        made = json.dumps(users({name: role}, {name: password}, vhost="/"))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(made)
            file.flush()
            await run_tool(self._environment, "rabbitmqctl", "import_definitions", file.name)
        yield f"amqp://{USER_PREFIX}{name}:{password}@127.0.0.1:{urlsplit(self.url).port}/"
        await run_tool(self._environment, "rabbitmqctl", "delete_user", USER_PREFIX + name)

    async def delete(self, *queues: str) -> None:
        for name in queues:
            await self._channel.queue_delete(name)
            await self._channel.queue_delete(f"{name}.dead")
            await self._channel.exchange_delete(f"{name}.dead")


@asynccontextmanager
async def subscribers_broker(servers: Servers, *queues: str) -> AsyncIterator[Broker]:
    """Begin with empty streams, and without the queues of a subscriber, which are deleted at the end too."""
    assert isinstance(servers.stack, Stack)
    await empty_streams(servers.stack)
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        made = Broker(servers.stack, connection, await connection.channel())
        await made.delete(*queues)
        yield made
        await made.delete(*queues)
