"""Reading the journals: the streams `calls.journal` and `callbacks.journal`, from now on or from some time ago."""

from __future__ import annotations

import asyncio

from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Publisher
from shared.amqp.queue_reader import QueueReader
from shared.errors import CallfoldError
from shared.log import get_logger

log = get_logger(__name__)

_CONNECT_S = 15


class NotConnectedError(CallfoldError):
    """RabbitMQ cannot be reached, or refuses: a command gives up."""


async def connected(*links: Publisher | Consumer | QueueReader, within_s: float = _CONNECT_S) -> None:
    """Wait until a command's connections are up.

    Raises:
        NotConnectedError: RabbitMQ cannot be reached, or refuses.
    """
    try:
        async with asyncio.timeout(within_s):
            for link in links:
                await link.wait_until_up()
    except TimeoutError:
        problem = next(link.problem for link in links if not link.is_up)
        raise NotConnectedError(f"RabbitMQ {problem}: see CALLFOLD_AMQP_URL, or run `callfold doctor`.") from None
