"""The one door to RabbitMQ: confirmed publishes, and deliveries that are acked last.

Publishing and consuming have a connection each, because a broker under a memory or disk alarm stops reading the
connections that publish, acks included.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Basic
from pamqp.common import FieldTable

from shared.errors import BrokerUnavailableError
from shared.frames import HeaderValue, send
from shared.hand import InFlight
from shared.link import (
    BACKOFF_S,
    CLOSE_TIMEOUT_S,
    LOST,
    BrokerAddress,
    Link,
    inspect,
    is_cancelled,
    is_lost,
    requesting,
    write_while_open,
)
from shared.log import get_logger
from shared.topology import MARKER, MARKER_BODY

__all__ = ["BrokerAddress", "Consumer", "Delivery", "HeaderValue", "Message", "Publisher", "inspect"]

log = get_logger(__name__)

_PUBLISHES_IN_FLIGHT = 200
_OFFSET = "x-stream-offset"
_SILENCE_S = 15
Arguments = Mapping[str, HeaderValue]


@dataclass(frozen=True, slots=True)
class Message:
    """A persistent message. In flight on one channel no two may share a `message_id` (see Publisher).

    `expires_ms`: how long it may wait in its queue at most, where that is less than the queue's own limit.
    """

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    content_type: str = "application/json"
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    expires_ms: int | None = None

    @property
    def header_table(self) -> FieldTable | None:
        return {**self.headers} or None


class Publisher(Link):
    """Publishes with mandatory routing, publisher confirms and a timeout."""

    def __init__(self, address: BrokerAddress, *, timeout_s: float, outlasts_conflicts: bool = False) -> None:
        super().__init__(address, "publisher", outlasts_conflicts=outlasts_conflicts)
        self._timeout_s = timeout_s
        self._channel: Channel | None = None

    async def _open(self, channel: Channel) -> None:
        self._channel = channel

    def _closed(self) -> None:
        self._channel = None

    async def publish(self, *messages: Message) -> None:
        """Return once the broker has confirmed the messages in every queue they were routed to.

        Raises:
            BrokerUnavailableError: not connected, refused, unroutable, or not confirmed in time; any may have arrived.
        """
        for _, error in await self._publish(messages):
            raise error

    async def publish_patiently(self, messages: Iterable[Message]) -> None:
        """Publish, and try again for as long as it takes: an outage is waited out, never turned into a loss."""
        waiting = list(messages)
        for attempt in itertools.count():
            failed: list[Message] = []
            for first in range(0, len(waiting), _PUBLISHES_IN_FLIGHT):
                await self.wait_up()
                failures = await self._publish(waiting[first : first + _PUBLISHES_IN_FLIGHT])
                failed += [message for message, _ in failures]
                for message, error in failures[:1]:
                    log.warning("publish_retry", messages=len(failures), first=message.message_id, detail=str(error))
            if not failed:
                return
            waiting = failed
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])

    async def count_consumers(self, queue: str) -> int:
        """Count the consumers of a queue, as its leader knows them; one that was cancelled counts until all it has is settled.

        It is 0 as well if the leader does not answer in time.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        with requesting(f"{queue} cannot be counted"):
            declared = await channel.queue_declare(queue, passive=True, timeout=self._timeout_s)
        return declared.consumer_count or 0

    async def _publish(self, messages: Sequence[Message]) -> list[tuple[Message, BrokerUnavailableError]]:
        """Publish some messages in one write; returns those that were not confirmed, with the reason.

        When one timed out the channel is given up: the library ties returns to publishes by message id, so the same id
        must never be in flight twice on one channel.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            return [(message, BrokerUnavailableError("RabbitMQ is not connected")) for message in messages]
        confirmations: Sequence[asyncio.Future[object]] = ()
        try:
            async with asyncio.timeout(self._timeout_s):
                confirmations = await send(channel, messages)
                await asyncio.wait(confirmations)
        except LOST as error:  # a timeout among them
            self.recycle()
            why = f"RabbitMQ did not confirm within {self._timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
            return _unconfirmed(messages, confirmations, BrokerUnavailableError(why))
        except BaseException as error:
            self.recycle()  # cut off between counting and writing, the channel's delivery tags may be off
            if is_lost(error) or (isinstance(error, asyncio.CancelledError) and not is_cancelled()):
                return _unconfirmed(messages, confirmations, BrokerUnavailableError("the connection to RabbitMQ was lost"))
            raise
        failures = zip(messages, map(_refusal, confirmations), strict=True)
        return [(message, refusal) for message, refusal in failures if refusal]


def _unconfirmed(
    messages: Sequence[Message], confirmations: Sequence[asyncio.Future[object]], error: BrokerUnavailableError
) -> list[tuple[Message, BrokerUnavailableError]]:
    """Leave out what was confirmed before the rest was cut off: a slow broker would else be sent all of it again, without end."""
    confirmed = [done.done() and _refusal(done) is None for done in confirmations] or [False] * len(messages)
    return [(message, error) for message, is_confirmed in zip(messages, confirmed, strict=True) if not is_confirmed]


def _refusal(confirmation: asyncio.Future[object]) -> BrokerUnavailableError | None:
    if confirmation.cancelled():
        return BrokerUnavailableError("the connection to RabbitMQ was lost")
    error = confirmation.exception()
    if error is not None:
        return BrokerUnavailableError(f"RabbitMQ refused a message: {type(error).__name__}")
    if not isinstance(confirmation.result(), Basic.Ack):
        return BrokerUnavailableError(f"RabbitMQ answered a publish with {type(confirmation.result()).__name__}")
    return None


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


class Consumer(Link):
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
