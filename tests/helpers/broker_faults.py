"""Faults of a private RabbitMQ that only it can have: a queue that is full soon, and an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
from pamqp.common import FieldTable

from shared.amqp.topology import CALLBACKS, CALLBACKS_FOLD, topology
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import RETRY_S, Servers, declare

_PROGRAMS = (Path("/usr/lib/rabbitmq/bin/rabbitmqctl"), Path("/usr/sbin/rabbitmqctl"), Path("/opt/homebrew/sbin/rabbitmqctl"))


@asynccontextmanager
async def small_fold_queue(servers: Servers, max_bytes: int) -> AsyncIterator[None]:
    """Give `callbacks.fold` another limit, for processes that are connected already: a new one would refuse the arguments."""
    arguments: FieldTable = next({**queue.arguments} for queue in topology(RETRY_S).queues if queue.name == CALLBACKS_FOLD)
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        await channel.queue_delete(CALLBACKS_FOLD)
        queue = await channel.declare_queue(CALLBACKS_FOLD, durable=True, arguments=arguments | {"x-max-length-bytes": max_bytes})
        await queue.bind(CALLBACKS, "")
        try:
            yield
        finally:
            await channel.queue_delete(CALLBACKS_FOLD)
            await declare(servers.stack.amqp_url)


@asynccontextmanager
async def memory_alarm(servers: Servers) -> AsyncIterator[None]:
    """Have RabbitMQ hold that it has too little memory, until the block ends."""
    await rabbitmqctl(servers, "set_vm_memory_high_watermark", "absolute", "1MiB")
    try:
        yield
    finally:
        await rabbitmqctl(servers, "set_vm_memory_high_watermark", "0.4")


async def rabbitmqctl(servers: Servers, *arguments: str) -> None:
    program = next(str(path) for path in _PROGRAMS if path.exists())
    environment = dict(servers.stack.rabbitmq.environment)
    process = await asyncio.create_subprocess_exec(
        program,
        "-q",
        "-n",
        environment["RABBITMQ_NODENAME"],
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
