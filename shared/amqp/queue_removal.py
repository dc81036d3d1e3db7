"""Removes queues that are no longer wanted, without a message in them. Each step has its own connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import aio_pika
from aiormq.exceptions import ChannelNotFoundEntity
from yarl import URL

from shared.amqp.connection_errors import is_lost
from shared.amqp.plain_connection import plain_connection
from shared.errors import BrokerUnavailableError

_TIMEOUT_S = 20
# A message that moves from one queue to another is counted in neither for a moment.
_MOVES_S = 1.0


async def unbind(urls: Sequence[str], queue: str, exchange: str, patterns: Iterable[str]) -> bool:
    """Remove bindings of a queue; one that does not exist is removed. Return whether the queue exists.

    Raises:
        BrokerUnavailableError: no address answers.
    """
    async with _connected(urls) as connection:
        channel = await connection.channel()
        try:
            bound = await channel.get_queue(queue)
        except ChannelNotFoundEntity:
            return False
        for pattern in patterns:
            await bound.unbind(exchange, pattern)
    return True


async def delete_unused(urls: Sequence[str], queues: Sequence[str], may_delete: Callable[[], Awaitable[bool]]) -> bool:
    """Delete queues if none of them has a message or a consumer; returns whether all of them are gone.

    Nothing may publish to them any more, except each to those after it. `may_delete` is asked at the last moment.

    Raises:
        BrokerUnavailableError: no address answers.
    """
    async with _connected(urls) as connection:
        if await _unused(connection, queues) is None:
            return False
        await asyncio.sleep(_MOVES_S)
        existing = await _unused(connection, queues)
        if existing is None or not await may_delete():
            return False
        channel = await connection.channel()
        for name in existing:
            await channel.queue_delete(name)
    return True


async def _unused(connection: aio_pika.Connection, queues: Sequence[str]) -> list[str] | None:
    """Return which of these queues exist, or None if one has a message or a consumer."""
    existing: list[str] = []
    for name in queues:
        channel = await connection.channel()
        try:
            declared = (await channel.get_queue(name)).declaration_result
        except ChannelNotFoundEntity:
            continue
        if declared.message_count or declared.consumer_count:
            return None
        existing.append(name)
        await channel.close()
    return existing


@asynccontextmanager
async def _connected(urls: Sequence[str]) -> AsyncIterator[aio_pika.Connection]:
    """Connect to the first address that answers, for a short while."""
    failure = "RabbitMQ has no address"
    for position, url in enumerate(urls, start=1):
        is_connected = False
        try:
            async with asyncio.timeout(_TIMEOUT_S), plain_connection(URL(url), {"connection_name": "removal"}) as connection:
                is_connected = True
                yield connection
        except Exception as error:
            if not is_lost(error):
                raise
            failure = type(error).__name__
            if is_connected or position == len(urls):
                raise BrokerUnavailableError(f"RabbitMQ: {failure}") from error
        else:
            return
