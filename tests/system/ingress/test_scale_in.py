"""An ingress that is stopped drains its spool first, or says what is left and how to take it over."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import orjson

from console.local.ports import free_port
from console.local.processes import ServiceProcess
from shared.exit_codes import EXIT_OK, EXIT_SPOOL_LEFT
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, call_back, callfold, declare, eventually


def _line(number: int) -> str:
    return f"CallType=API&Event=pickup&CallID={number}&RequestID={number}"


async def _numbers(servers: Servers) -> set[int]:
    events = [event for message in await servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]
    return {int(event["query"].rpartition("=")[2]) for event in events}


async def _logs(role: ServiceProcess, event: str) -> bool:
    return f'"{event}"' in role.log_path.read_text("utf-8")


def _callback_files(servers: Servers) -> list[Path]:
    return [path for path in (servers.directory / "spool").iterdir() if "lock" not in path.name]


async def test_an_ingress_drains_its_spool_before_it_ends_or_names_the_command_that_does(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet(CALLFOLD_SPOOL_DRAIN_SECONDS=f"{LIMIT_S:g}") as fleet:
        role = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await servers.stack.rabbitmq.kill()
        try:
            await role.start()
            assert await call_back(port, [_line(number) for number in range(20)]) == [200] * 20
            stopping = asyncio.create_task(role.stop())
            await eventually(lambda: _logs(role, "shutdown_waits_for_spool"))
            role.send_signal(signal.SIGINT)  # the second signal ends the wait
            await stopping
            assert role.returncode == EXIT_SPOOL_LEFT
            code, shown, _ = await callfold("spool", "status", "--json", **servers.environment())
            assert (code, orjson.loads(shown)["callbacks"]) == (0, 20)

            await role.start()
            assert await call_back(port, [_line(20)]) == [200]
            code, _, error = await callfold("spool", "drain", **servers.environment())
            assert (code, "Another process uses" in error) == (1, True), error
            stopping = asyncio.create_task(role.stop())
            await eventually(lambda: _logs(role, "shutdown_waits_for_spool"))
        finally:
            await servers.stack.rabbitmq.start()
        await stopping
        assert role.returncode == EXIT_OK
        assert await _numbers(servers) == set(range(21))
        assert _callback_files(servers) == []


async def test_the_spool_of_an_ingress_that_was_killed_is_taken_over(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet() as fleet:
        role = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await servers.stack.rabbitmq.kill()
        try:
            await role.start()
            assert await call_back(port, [_line(number) for number in range(20)]) == [200] * 20
            await role.stop(signal.SIGKILL)
            code, _, error = await callfold("spool", "drain", **servers.environment())
            assert (code, "RabbitMQ" in error) == (1, True), error
        finally:
            await servers.stack.rabbitmq.start()
        await declare(servers.stack.amqp_url)  # however long its queues take to come back
        code, shown, error = await callfold("spool", "drain", **servers.environment())
        assert (code, shown) == (0, "Published 20 callbacks.\n"), error
        assert await _numbers(servers) == set(range(20))
        assert _callback_files(servers) == []
