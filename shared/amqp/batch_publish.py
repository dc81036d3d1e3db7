"""Publishes a batch in one write: all frames go to the socket together, and every message has its own confirmation.

The library writes and drains once for each message, which costs four times the processor time. `send` does the work of its
`basic_publish` for a batch. It uses attributes of the library's channel: delivery tags, confirmations, and the message ids by
which the library assigns returned messages to publishes. `is_blocked` reads an event of its connection. They are not public, so
aiormq is pinned.
tests/integration/shared/test_broker.py holds the assumption: acks, returns and closed channels reach the right message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

_PERSISTENT = 2
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
            properties = Basic.Properties(
                content_type=message.content_type,
                delivery_mode=_PERSISTENT,
                message_id=message.message_id,
                headers=message.header_table,
                expiration=None if message.expires_ms is None else str(message.expires_ms),
            )
            content: list[ContentHeader | ContentBody] = [ContentHeader(properties=properties, body_size=len(message.body))]
            content += channel._split_body(message.body)  # noqa: SLF001 - see the module's docstring
            payload.append(_publish_frame(message.exchange, message.routing_key, channel.number))
            payload += [frame.marshal(part, channel.number) for part in content]
        written = channel.create_future()
        await channel.write_queue.put(ChannelFrame(b"".join(payload), should_close=False, drain_future=written))
        await written
    return confirmations


@lru_cache(maxsize=1024)
def _publish_frame(exchange: str, routing_key: str, channel_number: int) -> bytes:
    """Return the frame that begins a publish. There are few different ones, and the library is slow to write one."""
    return frame.marshal(Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True), channel_number)


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
