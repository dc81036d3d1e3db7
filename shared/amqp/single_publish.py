"""Publishes one message on a connection that exists only for it, so that whatever RabbitMQ answers concerns no other work.

It declares nothing. An exchange that does not exist, or a user who may not publish to it, closes this connection alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aio_pika
from yarl import URL

from shared.amqp.connection_errors import is_cancelled, is_lost, refusal
from shared.amqp.plain_connection import plain_connection
from shared.amqp.publisher import Message
from shared.errors import BrokerUnavailableError

_SHOWN_CHARACTERS = 200


async def publish_alone(urls: Sequence[str], name: str, message: Message, *, timeout_s: float) -> None:
    """Publish a persistent message at the first address that takes it; returns once every queue that gets it has confirmed it.

    Raises:
        BrokerUnavailableError: no address answered in `timeout_s`, or the message was refused or reached no queue. It may have
            arrived.
    """
    failure = "RabbitMQ has no address"
    try:
        async with asyncio.timeout(timeout_s):
            for url in urls:
                try:
                    await _publish(URL(url), name, message)
                except (Exception, asyncio.CancelledError) as error:  # the library also raises CancelledError by itself
                    if is_cancelled() or not (is_lost(error) or isinstance(error, asyncio.CancelledError)):
                        raise
                    failure = refusal(error) or f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]
                else:
                    return
    except TimeoutError as error:
        raise BrokerUnavailableError(f"RabbitMQ did not confirm within {timeout_s:g} s") from error
    raise BrokerUnavailableError(failure)


async def _publish(url: URL, name: str, message: Message) -> None:
    async with plain_connection(url, {"connection_name": name}) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(message.exchange, ensure=False)
        persistent = aio_pika.Message(
            message.body,
            content_type=message.content_type,
            message_id=message.message_id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        # mandatory: a message that reaches no queue is returned, and not confirmed.
        await exchange.publish(persistent, message.routing_key, mandatory=True)
