"""Ctrl-C: what each long command ends with, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.helpers.console import DialEndpoint, sources, world
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import CALLFOLD, VENDOR_LINES, Servers, call_back, ended, eventually


@asynccontextmanager
async def _running(*arguments: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *CALLFOLD,
        *arguments,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _interrupt(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Press Ctrl-C; returns the exit code and what was said of it."""
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert b"Traceback" not in err
    return process.returncode, err.decode()


async def test_tail_is_ended_by_it_as_it_should_be(servers: Servers) -> None:
    async with world(servers, "[sources.acme]\n", "ingress", "worker") as here:
        assert await call_back(here.ingress_port, list(VENDOR_LINES), source="acme") == [200] * len(VENDOR_LINES)
        async with _running("tail", "call.#", "--since", "1h", **servers.environment()) as process:
            assert process.stdout is not None
            async with asyncio.timeout(LIMIT_S):
                while b"acme/513/1" not in await process.stdout.readline():
                    pass  # what the journal holds of others
            assert await _interrupt(process) == (0, "")


async def test_a_dial_cut_off_says_that_a_phone_may_be_ringing(servers: Servers) -> None:
    endpoint = DialEndpoint()

    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    endpoint.plays["1001"] = silent
    url = f"http://127.0.0.1:{endpoint.port}/dial?agent={{agent}}&number={{number}}"
    environment = servers.environment(CALLFOLD_SOURCES=sources(servers.directory, f'[sources.acme]\ndial_url = "{url}"\n'))

    async def asked() -> bool:
        return bool(endpoint.asked["1001"])

    wanted = ("dial", "--source", "acme", "--agent", "1001", "--number", "+4512345678")
    async with endpoint.running(), _running(*wanted, **environment) as process:
        await eventually(asked)
        code, err = await _interrupt(process)
    assert (code, "A phone may be ringing" in err) == (3, True)


async def test_a_demo_cut_off_leaves_nothing_running(tmp_path: Path) -> None:
    async with _running("demo", "--calls", "5000", "--directory", str(tmp_path / "demo")) as process:
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            while b"are ready after" not in await process.stdout.readline():
                pass
        code, _ = await _interrupt(process)
    assert code == 130
    await ended(tmp_path)
