"""Declares the topology."""

from __future__ import annotations

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from shared.amqp.topology import Queue, Topology
from shared.errors import ConfigError
from shared.log import get_logger

log = get_logger(__name__)

# Queues that an earlier release declared, as far as this process knows. RabbitMQ logs each refused attempt.
_earlier: set[str] = set()


async def declare(connection: aio_pika.abc.AbstractConnection, topology: Topology) -> list[str]:
    """Declare exchanges, queues and bindings; those that exist with the same arguments are left as they are.

    Returns:
        The queues whose sizes are arguments, because an earlier release declared them.

    Raises:
        ConfigError: a queue or exchange exists with other arguments; RabbitMQ's message names it.
    """
    if topology == Topology():
        return []
    try:
        channel = await connection.channel()
        for exchange in topology.exchanges:
            await channel.declare_exchange(exchange.name, exchange.type, durable=True)
        for queue in topology.queues:
            channel = await _declare_queue(connection, channel, queue)
        for binding in topology.bindings:
            bound = await channel.get_queue(binding.queue, ensure=False)
            await bound.bind(binding.exchange, binding.routing_key)
        await channel.close()
    except ChannelPreconditionFailed as error:
        raise ConfigError(
            f"A queue or exchange exists in RabbitMQ with other arguments: {error}. Delete it, or use another vhost, and restart."
        ) from error
    return [queue.name for queue in topology.queues if queue.name in _earlier]


async def _declare_queue(connection: aio_pika.abc.AbstractConnection, channel: AbstractChannel, queue: Queue) -> AbstractChannel:
    """Declare a queue as this release does, or as an earlier one did; returns a channel that is open."""
    if queue.name in _earlier:
        try:
            await channel.declare_queue(queue.name, passive=True)
        except ChannelNotFoundEntity:  # it was deleted, and RabbitMQ has closed the channel
            _earlier.discard(queue.name)
            channel = await connection.channel()
        else:
            return channel
    try:
        await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
    except ChannelPreconditionFailed as error:
        if not queue.earlier_arguments:
            raise
        channel = await connection.channel()
        try:
            await channel.declare_queue(queue.name, durable=True, arguments={**queue.arguments, **queue.earlier_arguments})
        except ChannelPreconditionFailed:
            raise error from None
        _earlier.add(queue.name)
        log.warning("queue_arguments_fixed", queue=queue.name, arguments=dict(queue.earlier_arguments))
    return channel
