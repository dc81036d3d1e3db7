"""The end of a stream. AMQP 0-9-1 does not report it, and a message that marks it would be one more for every subscriber.

A server of RabbitMQ reads a stream from its own replica. While that is behind, it ends before what was confirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from shared.amqp.channel_requests import broker_request, wait_while_open, write_while_open
from shared.amqp.connection_errors import LOST
from shared.amqp.plain_connection import CLOSE_TIMEOUT_S
from shared.amqp.session import open_session
from shared.amqp.topology import Topology
from shared.errors import BrokerUnavailableError

_ANSWER_TIMEOUT_S = 10
_EMPTY_AFTER_S = 1.0
_OFFSET = "x-stream-offset"
# A server that is asked only for comparison must not hold a reader up for long. An empty stream takes a part of this time.
_COMPARED_WITHIN_S = 2.0 + _EMPTY_AFTER_S
_COMPARED_PREFETCH = 100
_NOTHING = -1


async def latest_end(urls: Sequence[str], stream: str) -> int | None:
    """Return the latest end of a stream that any of these servers knows, or None if none of them knows a message.

    A server that does not answer within three seconds, or has no replica, is left out. What was confirmed is on a majority, so at
    least one of any half of them has it.

    Raises:
        BrokerUnavailableError: fewer than half of the servers answered.
    """
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_end_at(url, stream)) for url in urls]
    answers = [answer for task in asked if (answer := task.result()) is not None]
    if 2 * len(answers) < len(urls):
        raise BrokerUnavailableError(f"Only {len(answers)} of {len(urls)} servers know the end of {stream}")
    end = max(answers, default=_NOTHING)
    return None if end == _NOTHING else end


async def _end_at(url: str, stream: str) -> int | None:
    """Return the end that a server knows, `_NOTHING` for an empty stream, or None without an answer."""
    try:
        with broker_request(f"Cannot find the end of {stream}"):
            async with asyncio.timeout(_COMPARED_WITHIN_S):
                session = await open_session(url, Topology(), "journal")
                try:
                    await session.channel.basic_qos(prefetch_count=_COMPARED_PREFETCH)
                    end = await StreamEnd(session.channel, stream, _COMPARED_PREFETCH).find()
                    return _NOTHING if end is None else end
                finally:
                    await session.close()
    except BrokerUnavailableError:
        return None  # the reader itself, which goes on with another server, reports what is wrong


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
            BrokerUnavailableError: the stream holds messages and delivers none.
            Exception: the connection was lost, or RabbitMQ did not answer.
        """
        consumed = await self._channel.basic_consume(
            self._stream, self._deliver, arguments={_OFFSET: "last"}, timeout=_ANSWER_TIMEOUT_S
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
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._channel.basic_cancel(tag)
                self._channel.consumers.pop(tag, None)
                await self._ack()

    async def _deliver(self, message: DeliveredMessage) -> None:
        offset = (message.header.properties.headers or {}).get(_OFFSET)
        if isinstance(offset, int):
            self._last = max(offset, -1 if self._last is None else self._last)
        self._unacked.append(message.delivery_tag or 0)
        self._arrived.set()

    async def _is_empty(self) -> bool:
        """Wait for the first delivery. A stream that delivers nothing is empty if RabbitMQ counts nothing in it either."""
        await wait_while_open(self._channel, self._arrived, timeout_s=_EMPTY_AFTER_S)
        if self._arrived.is_set():
            return False
        if await self._count() == 0 and not self._arrived.is_set():
            return True
        await wait_while_open(self._channel, self._arrived, timeout_s=_ANSWER_TIMEOUT_S)
        if not self._arrived.is_set():
            raise BrokerUnavailableError(f"{self._stream} delivers nothing")
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
