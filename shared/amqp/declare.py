"""Declares the topology."""

from __future__ import annotations

from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelPreconditionFailed

from shared.amqp.topology import Topology
from shared.errors import ConfigError


async def declare(channel: AbstractChannel, topology: Topology) -> None:
    """Declare exchanges, queues and bindings; those that exist with the same arguments are left as they are.

    Raises:
        ConfigError: a queue or exchange exists with other arguments; RabbitMQ's message names it.
    """
    try:
        for exchange in topology.exchanges:
            await channel.declare_exchange(exchange.name, exchange.type, durable=True)
        for queue in topology.queues:
            await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in topology.bindings:
            bound = await channel.get_queue(binding.queue, ensure=False)
            await bound.bind(binding.exchange, binding.routing_key)
    except ChannelPreconditionFailed as error:
        raise ConfigError(
            f"A queue or exchange exists in RabbitMQ with other arguments: {error}. Delete it, or use another vhost, and restart."
        ) from error
