"""Follows a small stream from its beginning, as long as the process lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from shared.amqp.batch_publish import HeaderValue
from shared.amqp.connection import BrokerAddress
from shared.amqp.delivery import Delivery
from shared.amqp.stream_consumer import StreamConsumer
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.runtime.process import background

log = get_logger(__name__)

_PREFETCH: Final = 500
_CHECK_S: Final = 60.0
# A server that is behind after a failover ends earlier than what was read from another one, for a moment.
_LAG_S: Final = 2.0


class StreamFollower:
    """Applies each message of a stream in order, once per life of the process.

    If the stream was deleted, `reset` is called, and the new stream is read from its beginning.
    """

    def __init__(self, address: BrokerAddress, stream: str, apply: Callable[[Delivery], None], reset: Callable[[], None]) -> None:
        """Take a function that applies a message, and one that forgets all of them. Neither may raise."""
        self._apply, self._reset = apply, reset
        self._last: int | None = None
        self._moved = asyncio.Condition()
        self.consumer = StreamConsumer(address, stream, prefetch=_PREFETCH, arguments=self._arguments)

    @property
    def is_up(self) -> bool:
        return self.consumer.is_up

    def _arguments(self) -> dict[str, HeaderValue]:
        return {"x-stream-offset": "first" if self._last is None else self._last + 1}

    async def run(self) -> NoReturn:
        """Follow until cancelled. Run it as a task."""
        async with background(self.consumer.run(), self._watch()):
            while True:
                delivery = await self.consumer.get()
                await delivery.ack()
                if self._last is not None and delivery.offset <= self._last:
                    continue  # a stream starts at a chunk boundary, which can repeat older messages
                self._last = delivery.offset
                self._apply(delivery)
                async with self._moved:
                    self._moved.notify_all()

    async def catch_up(self) -> None:
        """Wait until everything is applied that any server of RabbitMQ has now.

        Raises:
            BrokerUnavailableError: not connected, or the connection was lost.
        """
        end = await self._end()
        if end is not None:
            async with self._moved:
                await self._moved.wait_for(lambda: self._last is not None and self._last >= end)

    async def _watch(self) -> NoReturn:
        """Notice a stream that was deleted and declared again: its end is before what was read."""
        while True:
            await asyncio.sleep(_CHECK_S)
            with suppress(BrokerUnavailableError):  # the connection logs it
                await self._end()

    async def _end(self) -> int | None:
        """Return the end of the stream. If it stays before what was read, the stream is another one, and is read again."""
        end = await self.consumer.latest_stream_end()
        if self._is_before_last(end):
            await asyncio.sleep(_LAG_S)
            end = await self.consumer.latest_stream_end()
            if self._is_before_last(end):
                self._begin_again()
        return end

    def _is_before_last(self, end: int | None) -> bool:
        return self._last is not None and (end is None or end < self._last)

    def _begin_again(self) -> None:
        log.warning("stream_replaced", stream=self.consumer.queue)
        self._last = None
        self._reset()
        self.consumer.recycle(f"{self.consumer.queue} was replaced")
