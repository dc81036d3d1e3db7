"""One open connection to RabbitMQ with its channel, on which the topology is declared."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import cast

from aiormq.channel import Channel
from yarl import URL

from shared.amqp.declare import declare
from shared.amqp.plain_connection import CONNECT_TIMEOUT_S, plain_connection
from shared.amqp.topology import Topology

_HEARTBEAT_S = 5  # the library drops a silent peer after (heartbeat + 1) * 3 = 18 s


@dataclass(frozen=True, slots=True)
class Session:
    """A connection with one channel; `close` must be called."""

    url: str
    channel: Channel
    _closing: AsyncExitStack

    async def close(self) -> None:
        """Close the connection. RabbitMQ requeues what is unacked."""
        await self._closing.aclose()


async def open_session(url: str, topology: Topology, name: str) -> Session:
    """Connect, declare the topology and open a channel that publishes with confirms.

    Raises:
        ConfigError: a queue or exchange exists with other arguments.
        Exception: the connection was lost, or RabbitMQ did not answer in time.
    """
    address = URL(url)
    if "heartbeat" not in address.query:
        address = address.update_query(heartbeat=str(_HEARTBEAT_S))
    async with AsyncExitStack() as closing:
        connection = await closing.enter_async_context(plain_connection(address, {"connection_name": name}))
        async with asyncio.timeout(CONNECT_TIMEOUT_S * 2):
            await declare(connection, topology)
            # mandatory and on_return_raises: an unroutable publish must fail, and by default the library confirms it.
            channel = connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.initialize()
            underlay = cast("Channel", await channel.get_underlay_channel())
        return Session(url, underlay, closing.pop_all())
    raise AssertionError("an exit stack does not suppress errors")
