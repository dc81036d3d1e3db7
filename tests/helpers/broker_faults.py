"""Faults of a private RabbitMQ that only it can have: a queue that is full soon, and an alarm."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aio_pika
from pamqp.common import FieldTable

from shared.amqp.topology import CALLBACKS, CALLBACKS_FOLD, topology
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import RETRY_S, Servers, declare, eventually

_DIRECTORIES = ("/usr/lib/erlang/bin", "/usr/lib64/erlang/bin", "/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/sbin")
_MONITOR, _SET = "vm_memory_monitor", "set_vm_memory_high_watermark"


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
    """Have RabbitMQ hold that it has too little memory, until the block ends.

    The answer to the new watermark comes before the alarm. `rabbit_alarm` answers after it has sent an alarm to every connection.
    """

    async def is_raised(*, expected: bool) -> bool:
        return (b"memory" in await _call(servers, "rabbit_alarm", "get_alarms")) is expected

    assert await _call(servers, _MONITOR, _SET, "{absolute,1048576}") == b"ok"
    try:
        await eventually(partial(is_raised, expected=True))
        yield
    finally:
        assert await _call(servers, _MONITOR, _SET, "0.4") == b"ok"
        await eventually(partial(is_raised, expected=False))


async def _call(servers: Servers, module: str, function: str, *arguments: str) -> bytes:
    """Call a function on the node; returns its result as text."""
    environment, given = dict(servers.stack.rabbitmq.environment), ", ".join(arguments)
    node, path = environment["RABBITMQ_NODENAME"], os.pathsep.join((environment["PATH"], *_DIRECTORIES))
    if quick := shutil.which("erl_call", path=path):  # takes milliseconds; not every distribution has it
        cookie = (Path(environment["HOME"]) / ".erlang.cookie").read_text("ascii")
        command = [quick, "-sname", node, "-c", cookie, "-a", f"{module} {function} [{given}]"]
    else:
        program = shutil.which("rabbitmqctl", path=path) or "rabbitmqctl"
        command = [program, "-q", "-n", node, "eval", f"{module}:{function}({given})."]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.strip()
