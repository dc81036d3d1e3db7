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
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp import constants, encode, frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

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


async def send(channel: Channel, messages: Sequence[Publishable]) -> list[asyncio.Future[object]]:
    """Write persistent, mandatory publishes and return their pending confirmations, in order.

    After an exception the caller must drop the channel: its count of delivery tags may be wrong.
    """
    async with channel.lock:
        confirmations: list[asyncio.Future[object]] = []
        payload: list[bytes] = []
        for message in messages:
            confirmations.append(_expect_confirmation(channel, message.message_id))
            payload.append(_publish_frame(message.exchange, message.routing_key, channel.number))
            payload.append(_header_frame(message, channel.number))
            bodies: list[ContentBody] = channel._split_body(message.body)  # noqa: SLF001 - see the module's docstring
            payload += [frame.marshal(body, channel.number) for body in bodies]
        written = channel.create_future()
        await channel.write_queue.put(ChannelFrame(b"".join(payload), should_close=False, drain_future=written))
        await written
    return confirmations


@lru_cache(maxsize=1024)
def _publish_frame(exchange: str, routing_key: str, channel_number: int) -> bytes:
    """Return the frame that begins a publish. There are few different ones, and the library is slow to write one."""
    return frame.marshal(Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True), channel_number)


def _header_frame(message: Publishable, channel_number: int) -> bytes:
    """Return the frame with size and properties of a message."""
    if message.header_table is not None or message.expires_ms is not None or not message.message_id:
        expiration = None if message.expires_ms is None else str(message.expires_ms)
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


def _expect_confirmation(channel: Channel, message_id: str) -> asyncio.Future[object]:
    """Take the next delivery tag; the future ends with the ack, nack or return of the message."""
    channel.delivery_tag += 1
    tag = channel.delivery_tag
    confirmation: asyncio.Future[object] = channel.create_future()
    channel.confirmations[tag] = confirmation
    channel.message_id_delivery_tag[message_id] = tag
    confirmation.add_done_callback(_remover(channel, message_id, tag))
    return confirmation


def _remover(channel: Channel, message_id: str, tag: int) -> Callable[[asyncio.Future[object]], None]:
    def remove(_: asyncio.Future[object]) -> None:
        if channel.message_id_delivery_tag.get(message_id) == tag:
            del channel.message_id_delivery_tag[message_id]

    return remove
