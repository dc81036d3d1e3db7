"""Messages that one channel delivers, and the consumer that collects them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.common import FieldValue

from callfold_client.channel_waits import wait_for_any, write_while_open
from callfold_client.connection import ANSWER_TIMEOUT_S, requests
from callfold_client.errors import CallfoldClientError, TransportLostError
from callfold_client.lost_connections import LOST, loss
from callfold_client.stream_cursor import OFFSET

_FINISH_TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class Message:
    """A message in flight. If its channel is lost, settling it has no effect, and RabbitMQ delivers it again."""

    body: bytes
    headers: Mapping[str, object]
    exchange: str
    routing_key: str
    tag: int
    channel: Channel
    is_from_stream: bool = False

    @property
    def offset(self) -> int:
        """The offset in the stream."""
        offset = self.headers.get(OFFSET)
        return offset if isinstance(offset, int) else -1

    async def ack(self) -> None:
        await self._write(multiple=False)

    async def ack_all(self) -> None:
        """Ack the message and every one before it on its channel."""
        await self._write(multiple=True)

    async def _write(self, *, multiple: bool) -> None:
        with suppress(*LOST):
            await write_while_open(self.channel, self.channel.basic_ack(self.tag, multiple=multiple, wait=False))

    async def requeue(self, *, counts: bool, multiple: bool = False) -> None:
        """Give the message back. With `counts`, RabbitMQ 4.3 counts the attempt too; earlier ones always do."""
        with suppress(*LOST):
            if counts:
                await write_while_open(self.channel, self.channel.basic_reject(self.tag, requeue=True, wait=False))
            else:
                await write_while_open(
                    self.channel, self.channel.basic_nack(self.tag, multiple=multiple, requeue=True, wait=False)
                )

    async def dead_letter(self) -> None:
        """Refuse the message, so that RabbitMQ dead-letters it."""
        with suppress(*LOST):
            await write_while_open(self.channel, self.channel.basic_reject(self.tag, requeue=False, wait=False))


class ChannelConsumer:
    """Consumes a queue or stream on one channel."""

    is_stream = False

    def __init__(self, channel: Channel, queue: str) -> None:
        self.channel = channel
        self.queue = queue
        self._waiting: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._tag: str | None = None

    async def consume(self, prefetch: int, arguments: Mapping[str, FieldValue] | None = None) -> None:
        """Begin to consume.

        Raises:
            SubscriptionError: RabbitMQ refuses this.
            TransportLostError: the connection was lost.
        """
        with requests(f"Cannot consume {self.queue}"):
            await self.channel.basic_qos(prefetch_count=prefetch, timeout=ANSWER_TIMEOUT_S)
            consumed = await self.channel.basic_consume(
                self.queue, self._deliver, arguments=dict(arguments or {}) or None, timeout=ANSWER_TIMEOUT_S
            )
            self._tag = consumed.consumer_tag

    async def cancel(self, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Stop deliveries."""
        tag, self._tag = self._tag, None
        if tag is not None and not self.channel.is_closed:
            with requests(f"Cannot cancel the consumer of {self.queue}"):
                await self.channel.basic_cancel(tag, timeout=timeout_s)

    async def cancel_softly(self) -> None:
        """Stop deliveries, if RabbitMQ answers soon."""
        with suppress(CallfoldClientError):
            await self.cancel(timeout_s=_FINISH_TIMEOUT_S)

    async def finish(self) -> None:
        """Stop, and give back what was delivered ahead. Since RabbitMQ 4.3 this counts as no attempt.

        First wait for an answer behind the last acks: one that the end of its consumer follows at once is lost.
        """
        if not self.channel.is_closed:
            with suppress(CallfoldClientError), requests(f"Cannot confirm the acks of {self.queue}"):
                async with asyncio.timeout(_FINISH_TIMEOUT_S):
                    await self.channel.flow(active=True)
        await self.cancel_softly()
        if self._waiting:
            await self._waiting[-1].requeue(counts=False, multiple=True)

    async def _deliver(self, message: DeliveredMessage) -> None:
        headers = message.header.properties.headers or {}
        tag = message.delivery_tag or 0
        key = message.routing_key or ""
        exchange = message.exchange or ""
        self._waiting.append(Message(message.body, headers, exchange, key, tag, self.channel, self.is_stream))
        self._arrived.set()

    @property
    def is_up(self) -> bool:
        # RabbitMQ cancels the consumer of a queue that was deleted or moved, while the channel stays open.
        return not self.channel.is_closed and (self._tag is None or self._tag in self.channel.consumers)

    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def get_waiting(self, max_bytes: int, /) -> list[Message]:
        """Return messages that have arrived, until their bodies add up to `max_bytes`."""
        messages: list[Message] = []
        while self._waiting and max_bytes > 0:
            messages.append(self._waiting.popleft())
            max_bytes -= len(messages[-1].body)
        return messages

    async def get(self) -> Message:
        """Wait for the next message.

        Raises:
            TransportLostError: the connection was lost, or RabbitMQ cancelled the consumer.
        """
        while not await self.arrived():
            pass
        return self._waiting.popleft()

    async def arrived(self, *others: asyncio.Future[object]) -> bool:
        """Wait until a message has arrived or one of several futures is done, at most a second; returns whether one has.

        Raises:
            TransportLostError: the connection was lost, or RabbitMQ cancelled the consumer.
        """
        if self._waiting:
            return True
        self._arrived.clear()
        waiting = asyncio.ensure_future(self._arrived.wait())
        try:
            await wait_for_any(self.channel, waiting, *others, timeout_s=1)
        finally:
            waiting.cancel()
        if not self._waiting and not self.is_up:
            reason = loss(self.channel) or "RabbitMQ cancelled the consumer"
            raise TransportLostError(f"The connection that consumes {self.queue} was lost: {reason}.")
        return bool(self._waiting)
