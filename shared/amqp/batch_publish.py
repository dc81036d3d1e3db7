"""Many publishes in one write: the frames of a batch go to the socket together, each with its own confirm to await.

The library writes and drains once for each message, which costs four times the processor time. This does what its
`basic_publish` does, for a batch, on the attributes of its channel: delivery tags, confirmations, the message ids by which
it ties returns to publishes. They are not its public interface, so aiormq is pinned, and tests/integration/shared/test_broker.py
holds what is relied on here: acks, returns and closed channels reach exactly the message they belong to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

_PERSISTENT = 2
HeaderValue = str | int | datetime


class Publishable(Protocol):
    """What a message must tell to be written."""

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
    """Write persistent, mandatory publishes and return their confirmations, in order, still to be awaited.

    A caller that gets an exception must give the channel up: its count of delivery tags may be off.
    """
    async with channel.lock:
        confirmations: list[asyncio.Future[object]] = []
        frames: list[Basic.Publish | ContentHeader | object] = []
        for message in messages:
            confirmations.append(_expect(channel, message.message_id))
            properties = Basic.Properties(
                content_type=message.content_type,
                delivery_mode=_PERSISTENT,
                message_id=message.message_id,
                headers=message.header_table,
                expiration=None if message.expires_ms is None else str(message.expires_ms),
            )
            frames.append(Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=True))
            frames.append(ContentHeader(properties=properties, body_size=len(message.body)))
            frames += channel._split_body(message.body)  # noqa: SLF001 - see the module's docstring
        written = channel.create_future()
        await channel.write_queue.put(
            ChannelFrame.marshall(channel_number=channel.number, frames=frames, drain_future=written)  # type: ignore[arg-type]
        )
        await written
    return confirmations


def _expect(channel: Channel, message_id: str) -> asyncio.Future[object]:
    """Take the next delivery tag and have its confirm, or the return of its message, end a future."""
    channel.delivery_tag += 1
    tag = channel.delivery_tag
    confirmation: asyncio.Future[object] = channel.create_future()
    channel.confirmations[tag] = confirmation
    channel.message_id_delivery_tag[message_id] = tag
    confirmation.add_done_callback(_forgetter(channel, message_id, tag))
    return confirmation


def _forgetter(channel: Channel, message_id: str, tag: int) -> Callable[[asyncio.Future[object]], None]:
    def forget(_: asyncio.Future[object]) -> None:
        if channel.message_id_delivery_tag.get(message_id) == tag:
            del channel.message_id_delivery_tag[message_id]

    return forget
