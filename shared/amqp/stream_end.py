"""The end of a stream that several servers of RabbitMQ have. `callfold_client.stream_end` finds that of one server.

A server of RabbitMQ reads a stream from its own replica. While that is behind, it ends before what was confirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from callfold_client.stream_end import EMPTY_AFTER_S, StreamEnd
from shared.amqp.channel_requests import broker_request
from shared.amqp.session import open_session
from shared.amqp.topology import Topology
from shared.errors import BrokerUnavailableError

# A server that is asked only for comparison must not hold a reader up for long. An empty stream takes a part of this time.
_COMPARED_WITHIN_S = 2.0 + EMPTY_AFTER_S
_COMPARED_PREFETCH = 100
_NOTHING = -1


async def latest_end(urls: Sequence[str], stream: str) -> int | None:
    """Return the latest end of a stream that any of these servers knows, or None if none of them knows a message.

    A server that does not answer within three seconds, or has no replica, is left out. What was confirmed is on a majority, so at
    least one of any half of them has it.

    Raises:
        BrokerUnavailableError: fewer than half of the servers answered.
    """
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_end_at(url, stream)) for url in urls]
    answers = [answer for task in asked if (answer := task.result()) is not None]
    if 2 * len(answers) < len(urls):
        raise BrokerUnavailableError(f"Only {len(answers)} of {len(urls)} servers know the end of {stream}")
    end = max(answers, default=_NOTHING)
    return None if end == _NOTHING else end


async def _end_at(url: str, stream: str) -> int | None:
    """Return the end that a server knows, `_NOTHING` for an empty stream, or None without an answer."""
    try:
        with broker_request(f"Cannot find the end of {stream}"):
            async with asyncio.timeout(_COMPARED_WITHIN_S):
                session = await open_session(url, Topology(), "journal")
                try:
                    await session.channel.basic_qos(prefetch_count=_COMPARED_PREFETCH)
                    end = await StreamEnd(session.channel, stream, _COMPARED_PREFETCH).find()
                    return _NOTHING if end is None else end
                finally:
                    await session.close()
    except BrokerUnavailableError:
        return None  # the reader itself, which goes on with another server, reports what is wrong
