"""Ingress opens its port before it has seen the broker: what it answers 200 until then is in the spool."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import aiohttp
import orjson

from console.local.ports import free_port
from tests.helpers.forwarder import Forwarder
from tests.helpers.servers import Servers, call_back, connected, eventually, exit_code, metric

NAME = "recordings.retry.0.3s"


def _line(number: int) -> str:
    return f"CallType=API&Event=pickup&CallID={number}&RequestID={number}"


async def test_callbacks_answered_before_ingress_ends_for_a_queue_with_other_arguments_are_in_the_spool(servers: Servers) -> None:
    """RabbitMQ cannot be reached until some are answered."""
    port = free_port()
    settings = {"CALLFOLD_RECORDING_RETRY_SECONDS": "0.3", "CALLFOLD_INGRESS_PORT": str(port)}
    answered: list[int] = []
    async with (
        Forwarder(servers.stack.rabbitmq.port) as broker,
        servers.queue("recordings") as queue,
        servers.fleet(CALLFOLD_AMQP_URL=broker.amqp_url, **settings) as fleet,
    ):
        await queue.channel.queue_delete(NAME)  # another test may have left it
        other = await queue.channel.declare_queue(NAME, durable=True, arguments={"x-queue-type": "quorum", "x-message-ttl": 999})
        role = fleet.add("ingress", "ingress", {})
        starting = asyncio.ensure_future(asyncio.gather(role.start(), return_exceptions=True))
        try:

            async def has_ended() -> bool:
                number = len(answered)
                try:
                    answered.extend([number] if await call_back(port, [_line(number)]) == [200] else [])
                except (aiohttp.ClientError, OSError):
                    return starting.done() and bool(answered)
                return False

            async def are_some_answered() -> bool:
                assert not await has_ended()
                return len(answered) > 2

            await eventually(are_some_answered)
            await broker.open()
            await eventually(has_ended)
        finally:
            await other.delete(if_unused=False, if_empty=False)
        assert await exit_code(role) == 2
    with closing(sqlite3.connect(servers.directory / "spool" / "spool.sqlite")) as spool:
        bodies = [orjson.loads(body) for (body,) in spool.execute("select body from messages order by id")]
    kept = [event["query"] for body in bodies for event in body]
    assert set(map(_line, answered)) <= set(kept)


async def test_a_queue_that_was_made_anew_with_other_arguments_costs_a_running_ingress_no_callback(servers: Servers) -> None:
    port = free_port()
    settings = {"CALLFOLD_RECORDING_RETRY_SECONDS": "0.3", "CALLFOLD_INGRESS_PORT": str(port)}
    async with servers.fleet(**settings) as fleet, aiohttp.ClientSession() as session:
        role = fleet.add("ingress", "ingress", {})
        await role.start()
        await connected(role)
        assert await call_back(port, [_line(1)]) == [200]
        try:
            async with servers.queue(NAME) as queue:
                await queue.delete(if_unused=False, if_empty=False)
                await queue.channel.declare_queue(NAME, durable=True, arguments={"x-queue-type": "quorum", "x-message-ttl": 999})
            await _reconnected(servers)

            async def is_told() -> bool:
                return any('"broker_conflict"' in line and NAME in line for line in role.log_path.read_text().splitlines())

            await eventually(is_told)
            assert await call_back(port, [_line(number) for number in range(2, 20)]) == [200] * 18
            assert await metric(role, "callfold_spooled_messages_total") >= 1

            async def is_ready() -> bool:
                async with session.get(role.metrics_url.replace("metrics", "readyz")) as ready:
                    return ready.status == 200 and "spooled" in str((await ready.json())["problems"])

            await eventually(is_ready)  # in its first seconds a process without RabbitMQ is not
            assert role.returncode is None
        finally:
            async with servers.queue("recordings") as queue:
                await queue.channel.queue_delete(NAME)
        seen: set[str] = set()

        async def all_there() -> bool:
            messages = await servers.take_all("callbacks.fold")
            seen.update(event["query"] for message in messages for event in orjson.loads(message.body))
            return seen >= {_line(number) for number in range(1, 20)}

        await eventually(all_there)


async def _reconnected(servers: Servers) -> None:
    """Have every connection to the broker lost."""
    await servers.stack.rabbitmq.stop()  # in order: what was declared a moment ago is there again
    await servers.stack.rabbitmq.start()
