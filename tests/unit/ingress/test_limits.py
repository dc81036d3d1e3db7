"""The HTTP server of ingress takes no endless time, no endless body and no endless number of connections."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ingress.body_formats import percent_encoded
from ingress.callbacks import CallbackHandler
from ingress.group_commit import GroupCommit
from ingress.outgoing_message import OutgoingMessage
from ingress.server import serving
from shared.config.sources import load_sources
from shared.domain.adapter_link import find_secret, take_secret
from shared.runtime.connections import HttpLimits
from tests.helpers.intake import counted, published_at_once
from tests.helpers.pace import LIMIT_S
from tests.helpers.raw_http import Connection, connected_to, get, post

SECRET = "hunter2-hunter2"
LINE = "CallType=API&Event=pickup&CallID=77&RequestID=513"
GOOD = f"/callbacks/acme?token={SECRET}&{LINE}"
WRONG = f"/callbacks/acme?token=wrong&{LINE}"
FORM = f"token={SECRET}&{LINE}".encode()
KIB_64 = 64 * 1024
CHUNKED = "Transfer-Encoding: chunked"
AT_ONCE_S = 0.2
MANY = 16
# Nothing ends within this time in a test that passes.
PATIENT = HttpLimits(head_s=600, body_s=600, idle_s=600, send_s=600)


@dataclass(slots=True)
class Site:
    """An ingress without RabbitMQ: every callback is durable at once."""

    port: int
    accepted: list[bytes] = field(default_factory=list)
    dead_letters: list[OutgoingMessage] = field(default_factory=list)


Start = Callable[[HttpLimits], AbstractAsyncContextManager[Site]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    (tmp_path / "sources.toml").write_text(f'[sources.acme]\nsecret = "{SECRET}"\n')

    @asynccontextmanager
    async def serve(limits: HttpLimits) -> AsyncIterator[Site]:
        site = Site(0)

        async def write(events: Sequence[bytes]) -> None:
            site.accepted.extend(events)

        async def send(message: OutgoingMessage) -> None:
            site.dead_letters.append(message)

        commit = GroupCommit(write)
        sources = load_sources(tmp_path / "sources.toml")
        handler = CallbackHandler(sources, published_at_once(sources, commit), send, counted())
        running = asyncio.create_task(commit.run())
        serves = serving(handler, "127.0.0.1", 0, shutdown_timeout_s=10, max_connections=MANY, limits=limits)
        async with serves as site.port:
            yield site
        running.cancel()

    return serve


async def test_a_wrong_token_in_the_query_is_refused_before_the_body_arrives(start: Start) -> None:
    # An ingress that waits for the body answers 408.
    async with start(HttpLimits(body_s=AT_ONCE_S)) as site, connected_to(site.port) as connection:
        await connection.send(post(WRONG, length=KIB_64))
        assert await connection.status() == 401
        assert await connection.is_closed()


async def test_a_form_with_a_wrong_token_that_is_sent_whole_costs_no_connection(start: Start) -> None:
    async with start(PATIENT) as site, connected_to(site.port) as connection:
        await connection.send(post(WRONG, body=b"a=b") + get(GOOD))
        assert [await connection.status(), await connection.status()] == [401, 200]


async def test_a_token_in_the_body_alone_is_enough(start: Start) -> None:
    async with start(PATIENT) as site, connected_to(site.port) as connection:
        for body in (FORM, b"\r\n" + FORM, FORM.replace(b"token", b"%74oke%6E")):
            await connection.send(post("/callbacks/acme", body=body))
            assert await connection.status() == 200
        for body in (FORM.replace(b"token", b"Token"), b"token&" + FORM, LINE.encode(), b"a"):
            await connection.send(post("/callbacks/acme", body=body))
            assert await connection.status() == 401
        assert len(site.accepted) == 3


async def test_a_form_of_64_kib_is_taken_and_a_larger_one_refused_before_it_arrives(start: Start) -> None:
    largest = FORM.ljust(KIB_64)
    async with start(PATIENT) as site:
        async with connected_to(site.port) as connection:
            await connection.send(post("/callbacks/acme", body=largest))
            assert await connection.status() == 200
        async with connected_to(site.port) as connection:
            await connection.send(post("/callbacks/acme", length=KIB_64 + 1))
            assert await connection.status() == 413
            assert await connection.is_closed()
        async with connected_to(site.port) as connection:
            await connection.send(post("/callbacks/acme", CHUNKED, body=b"10001\r\n" + b"a" * (KIB_64 + 1)))
            assert await connection.status() == 413


async def test_a_client_that_waits_for_100_continue_is_asked_for_its_form_if_its_token_may_be_right(start: Start) -> None:
    async with start(PATIENT) as site:
        for target, answer in (("/callbacks/acme", b"HTTP/1.1 100 Continue\r\n\r\n"), (WRONG, b"HTTP/1.1 401 Unauthorized\r\n")):
            async with connected_to(site.port) as connection:
                await connection.send(post(target, "Expect: 100-Continue", length=len(FORM)))
                async with asyncio.timeout(LIMIT_S):
                    assert await connection.reader.readexactly(len(answer)) == answer
                if target != WRONG:
                    await connection.send(FORM)
                    assert await connection.status() == 200
        assert len(site.accepted) == 1


async def test_a_form_that_does_not_arrive_in_time_is_refused(start: Start) -> None:
    async with start(HttpLimits(body_s=AT_ONCE_S)) as site, connected_to(site.port) as connection:
        await connection.send(post("/callbacks/acme", body=FORM[:-1], length=len(FORM)))
        status, body = await connection.response()
        assert status == 408
        assert b'"title":"Request Timeout"' in body
        assert await connection.is_closed()


@pytest.mark.parametrize("before", [b"", get(GOOD)])
@pytest.mark.parametrize("begun", [b"GET /callbacks/acme?tok", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000])
async def test_a_head_that_is_not_complete_in_time_ends_its_connection(start: Start, before: bytes, begun: bytes) -> None:
    async with start(HttpLimits(head_s=AT_ONCE_S, idle_s=600)) as site, connected_to(site.port) as connection:
        if before:
            await connection.send(before)
            assert await connection.status() == 200
        await connection.send(begun)
        assert await connection.is_closed()


async def test_connections_without_a_request_end(start: Start) -> None:
    async with start(HttpLimits(head_s=AT_ONCE_S, idle_s=AT_ONCE_S)) as site, connected_to(site.port) as silent:
        assert await silent.is_closed()
        async with connected_to(site.port) as idle:
            await idle.send(get(GOOD))
            assert await idle.status() == 200
            assert await idle.is_closed()


async def test_a_client_that_reads_no_response_is_dropped(start: Start) -> None:
    async with start(HttpLimits(send_s=AT_ONCE_S)) as site, connected_to(site.port, buffer_bytes=4096) as connection:
        with pytest.raises(ConnectionError):
            await _send_for_ever(connection)


async def _send_for_ever(connection: Connection) -> None:
    async with asyncio.timeout(LIMIT_S):
        while True:
            connection.writer.write(get(WRONG) * 100)
            await connection.writer.drain()


async def test_at_the_maximum_the_oldest_idle_connection_makes_room(start: Start) -> None:
    async with start(PATIENT) as site, AsyncExitStack() as opened:
        connections = [await opened.enter_async_context(connected_to(site.port)) for _ in range(MANY)]
        for connection in connections:
            assert await connection.is_open(get(GOOD))
        assert await connections[0].is_open(get(GOOD))  # so that the second is the oldest
        newest = await opened.enter_async_context(connected_to(site.port))
        assert await newest.is_open(get(GOOD))
        assert await connections[1].is_closed()
        assert all([await connection.is_open(get(GOOD)) for connection in (connections[0], *connections[2:])])


async def test_at_the_maximum_a_connection_that_was_answered_makes_room_before_one_that_waits(start: Start) -> None:
    async with start(PATIENT) as site, AsyncExitStack() as opened:
        idle = [await opened.enter_async_context(connected_to(site.port)) for _ in range(MANY - 2)]
        answered = [await opened.enter_async_context(connected_to(site.port)) for _ in range(2)]
        for connection in idle:
            assert await connection.is_open(get(GOOD))
        # One is refused before its form is read, one because its form is too large. The rest of both forms never comes.
        for connection, target, length in ((answered[0], WRONG, KIB_64), (answered[1], "/callbacks/acme", KIB_64 + 1)):
            await connection.send(post(target, body=b"a", length=length))
            assert await connection.status() in {401, 413}
        newer = [await opened.enter_async_context(connected_to(site.port)) for _ in range(2)]
        assert all([await connection.is_open(get(GOOD)) for connection in (*newer, *idle)])


async def test_at_the_maximum_busy_connections_are_kept_and_a_new_one_is_refused(start: Start) -> None:
    async with start(PATIENT) as site, AsyncExitStack() as opened:
        connections = [await opened.enter_async_context(connected_to(site.port)) for _ in range(MANY)]
        for connection in connections:
            # The form begins in the step in which the first response is sent.
            await connection.send(get(GOOD) + post(GOOD, length=len(FORM)))
            assert await connection.status() == 200
        refused = await opened.enter_async_context(connected_to(site.port))
        assert await refused.is_closed()
        for connection in connections:
            await connection.send(b"&" * len(FORM))
            assert await connection.status() == 200
        late = await opened.enter_async_context(connected_to(site.port))
        assert await late.is_open(get(GOOD))


@pytest.mark.parametrize(
    ("target", "header", "status"),
    [(GOOD, "a" * 9000, 431), (GOOD, "a" * 40_000, 431), (GOOD + "&x=" + "a" * 9000, "a", 414), (GOOD + "a" * 60_000, "a", 414)],
    ids=["header", "longer header", "line", "line too long for the parser"],
)
async def test_a_long_header_is_not_taken_for_a_long_line(start: Start, target: str, header: str, status: int) -> None:
    async with start(PATIENT) as site, connected_to(site.port) as connection:
        await connection.send(get(target, f"X-Big: {header}"))
        answered, body = await connection.response()
        assert answered == status
        assert (b"A header is longer than 8190 bytes." in body) == (status == 431)


async def test_too_many_headers_are_refused_in_their_own_words(start: Start) -> None:
    async with start(PATIENT) as site, connected_to(site.port) as connection:
        await connection.send(get(GOOD, *(f"X-{number}: a" for number in range(200))))
        status, body = await connection.response()
        assert status == 431
        assert b"The request has more than 128 headers." in body


XML = "Content-Type: text/xml"


@pytest.mark.parametrize(
    ("query", "status", "dead_letters"),
    [
        ("", 415, 0),
        (f"?token={SECRET}", 415, 1),
        (f"?token={SECRET}&CallType=API&Event=pickup", 415, 1),
        (f"?token={SECRET}&{LINE}", 200, 0),
        (f"?{LINE}", 415, 0),  # the body may have the token
        (f"?token=wrong&{LINE}", 401, 0),
    ],
)
async def test_a_body_of_another_type_is_refused_unless_the_query_has_the_callback(
    start: Start, query: str, status: int, dead_letters: int
) -> None:
    async with start(PATIENT) as site, connected_to(site.port) as connection:
        await connection.send(post(f"/callbacks/acme{query}", XML, body=b"<a/>"))
        assert await connection.status() == status
        assert len(site.dead_letters) == dead_letters


async def test_a_body_with_an_encoding_is_refused_and_never_decompressed(start: Start) -> None:
    async with start(PATIENT) as site:
        for body in (b"junk", gzip.compress(b"a=" + b"a" * (64 << 20))):
            async with connected_to(site.port) as connection:
                await connection.send(post("/callbacks/acme", "Content-Encoding: gzip", body=body))
                assert await connection.status() == 415


async def test_a_chunked_body_that_is_refused_later_gets_an_answer(start: Start) -> None:
    async with start(PATIENT) as site:
        for bad in (b"zz\r\n", b"5\r\naaaaaXX"):
            async with connected_to(site.port) as connection:
                await connection.send(post("/callbacks/acme", CHUNKED, body=b"3\r\na=b\r\n"), bad)
                assert await connection.status() == 400
                assert await connection.is_closed()


async def test_a_client_that_leaves_within_its_form_is_no_error_of_ingress(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(PATIENT) as site:
        for target in ("/callbacks/acme", WRONG):
            async with connected_to(site.port) as connection:
                await connection.send(get(GOOD) + post(target, body=b"a", length=9))
                assert await connection.status() == 200
        async with connected_to(site.port) as connection:
            assert await connection.is_open(get(GOOD))
    assert "request_failed" not in capsys.readouterr().out


UPGRADES = [("Upgrade: h2c", "Connection: upgrade"), ("connection: Upgrade", "UPGRADE:websocket"), ("Upgrade: h2c",)]


@pytest.mark.parametrize("headers", UPGRADES)
@pytest.mark.parametrize("cut", [None, 10, 75])
async def test_requests_behind_an_upgrade_are_answered(start: Start, headers: tuple[str, ...], cut: int | None) -> None:
    requests = [post(GOOD, *headers, body=b"a=b"), get(GOOD, *headers), get(GOOD), get(GOOD, *headers), get(GOOD)]
    stream = b"".join(requests)
    async with start(PATIENT) as site, connected_to(site.port) as connection:
        await connection.send(*((stream,) if cut is None else (stream[:cut], stream[cut:])))
        assert [await connection.status() for _ in requests] == [200] * len(requests)


@given(st.binary(max_size=40))
def test_a_form_is_encoded_byte_by_byte(form: bytes) -> None:
    assert percent_encoded(form) == "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in form)


PARTS = ["token", "=", "&", "%74oken", "tok%65n", "to%6ben", "%6", "x", "+", "%2B", "%C3%B8", "token=", "&token=a b", "%26"]


@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
def test_the_secret_is_found_where_it_would_be_taken(query: str) -> None:
    assert find_secret(query.encode()) == take_secret(query)[0]


REFUSED = [
    (get(WRONG), 401),
    (get(f"/callbacks/acme?{LINE}"), 401),
    (post("/callbacks/acme", length=KIB_64 + 1), 413),
    (get(GOOD + "a" * 9000), 414),
    (get("http://hooks.example.com" + GOOD + "a" * 60_000), 414),
    (post("/callbacks/acme", XML, body=b"<a/>"), 415),
    (post("/callbacks/acme", "Content-Encoding: gzip", body=b"junk"), 415),
    (get("/callbacks/nobody?a=b"), 404),
    (get(GOOD).replace(b"GET", b"PUT"), 405),
    (get(GOOD, "X-Big: " + "a" * 9000), 431),
    (get(GOOD).replace(b"Host: x", b"Host"), 400),
]


async def test_each_kind_of_refusal_is_a_line_a_minute_that_quotes_nothing(start: Start) -> None:
    structlog.configure(cache_logger_on_first_use=False)
    unknown = get(f"/callbacks/nobody?token={SECRET}&x={'a' * 9000}")
    with capture_logs() as logs:
        async with start(PATIENT) as site:
            for request, status in [*REFUSED, *REFUSED, (unknown, 414)]:
                async with connected_to(site.port) as connection:
                    await connection.send(request)
                    assert await connection.status() == status
    lines = [line for line in logs if line["event"] == "callback_refused"]
    found = [(line["source"], line["status"], line["reason"]) for line in lines]
    assert found == [
        ("acme", 401, "wrong_secret"),
        ("acme", 413, "body_too_large"),
        ("acme", 414, "line_too_long"),
        ("acme", 415, "body_unreadable"),
        ("acme", 415, "body_unreadable"),
        (None, 404, "unknown_source"),
        ("acme", 405, "wrong_method"),
        (None, 431, "headers_too_long"),
        (None, 400, "not_http"),
        (None, 414, "line_too_long"),
    ]
    assert {line["log_level"] for line in lines} == {"warning"}
    assert {line["peer"] for line in lines} == {"127.0.0.1"}
    assert lines[4]["failures"] == 2
    assert SECRET not in str(logs)
    assert "CallID" not in str(logs)


@pytest.mark.parametrize(
    ("request_bytes", "advice"),
    [
        (get(WRONG), b"The parameter token is missing or wrong. Compare with `callfold adapter-link acme`."),
        (post("/callbacks/acme", length=KIB_64 + 1), b"Shorten the link."),
        (get(GOOD + "a" * 9000), b"Send it as a POST form, or shorten the link."),
    ],
)
async def test_a_refusal_says_what_to_do(start: Start, request_bytes: bytes, advice: bytes) -> None:
    async with start(PATIENT) as site, connected_to(site.port) as connection:
        await connection.send(request_bytes)
        _, body = await connection.response()
        assert advice in body
