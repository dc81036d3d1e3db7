"""Consumes a stream of which much is read: deliveries cost little, see `delivery_frames.py`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import NoReturn

from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Arguments, Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.delivery_frames import StreamFrames, StreamMessage, used_by


class StreamConsumer(Consumer):
    """A consumer of a stream, which gets its deliveries straight from the connection."""

    def __init__(self, address: BrokerAddress, stream: str, *, prefetch: int, arguments: Callable[[], Arguments]) -> None:
        super().__init__(address, stream, prefetch=prefetch, arguments=arguments)
        self._frames = StreamFrames(self._receive)

    async def run(self) -> NoReturn:
        with used_by(self._frames):
            await super().run()

    def _new_tag(self) -> str:
        tag = uuid.uuid4().hex
        self._frames.expect(tag)
        return tag

    def _receive(self, message: StreamMessage) -> None:
        channel = self._channel
        if channel is None or channel.is_closed:
            return  # it can no longer be settled
        self._last_delivery_at = time.monotonic()
        self.in_flight.add(message.tag, None)
        delivery = Delivery(message.body, message.headers, message.routing_key, message.tag, channel, self.in_flight)
        self._waiting.put_nowait(delivery)
