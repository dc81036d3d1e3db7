"""Publishes a batch in one write: all frames go to the socket together, and every message has its own confirmation.

The library writes and drains once for each message, which costs four times the processor time. `send` does the work of its
`basic_publish` for a batch. It uses attributes of the library's channel: delivery tags, confirmations, and the message ids by
which the library assigns returned messages to publishes. `is_blocked` reads an event of its connection. They are not public, so
aiormq is pinned.
tests/integration/shared/test_broker.py holds the assumption: acks, returns and closed channels reach the right message.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Protocol

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError
from pamqp import constants, encode, frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

from shared.amqp.confirm_order import ConfirmOrder, Publish

_PERSISTENT = 2
_SIZE_AT = 4  # in the payload of a header frame, after class and weight; it has 8 bytes
HeaderValue = str | int | datetime


class Publishable(Protocol):
    """The fields of a message that are written to the wire."""

    @property
    def exchange(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def message_id(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def header_table(self) -> FieldTable | None: ...
    @property
    def expires_ms(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Copy:
    """A message of another broker, published with all properties that it had there."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Basic.Properties
    content_type: str = ""
    expires_ms: int | None = None

    @property
    def message_id(self) -> str:
        return self.properties.message_id or ""

    @property
    def header_table(self) -> FieldTable:
        return self.properties.headers or {}


class Pending:
    """The pending confirmations of one batch. The channel knows the batch as one future: one for each message costs it more.

    Attributes:
        confirmations: one for each message, in order. Each ends with the ack, nack or return of its message.
        publishes: these messages, in the same order; an ack counts if `counts` is true.
        settled: ends when all of them count. It also ends with the channel, and then the confirmations do.
    """

    __slots__ = ("_channel", "_left", "confirmations", "publishes", "settled")

    def __init__(self, channel: Channel, messages: Sequence[Publishable], order: ConfirmOrder) -> None:
        """Take the next delivery tags of the channel."""
        self._channel = channel
        self._left = len(messages)
        self.settled: asyncio.Future[None] = channel.create_future()
        self.settled.add_done_callback(self._end)
        self.publishes = [order.add(message.exchange, message.routing_key, self._count) for message in messages]
        self.confirmations = [self._expect(*each) for each in zip(messages, self.publishes, strict=True)]

    def _expect(self, message: Publishable, publish: Publish) -> asyncio.Future[object]:
        channel, message_id = self._channel, message.message_id
        channel.delivery_tag += 1
        confirmation: asyncio.Future[object] = channel.loop.create_future()
        channel.confirmations[channel.delivery_tag] = confirmation
        channel.message_id_delivery_tag[message_id] = channel.delivery_tag
        confirmation.add_done_callback(partial(self._answered, message_id, channel.delivery_tag, publish))
        return confirmation

    def _answered(self, message_id: str, tag: int, publish: Publish, confirmation: asyncio.Future[object]) -> None:
        if self._channel.message_id_delivery_tag.get(message_id) == tag:
            del self._channel.message_id_delivery_tag[message_id]
        # The publisher may have given up, and asyncio logs an exception that no code reads.
        error = asyncio.CancelledError() if confirmation.cancelled() else confirmation.exception()
        if error is None or isinstance(error, DeliveryError):  # else the channel has ended
            publish.answer()

    def _count(self) -> None:
        self._left -= 1
        if not self._left and not self.settled.done():
            self.settled.set_result(None)

    def _end(self, settled: asyncio.Future[None]) -> None:
        error = None if settled.cancelled() else settled.exception()
        for confirmation in self.confirmations if self._left else ():
            if confirmation.done():
                continue
            if error is None:
                confirmation.cancel()
            else:
                confirmation.set_exception(error)


async def send(channel: Channel, messages: Sequence[Publishable], order: ConfirmOrder) -> Pending:
    """Write persistent, mandatory publishes and return their pending confirmations. `order` is that of the channel.

    After an exception the caller must drop the channel: its count of delivery tags may be wrong.
    """
    async with channel.lock:
        pending = Pending(channel, messages, order)
        payload: list[bytes] = []
        for message in messages:
            payload.append(_publish_frame(message.exchange, message.routing_key, channel.number))
            payload.append(_header_frame(message, channel.number))
            bodies: list[ContentBody] = channel._split_body(message.body)  # noqa: SLF001 - see the module's docstring
            payload += [frame.marshal(body, channel.number) for body in bodies]
        written = channel.create_future()
        await channel.write_queue.put(ChannelFrame(b"".join(payload), should_close=False, drain_future=written))
        await written
    return pending


@lru_cache(maxsize=1024)
def _publish_frame(exchange: str, routing_key: str, channel_number: int) -> bytes:
    """Return the frame that begins a publish. There are few different ones, and the library is slow to write one."""
    return frame.marshal(Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True), channel_number)


def _header_frame(message: Publishable, channel_number: int) -> bytes:
    """Return the frame with size and properties of a message."""
    if message.header_table is not None or message.expires_ms is not None or not message.message_id:
        expiration = None if message.expires_ms is None else str(message.expires_ms)
        if isinstance(message, Copy):
            properties = message.properties
        else:
            properties = _properties(message.content_type, message.message_id, message.header_table, expiration)
        return frame.marshal(ContentHeader(properties=properties, body_size=len(message.body)), channel_number)
    before_size, before_id = _header_parts(message.content_type)
    payload = before_size + struct.pack(">Q", len(message.body)) + before_id + encode.short_string(message.message_id)
    start = struct.pack(">BHI", constants.FRAME_HEADER, channel_number, len(payload))
    return start + payload + constants.FRAME_END_CHAR


@lru_cache(maxsize=64)
def _header_parts(content_type: str) -> tuple[bytes, bytes]:
    """Return what is before the size, and what is between it and the message id, which is the last property of most messages."""
    payload = ContentHeader(properties=_properties(content_type, "-")).marshal()
    return payload[:_SIZE_AT], payload[_SIZE_AT + 8 : -len(encode.short_string("-"))]


def _properties(
    content_type: str, message_id: str, headers: FieldTable | None = None, expiration: str | None = None
) -> Basic.Properties:
    return Basic.Properties(
        content_type=content_type, delivery_mode=_PERSISTENT, message_id=message_id, headers=headers, expiration=expiration
    )


def is_blocked(channel: Channel) -> bool:
    """Return whether RabbitMQ has said that an alarm blocks this connection. It says so after the first publish."""
    unblocked: asyncio.Event = getattr(channel.connection, "_Connection__connection_unblocked")  # noqa: B009 - mangled otherwise
    return not unblocked.is_set()
