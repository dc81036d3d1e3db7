"""An ingress that is stopped drains its spool first, or says what is left and how to take it over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from console.local.ports import free_port
from console.local.processes import ServiceProcess
from ingress.outgoing_message import OutgoingMessage
from ingress.spool import SPOOL_FILE, Spool
from ingress.spool_contents import read_contents
from shared.amqp.topology import CALLBACKS
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.exit_codes import EXIT_OK, EXIT_SPOOL_LEFT
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import CALLFOLD, ROOT, Servers, call_back, callfold, declare, eventually


def _line(number: int) -> str:
    return f"CallType=API&Event=pickup&CallID={number}&RequestID={number}"


async def _numbers(servers: Servers) -> set[int]:
    events = [event for message in await servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]
    return {int(event["query"].rpartition("=")[2]) for event in events}


async def _logs(role: ServiceProcess, event: str) -> bool:
    return f'"{event}"' in role.log_path.read_text("utf-8")


def _callback_files(servers: Servers) -> list[Path]:
    return [path for path in (servers.directory / "spool").iterdir() if not ("lock" in path.name or path.name == "ops.json")]


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


@pytest.mark.parametrize("rounds", [pytest.param(4, marks=pytest.mark.volume)])
async def test_drains_that_are_killed_or_run_at_once_lose_nothing(servers: Servers, rounds: int) -> None:
    directory = servers.directory / "spool"
    await _fill(directory, range(20_000), SPOOL_FILE)
    await _fill(directory, range(20_000, 30_000), f"{SPOOL_FILE}.damaged-20261123T074400.000000Z")
    ends = []
    for _ in range(rounds):
        drains = [await _start_drain(servers) for _ in range(2)]
        left = read_contents(directory).messages

        async def is_midway(left: int = left, drains: Sequence[Process] = drains) -> bool:
            are_over = all(drain.returncode is not None for drain in drains)
            return are_over or read_contents(directory).messages != left

        await eventually(is_midway)
        for drain in drains:
            if drain.returncode is None:
                drain.kill()
            ends.append(await drain.wait())
    code, out, error = await callfold("spool", "drain", **servers.environment())
    assert code == EXIT_OK, out + error
    assert not _callback_files(servers)
    assert await _numbers(servers) == set(range(30_000))
    print(f"\nexit codes {Counter(ends)}")  # noqa: T201 - what the rounds met


async def _fill(directory: Path, numbers: range, file_name: str) -> None:
    async with Spool(directory, max_bytes=1 << 28, file_name=file_name) as spool:
        source = SourceName("default")
        events = [encode(CallbackEvent(source, "2026-11-23T07:44:00.000000Z", _line(number))) for number in numbers]
        await spool.add([OutgoingMessage(CALLBACKS, "", {}, join([event])) for event in events])


async def _start_drain(servers: Servers) -> Process:
    environment = os.environ | servers.environment()
    return await asyncio.create_subprocess_exec(
        *(*CALLFOLD, "spool", "drain"), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
