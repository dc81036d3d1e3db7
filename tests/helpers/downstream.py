"""A consumer of `calls` whose queue survives a broker that is killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika

from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers

DOWNSTREAM = "tests.downstream"


@asynccontextmanager
async def downstream(servers: Servers) -> AsyncIterator[None]:
    """A durable queue bound to `calls`: it survives a broker that is killed."""
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(DOWNSTREAM, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.purge()
        await queue.bind("calls", "call.#")
    yield
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        await (await connection.channel()).queue_delete(DOWNSTREAM)
