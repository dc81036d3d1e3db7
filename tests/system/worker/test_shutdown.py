"""SIGTERM ends a process in time and in order, whatever it is doing at that moment."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aio_pika import Message

from console.local.ports import free_port
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, call_back, connected, eventually, lines_of

_AT = "2026-11-23T07:44:00.123456Z"

_DEAF = """
import asyncio, sys
from shared.runtime.process import run_process
async def main(settings, stop):
    print("running", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
sys.exit(run_process("deaf", main))
"""


@asynccontextmanager
async def _load(servers: Servers) -> AsyncIterator[None]:
    """Publish new calls for as long as the body runs."""

    async def publish() -> None:
        async with servers.queue("callbacks.fold") as queue:
            for request_id in range(1_000_000, 2_000_000, 10):
                lines = (line for number in range(10) for line in lines_of(request_id + number))
                body = join(encode(CallbackEvent(SourceName("default"), _AT, line)) for line in lines)
                await queue.channel.default_exchange.publish(Message(body), queue.name)
                await asyncio.sleep(0.05)

    task = asyncio.create_task(publish())
    try:
        yield
        assert not task.done(), "the load ended early"
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("module", ["worker", "ingress"])
async def test_a_process_stopped_at_any_moment_ends_in_order(servers: Servers, module: str) -> None:
    moments = random.Random(module)  # noqa: S311 - a seed, no secret
    async with _load(servers):
        for number in range(8):
            port = free_port()
            # Leaving the fleet stops the process, and raises unless its exit code is 0.
            async with servers.fleet(CALLFOLD_INGRESS_PORT=str(port)) as fleet:
                process = fleet.add(f"{module}-{number}", module, {})
                await process.start()
                if module == "ingress":
                    await connected(process)  # else it could leave callbacks in the spool, which its exit code says
                    assert set(await call_back(port, lines_of(number))) == {200}
                await asyncio.sleep(moments.uniform(0, 0.5))
            assert [process.returncode for process in fleet.processes] == [0]


async def test_a_process_that_does_not_heed_its_cancellation_ends_itself_and_says_what_still_ran() -> None:
    settings = {"CALLFOLD_SHUTDOWN_TIMEOUT_SECONDS": "0.1", "CALLFOLD_DRAIN_SECONDS": "0", "CALLFOLD_LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _DEAF,
        env={**os.environ, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"running\n"
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(LIMIT_S):
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"shutdown_timed_out" in errors


async def test_sighup_ends_no_process(servers: Servers) -> None:
    async with servers.fleet() as fleet:
        role = fleet.add("worker", "worker", {})
        await role.start()
        role.send_signal(signal.SIGHUP)

        async def is_logged() -> bool:
            return b"signal_ignored" in role.log_path.read_bytes()

        await eventually(is_logged)
        assert role.returncode is None
