"""Waiting for the RabbitMQ connections of a command."""

from __future__ import annotations

import asyncio

from shared.amqp.connection import NOT_PERMITTED
from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Publisher
from shared.amqp.queue_reader import QueueReader
from shared.streams.errors import NotConnectedError, NotPermittedError

CONNECT_S = 15


async def wait_until_connected(*connections: Publisher | Consumer | QueueReader, within_s: float | None = None) -> None:
    """Wait until all connections are up, at most `CONNECT_S` or `within_s`.

    Raises:
        NotConnectedError: one of them is not up within the time; NotPermittedError if its user is the reason.
    """
    try:
        async with asyncio.timeout(CONNECT_S if within_s is None else within_s):
            for connection in connections:
                await connection.wait_until_up()
    except TimeoutError:
        problem = next(connection.problem for connection in connections if not connection.is_up)
        raised = NotPermittedError if problem == NOT_PERMITTED else NotConnectedError
        raise raised(f"RabbitMQ {problem}. Check CALLFOLD_AMQP_URL, or run `callfold doctor`.") from None
