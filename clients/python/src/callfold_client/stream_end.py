"""The last message of a stream.

AMQP 0-9-1 does not report it, and a message that marks it would be one more for every subscriber.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from callfold_client.channel_waits import wait_while_open, write_while_open
from callfold_client.lost_connections import LOST
from callfold_client.stream_cursor import OFFSET

_ANSWER_TIMEOUT_S = 10
_CLOSE_TIMEOUT_S = 2
EMPTY_AFTER_S = 1.0
"""A stream that delivers nothing for this long may be empty."""


class StreamEnd:
    """Finds the last message of a stream: reads its last chunk, until RabbitMQ has answered and delivers no more.

    RabbitMQ reads for a consumer until the stream ends or its prefetch is used up. Only then it answers requests on the channel.
    If fewer than `prefetch` deliveries are unacked by then, the stream ended. RabbitMQ 3.10 to 4.x work so.
    """

    def __init__(self, channel: Channel, stream: str, prefetch: int) -> None:
        self._channel = channel
        self._stream = stream
        self._prefetch = prefetch
        self._unacked: list[int] = []
        self._last: int | None = None
        self._arrived = asyncio.Event()

    async def find(self) -> int | None:
        """Return the offset of the last message, or None if the stream is empty.

        Raises:
            Exception: the connection was lost, RabbitMQ did not answer, or the stream holds messages and delivers none.
        """
        consumed = await self._channel.basic_consume(
            self._stream, self._deliver, arguments={OFFSET: "last"}, timeout=_ANSWER_TIMEOUT_S
        )
        try:
            if not await self._is_empty():
                while await self._settle() >= self._prefetch:
                    pass
        finally:
            await self._stop(str(consumed.consumer_tag))
        return self._last

    async def _stop(self, tag: str) -> None:
        """Cancel the consumer, and ack what it got: the channel would keep it for as long as it is open."""
        with suppress(*LOST):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._channel.basic_cancel(tag)
                self._channel.consumers.pop(tag, None)
                await self._ack()

    async def _deliver(self, message: DeliveredMessage) -> None:
        offset = (message.header.properties.headers or {}).get(OFFSET)
        if isinstance(offset, int):
            self._last = max(offset, -1 if self._last is None else self._last)
        self._unacked.append(message.delivery_tag or 0)
        self._arrived.set()

    async def _is_empty(self) -> bool:
        """Wait for the first delivery. A stream that delivers nothing is empty if RabbitMQ counts nothing in it either."""
        await wait_while_open(self._channel, self._arrived, timeout_s=EMPTY_AFTER_S)
        if self._arrived.is_set():
            return False
        if await self._count() == 0 and not self._arrived.is_set():
            return True
        await wait_while_open(self._channel, self._arrived, timeout_s=_ANSWER_TIMEOUT_S)
        if not self._arrived.is_set():
            raise TimeoutError(f"{self._stream} delivers nothing")
        return False

    async def _settle(self) -> int:
        """Wait for an answer, then ack what was delivered before it; returns how many that were."""
        await self._count()
        return await self._ack()

    async def _ack(self) -> int:
        delivered, self._unacked = self._unacked, []
        for tag in delivered:
            await write_while_open(self._channel, self._channel.basic_ack(tag, wait=False))
        return len(delivered)

    async def _count(self) -> int:
        """Count the messages. Of a stream, RabbitMQ's count is up to some seconds old."""
        return (await self._channel.queue_declare(self._stream, passive=True, timeout=_ANSWER_TIMEOUT_S)).message_count or 0
