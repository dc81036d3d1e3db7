"""Forms, idle and slow connections against ingress and the console, whose processes have few descriptors."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from tests.helpers.attacks import ATTACK_S, assert_unharmed, measuring, undisturbed, within_bounds
from tests.helpers.console import AUTHORIZED, KEY
from tests.helpers.raw_http import Connection, connected_to, post
from tests.helpers.servers import VENDOR_LINES, Servers, Stack, connected

SECRET = "hunter2-hunter2"
GOOD = f"/callbacks/acme?token={SECRET}&{VENDOR_LINES[0]}"
DESCRIPTORS = 256  # 192 of them for connections
ATTACKERS = 50
IDLE = 300
SLOW = 20
LIMIT_OF_DESIGN_S = 0.25


class _WithFewDescriptors(ServiceProcess):
    def __init__(self, name: str, module: str, environment: Mapping[str, str], *, metrics_port: int, log: Path) -> None:
        super().__init__(name, module, environment, metrics_port=metrics_port, log=log)
        self._command = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *self._command]


class _Fleet(Fleet):
    process_type = _WithFewDescriptors


@dataclass(frozen=True, slots=True)
class Site:
    """An ingress and a console with few descriptors, and a session for good requests."""

    fleet: Fleet
    session: aiohttp.ClientSession
    ingress: int
    console: int

    async def call_back(self) -> None:
        async with self.session.get(f"http://127.0.0.1:{self.ingress}{GOOD}") as response:
            assert response.status == 200, response.status

    async def call_back_once(self) -> None:
        """Send a callback over a connection of its own."""
        async with self.session.get(f"http://127.0.0.1:{self.ingress}{GOOD}", headers={"Connection": "close"}) as response:
            assert response.status == 200, response.status

    async def list_calls(self) -> None:
        url = f"http://127.0.0.1:{self.console}/calls"
        async with self.session.get(url, headers={"Connection": "close", **AUTHORIZED}) as response:
            assert response.status == 200, response.status

    async def closed_by(self, name: str, reason: str) -> float:
        """Read how many connections a process has closed for a reason."""
        process = next(process for process in self.fleet.processes if process.name == name)
        async with self.session.get(process.metrics_url) as response:
            lines = (await response.text()).splitlines()
        label = f'callfold_http_connections_closed_total{{port="public",reason="{reason}"}}'
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(label))

    def assert_running(self) -> None:
        assert all(process.is_running for process in self.fleet.processes)


@pytest_asyncio.fixture(scope="module")
async def site(fresh_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    servers = Servers(fresh_stack, tmp_path_factory.mktemp("requests"))
    sources = servers.directory / "sources.toml"
    sources.write_text(f'[sources.acme]\nsecret = "{SECRET}"\n')
    environment = servers.environment(CALLFOLD_SOURCES=str(sources), CALLFOLD_CONSOLE_KEY=KEY)
    ports = free_port(), free_port()
    async with aiohttp.ClientSession() as session, _Fleet(servers.directory / "logs", environment) as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(ports[0])})
        fleet.add("console", "console", {"CALLFOLD_CONSOLE_PORT": str(ports[1])})
        await fleet.start_all()
        await connected(fleet.processes[0])
        yield Site(fleet, session, *ports)


async def _opened(port: int, count: int, opened: AsyncExitStack, first: bytes = b"") -> list[Connection]:
    connections = [await opened.enter_async_context(connected_to(port)) for _ in range(count)]
    for connection in connections:
        await connection.send(first)
    return connections


async def _unharmed_by_idle(site: Site, name: str, port: int, good: Callable[[], Awaitable[object]]) -> None:
    """Open more connections than fit, again and again, while good requests arrive."""
    before = await undisturbed(good, seconds=0.5)
    replaced = await site.closed_by(name, "replaced")
    async with within_bounds(*site.fleet.processes), measuring(good) as during, AsyncExitStack() as opened:
        await _opened(port, IDLE, opened)
        await asyncio.sleep(ATTACK_S)
    assert_unharmed(during, before, limit_s=LIMIT_OF_DESIGN_S)
    assert await site.closed_by(name, "replaced") > replaced
    site.assert_running()


async def test_idle_connections_delay_no_callback_and_keep_no_operator_out(site: Site) -> None:
    async with site.session.get(f"http://127.0.0.1:{site.console}/events", headers=AUTHORIZED) as stream:
        assert stream.status == 200
        await asyncio.gather(
            _unharmed_by_idle(site, "ingress", site.ingress, site.call_back_once),
            _unharmed_by_idle(site, "console", site.console, site.list_calls),
        )
        assert not stream.content.at_eof()
        assert stream.connection is not None


async def test_forms_with_a_wrong_token_and_slow_requests_delay_no_callback(site: Site) -> None:
    before = await undisturbed(site.call_back)
    async with AsyncExitStack() as opened:
        slow = [
            *await _opened(site.ingress, SLOW, opened, b"GET /callbacks/acme?token="),
            *await _opened(site.ingress, SLOW, opened, post("/callbacks/acme", body=b"a", length=1000)),
            *await _opened(site.console, SLOW, opened, post("/login", body=b"a", length=1000)),
        ]
        dribbling = [asyncio.create_task(_dribbled(connection)) for connection in slow]
        command = [sys.executable, "-m", "tests.helpers.form_attack", str(site.ingress), f"{ATTACK_S}", str(ATTACKERS)]
        attacker = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        async with within_bounds(*site.fleet.processes), measuring(site.call_back) as during:
            written, _ = await attacker.communicate()
        await asyncio.gather(*dribbling)
    assert int(written) >= ATTACKERS
    assert_unharmed(during, before, limit_s=LIMIT_OF_DESIGN_S)
    ended = [await site.closed_by(*which) for which in (("ingress", "head"), ("ingress", "body"), ("console", "body"))]
    assert min(ended) >= SLOW, ended
    site.assert_running()


async def _dribbled(connection: Connection) -> None:
    """Send a byte now and then until the server has closed the connection."""

    async def dribble() -> None:
        while True:
            await asyncio.sleep(0.5)
            connection.writer.write(b"a")

    dribbling = asyncio.create_task(dribble())
    await connection.is_closed()
    dribbling.cancel()
