"""Two ingress processes behind a load balancer, and callbacks that are sent through it without a pause."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from console.local.child_process import kill_with_parent
from console.local.ports import free_port
from console.local.processes import Fleet
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, connected, eventually, lines_of

SECRET = "hunter2-hunter2"
SENDERS = 10
# Between two callbacks of a sender: a steady stream, not a flood that hides a pause.
PACE_S = 0.03
MORE = 200


@dataclass(slots=True)
class Site:
    """Two ingress processes, and a load balancer in front of them."""

    servers: Servers
    fleet: Fleet
    ports: list[int]
    public: int
    log: Path
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.public}"

    def log_lines(self) -> list[str]:
        return self.log.read_text("utf-8").splitlines()


@asynccontextmanager
async def two_ingresses(servers: Servers, *, drain_s: str, log: Path) -> AsyncIterator[Site]:
    """Two ingress processes with a spool each, as on two machines, and a free port for the load balancer."""
    sources = servers.directory / "sources.toml"
    sources.write_text(f'[sources.acme]\nsecret = "{SECRET}"\n')
    ports = [free_port(), free_port()]
    async with servers.fleet(CALLFOLD_SOURCES=str(sources), CALLFOLD_DRAIN_SECONDS=drain_s) as fleet:
        for number, port in enumerate(ports, start=1):
            spool = str(servers.directory / f"spool-{number}")
            fleet.add(f"ingress-{number}", "ingress", {"CALLFOLD_INGRESS_PORT": str(port), "CALLFOLD_SPOOL_DIR": spool})
        await fleet.start_all()
        await connected(*fleet.processes)
        yield Site(servers, fleet, ports, free_port(), log)


@asynccontextmanager
async def load_balancer(
    command: Sequence[str], environment: Mapping[str, str], output: Path, url: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """A load balancer that answers at `url`; what it prints is in `output`."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    with output.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *kill_with_parent(), *command, env=os.environ | environment | {"PATH": path}, stdout=out, stderr=out
        )
    try:

        async def answers() -> bool:
            assert process.returncode is None, output.read_text()
            try:
                async with aiohttp.ClientSession() as session, session.get(f"{url}/callbacks/acme", ssl=tls or True) as response:
                    return response.status == 401
            except aiohttp.ClientError:
                return False

        await eventually(answers)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@dataclass(slots=True)
class Stream:
    """Callbacks of many calls, sent at the same time until the stream is stopped."""

    site: Site
    done: asyncio.Event = field(default_factory=asyncio.Event)
    answers: Counter[int | str] = field(default_factory=Counter)
    sent: set[str] = field(default_factory=set)
    _request_ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    async def send(self, *, keep_alive: bool) -> None:
        connector = aiohttp.TCPConnector(force_close=not keep_alive, ssl=self.site.tls or True)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not self.done.is_set():
                for line in lines_of(next(self._request_ids)):
                    self.sent.add(line)
                    await self.send_one(session, line)
                    await asyncio.sleep(PACE_S)

    async def send_one(self, session: aiohttp.ClientSession, line: str) -> None:
        try:
            async with session.get(f"{self.site.url}/callbacks/acme?token={SECRET}&{line}") as response:
                await response.read()
                self.answers[response.status] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1

    async def more(self) -> None:
        wanted = self.answers.total() + MORE

        async def reached() -> bool:
            return self.answers.total() >= wanted

        await eventually(reached)


async def raw(port: int, request: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Send bytes and read until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), LIMIT_S)
    finally:
        writer.close()
