"""Events of a test's own source, published to the exchange `calls`, and the queues of its subscribers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aio_pika
import orjson

from tests.helpers.history import call_event
from tests.helpers.pace import LIMIT_S


@dataclass
class Events:
    """Publishes events of one source, and knows the ids of all of them in their order."""

    url: str
    channel: aio_pika.abc.AbstractChannel
    exchange: aio_pika.abc.AbstractExchange
    source: str = field(default_factory=lambda: f"s{uuid.uuid4().hex[:12]}")
    ids: list[str] = field(default_factory=list)

    @property
    def queue(self) -> str:
        return f"{self.source}.calls"

    @property
    def dead(self) -> str:
        return f"{self.queue}.dead"

    @property
    def pattern(self) -> str:
        return f"call.*.{self.source}.#"

    async def publish(self, *numbers: int, revision: int = 1) -> None:
        """Publish an event of each of these calls, and wait until RabbitMQ has confirmed them."""
        events = [call_event(number, source=self.source, revision=revision) for number in numbers]
        await asyncio.gather(*(self.send(orjson.dumps(event)) for event in events))
        self.ids += [event["id"] for event in events]

    async def send(self, body: bytes, headers: Mapping[str, str] | None = None, outcome: str = "answered") -> None:
        message = aio_pika.Message(body, headers=dict(headers or {}), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await self.exchange.publish(message, f"call.completed.{self.source}.{outcome}", timeout=LIMIT_S)

    async def take(self, queue: str) -> aio_pika.abc.AbstractIncomingMessage | None:
        message = await (await self.channel.get_queue(queue)).get(fail=False, timeout=LIMIT_S)
        if message is not None:
            await message.ack()
        return message

    async def count(self, queue: str) -> int:
        """Count by taking: RabbitMQ's own counts are late."""
        count = 0
        while await self.take(queue) is not None:
            count += 1
        return count


@asynccontextmanager
async def events_at(url: str) -> AsyncIterator[Events]:
    async with await aio_pika.connect(url, timeout=LIMIT_S) as connection:
        channel = await connection.channel(on_return_raises=False)
        made = Events(url, channel, await channel.get_exchange("calls"))
        yield made
        for name in (made.queue, made.dead):
            await channel.queue_delete(name)
        await channel.exchange_delete(made.dead)
