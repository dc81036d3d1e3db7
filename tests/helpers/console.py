"""A console among real servers and processes, a dial endpoint that misbehaves on request, and reading server-sent events."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from redis.asyncio import Redis

from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from console.service import serve
from shared.config.settings import load_settings
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, call_back, eventually

KEY = "operator-key-0123456789abcdef"
VIEWER_KEY = "viewer-key-0123456789abcdef"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
AS_VIEWER = {"Authorization": f"Bearer {VIEWER_KEY}"}

Play = Callable[[web.Request], Awaitable[web.StreamResponse]]


class DialEndpoint:
    """FocalScope's dial API. `plays` says what an agent's requests get; others get the next RequestID as FocalScope writes it."""

    def __init__(self, first: int = 50_000) -> None:
        self.plays: dict[str, Play] = {}
        self.asked: dict[str, list[Mapping[str, str]]] = defaultdict(list)
        self.port = free_port()
        self._next = first

    def next_id(self) -> int:
        self._next += 1
        return self._next

    async def _on_dial(self, request: web.Request) -> web.StreamResponse:
        agent = request.query["agent"]
        self.asked[agent].append(dict(request.query) | {"": str(request.rel_url.raw_query_string)})
        if agent in self.plays:
            return await self.plays[agent](request)
        return web.Response(text=f"{{RequestID:{self.next_id()}}}", content_type="text/html")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/dial", self._on_dial)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            yield
        finally:
            await runner.cleanup()


def answering(text: str, *, status: int = 200, content_type: str = "text/html", **headers: str) -> Play:
    async def play(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, content_type=content_type, headers=headers)

    return play


@dataclass(slots=True)
class World:
    """A fleet with its ports. `console` is the first console's address."""

    servers: Servers
    fleet: Fleet
    session: aiohttp.ClientSession
    dialing: DialEndpoint
    ingress_port: int
    consoles: dict[str, str] = field(default_factory=dict)
    roles: dict[str, ServiceProcess] = field(default_factory=dict)
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def console(self) -> str:
        return next(iter(self.consoles.values()))

    def idempotency_key(self, name: str) -> str:
        """Return a key that no other world uses: `dials.journal` knows the keys of earlier tests, although Redis was emptied."""
        return f"{name}-{self.name}"

    def add_console(self, name: str, **more: str) -> ServiceProcess:
        port = free_port()
        self.consoles[name] = f"http://127.0.0.1:{port}"
        self.roles[name] = self.fleet.add(name, "console", {"CALLFOLD_CONSOLE_PORT": str(port), **more})
        return self.roles[name]

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in self.roles["console"].environment.items() if name.startswith("CALLFOLD_")}

    async def ask(
        self,
        method: str,
        path: str,
        *,
        console: str = "console",
        headers: Mapping[str, str] | None = None,
        **more: Any,  # noqa: ANN401
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Ask a console; returns status, body (parsed where it is JSON), headers."""
        address = path if path.startswith("http") else self.consoles[console] + path
        async with self.session.request(method, address, headers=headers, allow_redirects=False, **more) as response:
            body = await response.read()
            told = orjson.loads(body) if body and "json" in response.content_type else body
            return response.status, told, response.headers

    async def get(self, path: str, **more: Any) -> tuple[int, Any, Mapping[str, str]]:  # noqa: ANN401
        return await self.ask("GET", path, **more)

    async def call_back(self, queries: list[str], source: str = "acme") -> None:
        assert await call_back(self.ingress_port, queries, source=source) == [200] * len(queries)

    async def timeline(self, call: str, **expected: object) -> Any:  # noqa: ANN401
        """Wait until a call's detail agrees, and the journal was read to its end, for which a console has only seconds."""
        return await self.detail(call, is_timeline_whole=True, **expected)

    async def detail(self, call: str, **expected: object) -> Any:  # noqa: ANN401
        """Wait until a call's detail agrees."""

        async def agrees() -> Any:  # noqa: ANN401
            status, told, _ = await self.get(f"/calls/{call}", headers=AUTHORIZED)
            return told if status == 200 and all(told[name] == value for name, value in expected.items()) else None

        return await eventually(agrees)

    async def knows_reference(self, call: str) -> None:
        """Wait until the dial of a call is folded: it is answered before that."""

        async def is_folded() -> bool:
            status, detail, _ = await self.get(f"/calls/{call}", headers=AUTHORIZED)
            return status == 200 and detail["record"]["reference"] is not None

        await eventually(is_folded)


def sources(directory: Path, text: str) -> str:
    """Write a sources file; returns its path."""
    path = directory / "sources.toml"
    path.write_text(text, "utf-8")
    return str(path)


def acme(directory: Path, *lines: str) -> str:
    """Write a sources file with one source, `acme`; returns its path."""
    return sources(directory, "\n".join(("[sources.acme]", *lines, "")))


@asynccontextmanager
async def world(servers: Servers, text: str, *roles: str, **more: str) -> AsyncIterator[World]:
    """Start a dial endpoint and a fleet of `roles` (ingress, worker, console...); `{port}` in the sources is the endpoint's."""
    dialing, port = DialEndpoint(), free_port()
    more.setdefault("CALLFOLD_SOURCES", sources(servers.directory, text.replace("{port}", str(dialing.port))))
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with (
        dialing.running(),
        servers.fleet(**more) as fleet,
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=300)) as session,
    ):
        made = World(servers, fleet, session, dialing, port)
        for role in roles:
            if role.startswith("console"):
                made.add_console(role)
            elif role == "ingress":
                made.roles[role] = fleet.add(role, role, {"CALLFOLD_INGRESS_PORT": str(port)})
            else:
                made.roles[role] = fleet.add(role, "console.history" if role == "history" else role, {})
        await fleet.start_all()
        yield made


@asynccontextmanager
async def console_here(servers: Servers, monkeypatch: pytest.MonkeyPatch, **more: str) -> AsyncIterator[str]:
    """Run a console in this process; yields its address. Stopped as by SIGTERM."""
    port = free_port()
    with monkeypatch.context() as environment:
        for name, value in servers.environment(CALLFOLD_CONSOLE_PORT=str(port), **more).items():
            environment.setenv(name, value)
        settings = load_settings()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(settings, stop))
    url = f"http://127.0.0.1:{port}"
    try:
        await eventually(lambda: _answers(url, task))
        yield url
    finally:
        stop.set()
        await asyncio.wait_for(task, LIMIT_S)


async def _answers(url: str, task: asyncio.Task[None]) -> bool:
    if task.done():
        task.result()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/openapi.json"):
            return True
    except aiohttp.ClientConnectorError:
        return False


@asynccontextmanager
async def redis_of(servers: Servers) -> AsyncIterator[Redis]:
    redis = Redis.from_url(servers.stack.redis_url)
    try:
        yield redis
    finally:
        await redis.aclose()


@dataclass(frozen=True, slots=True)
class Sent:
    """One server-sent event."""

    id: int
    event: str
    data: Mapping[str, Any]


async def read_events(response: aiohttp.ClientResponse) -> AsyncIterator[Sent]:
    """Read a stream of server-sent events to its end."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields and "id" in fields:
            yield Sent(int(fields["id"]), fields["event"], orjson.loads(fields["data"]))
        fields = {}
