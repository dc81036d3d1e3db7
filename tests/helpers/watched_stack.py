"""A running installation with calls, recordings and dials, which Prometheus watches."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp
from aiohttp import web

from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from console.local.rabbitmq_node import DEPLOY
from shared.runtime.process import background
from tests.helpers import full_disk
from tests.helpers.prometheus import Prometheus, prometheus
from tests.helpers.recordings import WAV
from tests.helpers.servers import Servers, connected, lines_of

SECRET, PREVIOUS_SECRET = "present-word-for-tests", "previous-word-for-tests"
CONSOLE_KEY = "key-of-the-console-in-tests"
_PAUSE_S = 0.3


# An attempt that fails is repeated once soon, and then not before the fault is repaired.
_RETRY_S = "5,600"


@dataclass(slots=True)
class Pbx:
    """Serves recordings, or refuses them with a status."""

    status: int = 200
    url: str = ""

    async def handle(self, _: web.Request) -> web.Response:
        body = WAV if self.status == HTTPStatus.OK else b""
        return web.Response(status=self.status, body=body, content_type="audio/wav")


@dataclass(slots=True)
class Watched:
    """The installation. Its attributes are what a fault changes."""

    servers: Servers
    fleet: Fleet
    prometheus: Prometheus
    pbx: Pbx
    ingress_port: int
    console_port: int
    policies: list[dict[str, object]]
    token: str = SECRET
    calls: int = 0
    _request_ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    def process(self, name: str) -> ServiceProcess:
        return next(process for process in self.fleet.processes if process.name == name)

    @property
    def sources_file(self) -> Path:
        return self.servers.directory / "sources.toml"

    @property
    def full_archive(self) -> Path:
        """While this file exists, writes to the archive meet a full disk."""
        return self.servers.directory / "full"

    async def send(self, query: str, *, token: str | None = None) -> int:
        """Send one callback; returns its status."""
        url = f"http://127.0.0.1:{self.ingress_port}/callbacks/acme?token={token or self.token}&{query}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            await response.read()
            return response.status

    async def keep_calling(self) -> None:
        """Send calls until cancelled, whether or not they are answered."""
        while True:
            for line in lines_of(next(self._request_ids)):
                with suppress(aiohttp.ClientError, TimeoutError):
                    await self.send(line)
                await asyncio.sleep(_PAUSE_S)
            self.calls += 1


@asynccontextmanager
async def watched(servers: Servers, *, every_s: int) -> AsyncIterator[Watched]:
    """Run every role, with two workers, and a Prometheus that scrapes them."""
    ports, pbx, policies = {"ingress": free_port(), "console": free_port()}, Pbx(), shipped_policies()

    async def management(request: web.Request) -> web.Response:
        return web.json_response(policies if request.path.startswith("/api/policies") else [])

    async with _serving("/rec", pbx.handle) as pbx.url, _serving("/api/{tail:.*}", management) as management_url:
        sources = servers.directory / "sources.toml"
        sources.write_text(
            f'[sources.acme]\nsecret = "{SECRET}"\nprevious_secrets = ["{PREVIOUS_SECRET}"]\n'
            f'recording_url = "{pbx.url}/rec?nId={{call_id}}"\n'
        )
        settings = {
            "CALLFOLD_SOURCES": str(sources),
            "CALLFOLD_CONSOLE_KEY": CONSOLE_KEY,
            "CALLFOLD_CONSOLE_PORT": str(ports["console"]),
            "CALLFOLD_INGRESS_PORT": str(ports["ingress"]),
            "CALLFOLD_HISTORY_URL": f"sqlite:///{servers.directory / 'history.sqlite'}",
            "CALLFOLD_MANAGEMENT_URL": management_url,
            "CALLFOLD_RECORDING_RETRY_SECONDS": _RETRY_S,
            full_disk.VARIABLE: str(servers.directory / "full"),
        }
        async with servers.fleet(**settings) as fleet:
            for name, module in (
                ("ingress", "ingress"),
                ("worker-1", "worker"),
                ("worker-2", "worker"),
                ("console", "console"),
                ("history", "console.history"),
            ):
                fleet.add(name, module, {})
            await fleet.start_all()
            await connected(*fleet.processes)
            targets: dict[str, list[int]] = {}
            for process in fleet.processes:
                targets.setdefault(f"callfold-{process.name.partition('-')[0]}", []).append(process.metrics_port)
            async with prometheus(servers.directory / "prometheus", targets, every_s=every_s) as running:
                stack = Watched(servers, fleet, running, pbx, ports["ingress"], ports["console"], policies)
                async with background(stack.keep_calling()):
                    yield stack


@asynccontextmanager
async def _serving(path: str, handle: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """Serve a path of an HTTP server; yields its URL."""
    app = web.Application()
    app.add_routes([web.get(path, handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def shipped_policies() -> list[dict[str, object]]:
    """Return the policies as the management API of RabbitMQ does."""
    policies: list[dict[str, object]] = json.loads((DEPLOY / "definitions.json").read_text("utf-8"))["policies"]
    return policies
