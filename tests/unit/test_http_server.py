"""The HTTP server of the console and of every private port: no endless time, no lost request, few descriptors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from shared.runtime.connections import Connections, HttpLimits
from shared.runtime.descriptors import backlog, connection_limit
from shared.runtime.health import listen
from shared.runtime.http_server import Runner
from tests.helpers.raw_http import connected_to, get, post

AT_ONCE_S = 0.2
CHUNKED = "Transfer-Encoding: chunked"
PATIENT = HttpLimits(head_s=600, body_s=600, idle_s=600, send_s=600)
MANY = 16
# More than the kernel holds for a client that reads nothing.
LARGE = 64 << 20

Start = Callable[[HttpLimits], AbstractAsyncContextManager[int]]


@web.middleware
async def _with_status(request: web.Request, handler: Callable[[web.Request], object]) -> web.StreamResponse:
    try:
        return await handler(request)  # type: ignore[misc, no-any-return]
    except web.RequestPayloadError:
        return web.Response(status=400)


@pytest.fixture
def start() -> Start:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    @asynccontextmanager
    async def serve(limits: HttpLimits) -> AsyncIterator[int]:
        app = web.Application(middlewares=[_with_status])
        app.add_routes([web.route("*", "/", echo), web.route("*", "/large", large)])
        runner = Runner(
            app,
            lambda status, text: web.Response(status=status, text=text),
            Connections("test", MANY, limits),
            shutdown_timeout_s=10,
        )
        await runner.setup()
        try:
            yield await listen(runner, ("127.0.0.1", 0), "none")
        finally:
            await runner.cleanup()

    return serve


@pytest.mark.parametrize("headers", [("Upgrade: h2c", "Connection: upgrade"), ("connection: Upgrade", "UPGRADE:websocket"), ()])
@pytest.mark.parametrize("cut", [None, 30, 44])
async def test_requests_behind_an_upgrade_are_answered(start: Start, headers: tuple[str, ...], cut: int | None) -> None:
    stream = get("/", *headers) + get("/") + get("/", *headers) + post("/", body=b"\r\n\r\n" * 100) + get("/")
    async with start(PATIENT) as port, connected_to(port) as connection:
        await connection.send(*((stream,) if cut is None else (stream[:cut], stream[cut:])))
        assert [await connection.response() for _ in range(5)] == [*[(200, b"")] * 3, (200, b"\r\n\r\n" * 100), (200, b"")]


async def test_a_body_with_an_upgrade_ends_its_connection_so_that_nothing_behind_it_is_lost_in_silence(start: Start) -> None:
    async with start(PATIENT) as port, connected_to(port) as connection:
        await connection.send(post("/", "Upgrade: h2c", "Connection: upgrade", body=b"a=b") + get("/"))
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" in head.lower()
        assert await connection.is_closed()


async def test_a_body_that_does_not_arrive_in_time_is_refused(start: Start) -> None:
    async with start(HttpLimits(body_s=AT_ONCE_S)) as port, connected_to(port) as connection:
        await connection.send(post("/", body=b"a", length=2))
        assert await connection.status() == 408
        assert await connection.is_closed()


@pytest.mark.parametrize("begun", [b"", b"GE", b"GET / HTTP/1.1\r\n"])
async def test_a_head_that_is_not_complete_in_time_ends_its_connection(start: Start, begun: bytes) -> None:
    async with start(HttpLimits(head_s=AT_ONCE_S)) as port, connected_to(port) as connection:
        await connection.send(begun)
        assert await connection.is_closed()


@pytest.mark.parametrize("bad", [b"zz\r\n", b"5\r\naaaaaXX"])
async def test_a_chunked_body_that_is_refused_later_gets_an_answer(start: Start, bad: bytes) -> None:
    async with start(PATIENT) as port, connected_to(port) as connection:
        await connection.send(post("/", CHUNKED, body=b"3\r\na=b\r\n"), bad)
        assert await connection.status() == 400
        assert await connection.is_closed()


@pytest.mark.parametrize(
    ("raw", "status", "sentence"),
    [
        (get("/", "X-Big: " + "a" * 9216), 431, b"A header is longer than 8190 bytes."),
        (get("/", *(f"X-{number}: a" for number in range(200))), 431, b"The request has more than 128 headers."),
        (get("/?" + "a" * 9216), 414, b"The request line is longer than 8192 bytes."),
        (b"GET / HTTP/1.1\r\nNo colon\r\n\r\n", 400, b"This is not a valid HTTP request."),
    ],
)
async def test_a_head_that_is_refused_says_why(start: Start, raw: bytes, status: int, sentence: bytes) -> None:
    async with start(PATIENT) as port, connected_to(port) as connection:
        await connection.send(raw)
        assert await connection.response() == (status, sentence)


async def test_at_the_maximum_the_oldest_idle_connection_makes_room(start: Start) -> None:
    async with start(PATIENT) as port, AsyncExitStack() as opened:
        connections = [await opened.enter_async_context(connected_to(port)) for _ in range(MANY + 5)]
        assert await connections[-1].is_open(get("/"))
        assert all([await connection.is_closed() for connection in connections[:5]])
        assert all([await connection.is_open(get("/")) for connection in connections[5:]])


async def test_a_client_that_leaves_within_a_response_and_its_own_body_is_no_error(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(PATIENT) as port, connected_to(port) as connection:
        await connection.send(post("/large", body=b"a", length=2))
        await connection.reader.readuntil(b"\r\n\r\n")
        connection.writer.transport.abort()
    assert not [record for record in caplog.records if record.name.startswith("aiohttp")]


def test_connections_leave_descriptors_for_other_work() -> None:
    assert [connection_limit(4096, descriptors) for descriptors in (64, 256, 1024, 5000, 1 << 20)] == [16, 192, 768, 4096, 4096]
    assert [backlog(descriptors) for descriptors in (64, 1024, 1 << 20)] == [16, 128, 1024]


def test_a_process_raises_its_limit_of_descriptors() -> None:
    code = "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (100, 300))\n"
    code += "from shared.runtime.descriptors import raise_descriptor_limit\nassert raise_descriptor_limit() == 300\n"
    subprocess.run([sys.executable, "-c", code], check=True)
