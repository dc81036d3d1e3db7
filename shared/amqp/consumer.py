"""The one door to RabbitMQ: confirmed publishes, and deliveries that are acked last.

Publishing and consuming have a connection each, because a broker under a memory or disk alarm stops reading the
connections that publish, acks included.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from shared.amqp.batch_publish import HeaderValue
from shared.amqp.connection import (
    CLOSE_TIMEOUT_S,
    LOST,
    BrokerAddress,
    BrokerConnection,
    requesting,
    write_while_open,
)
from shared.amqp.in_flight import InFlight
from shared.amqp.topology import MARKER, MARKER_BODY
from shared.errors import BrokerUnavailableError
from shared.log import get_logger

log = get_logger(__name__)

_OFFSET = "x-stream-offset"
_SILENCE_S = 15
Arguments = Mapping[str, HeaderValue]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that stays ours until it is acked, or until its channel is gone and the broker delivers it again."""

    body: bytes
    headers: Mapping[str, object]
    routing_key: str
    tag: int
    channel: Channel
    in_flight: InFlight | None = None

    @property
    def offset(self) -> int:
        """Where the message stands in its stream.

        Raises:
            ValueError: it did not come from a stream.
        """
        offset = self.headers.get(_OFFSET)
        if not isinstance(offset, int):
            raise ValueError("a delivery without offset: its queue is no stream")  # noqa: TRY004 - the type is the broker's choice
        return offset

    async def ack(self) -> None:
        """Settle it. On a channel that is gone, or goes before this is written, this does nothing: the message comes again."""
        if self.in_flight is not None:
            self.in_flight.settle(self.tag)
        acking = self.channel.basic_ack(self.tag, wait=False)
        with suppress(*LOST):
            await (write_while_open(self.channel, acking) if self.channel.write_queue.full() else acking)

    @property
    def is_marker(self) -> bool:
        """Whether it is a marker of a round, without any event."""
        return self.body == MARKER_BODY and marker_of(self.headers) is not None


def marker_of(headers: Mapping[str, object]) -> int | None:
    """Read the number of the round from the headers of a marker; None for any other message."""
    number = headers.get(MARKER)
    return int(number) if isinstance(number, str) and number.isascii() and number.isdigit() else None


class Consumer(BrokerConnection):
    """Consumes one queue. Deliveries of a lost channel are forgotten: the broker has requeued them.

    A stream that has been silent for a while is asked anew: after a broker was killed, it can happen that a stream takes what is
    published and gives nothing of it to a consumer whose connection looks well.
    """

    def __init__(
        self,
        address: BrokerAddress,
        queue: str,
        *,
        prefetch: int,
        arguments: Arguments | Callable[[], Arguments] | None = None,
        register: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare; `arguments` that change, like the offset to go on from, are a function that is asked on each connection.

        Only where there is such a function, the queue is a stream that can be asked anew. `register` is called with the name of
        each new channel before it consumes.
        """
        super().__init__(address, f"consumer of {queue}")
        self._queue = queue
        self._prefetch = prefetch
        self._arguments = arguments if callable(arguments) else lambda: arguments or {}
        self._can_be_asked_anew = callable(arguments)
        self._heard_at = 0.0
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self._tag: str | None = None
        self._channel: Channel | None = None
        self._stopping = False
        self._register = register
        self.in_flight = InFlight("")

    async def _open(self, channel: Channel) -> None:
        self._channel = channel
        if self._stopping:
            return
        self.in_flight = InFlight(f"{self._name}/{uuid.uuid4().hex}")
        await channel.basic_qos(prefetch_count=self._prefetch)
        if self._register is not None:
            await self._register(self.in_flight.consumer)
        consumed = await channel.basic_consume(self._queue, self._deliver, arguments=dict(self._arguments()) or None)
        self._tag = consumed.consumer_tag
        self._heard_at = time.monotonic()

    def _closed(self) -> None:
        self._channel = None
        while not self._waiting.empty():
            self._waiting.get_nowait()

    def _is_working(self, channel: Channel) -> bool:
        if self._stopping:
            return not channel.is_closed
        if self._can_be_asked_anew and time.monotonic() - self._heard_at > _SILENCE_S:
            log.debug("stream_asked_anew", link=self._name)
            self._is_left = True
            return False
        # A queue that was deleted or moved cancels its consumer while the channel stays open.
        return not channel.is_closed and self._tag in channel.consumers

    async def _deliver(self, message: DeliveredMessage) -> None:
        tag = message.delivery_tag
        if tag is None or message.channel is not self._channel:
            return  # not ours to settle: it belongs to a channel that is gone
        self._heard_at = time.monotonic()
        headers = message.header.properties.headers or {}
        delivery = Delivery(message.body, headers, message.routing_key or "", tag, message.channel, self.in_flight)
        self.in_flight.take(tag, marker_of(headers) if delivery.is_marker else None)
        self._waiting.put_nowait(delivery)

    async def get(self) -> Delivery:
        """Wait for the next delivery."""
        return await self._waiting.get()

    def get_waiting(self, max_bytes: int) -> list[Delivery]:
        """Take what has arrived already, until the bodies add up to `max_bytes`."""
        taken: list[Delivery] = []
        while not self._waiting.empty() and max_bytes > 0:
            taken.append(self._waiting.get_nowait())
            max_bytes -= len(taken[-1].body)
        return taken

    async def stop_intake(self) -> None:
        """Ask for no more deliveries; those taken can still be acked, the rest goes back when the connection closes."""
        self._stopping = True
        if self._channel is not None and self._tag is not None:
            with suppress(BrokerUnavailableError), requesting(f"{self._queue} cannot be cancelled"):
                await self._channel.basic_cancel(self._tag, timeout=CLOSE_TIMEOUT_S)
        while not self._waiting.empty():
            self._waiting.get_nowait()
