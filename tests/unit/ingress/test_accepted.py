"""The answer to an accepted callback: what ingress writes itself is what the library would write."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.helpers.pace import LIMIT_S
from tests.helpers.raw_http import Connection, connected_to, get, post
from tests.helpers.site import Start, site_of

LINE = "CallType=API&Event=pickup&CallID=77&RequestID=513"
TARGET = f"/callbacks/acme?{LINE}"
CLOSES = "Connection: close"
USUAL = [get(TARGET), post(TARGET), post("/callbacks/acme", body=LINE.encode())]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return site_of(tmp_path, "[sources.acme]\n")


async def _head(connection: Connection) -> str:
    """Read one response to a callback; returns its head without the date."""
    async with asyncio.timeout(LIMIT_S):
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode()
        assert await connection.reader.readexactly(9) == b"accepted\n"
    head, dates = re.subn(r"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", "", head)
    assert dates == 1
    return head


@pytest.mark.parametrize("request_bytes", USUAL, ids=["GET", "POST", "form"])
async def test_the_answer_on_a_kept_connection_is_that_of_the_library(start: Start, request_bytes: bytes) -> None:
    async with start() as site:
        async with connected_to(site.port) as connection:
            await connection.send(request_bytes * 3)
            kept = [await _head(connection) for _ in range(3)]
        async with connected_to(site.port) as connection:
            await connection.send(request_bytes.replace(b"Host: x", f"Host: x\r\n{CLOSES}".encode()))
            closing = await _head(connection)
            assert await connection.is_closed()
        assert closing.count(f"{CLOSES}\r\n") == 1
        assert kept == [closing.replace(f"{CLOSES}\r\n", "")] * 3
        assert len(site.accepted) == 4


async def test_a_client_of_http_1_0_is_told_that_its_connection_is_kept(start: Start) -> None:
    async with start() as site, connected_to(site.port) as connection:
        for _ in range(2):
            await connection.send(get(TARGET, "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"))
            head = await _head(connection)
            assert head.startswith("HTTP/1.0 200 OK\r\n")
            assert "Connection: keep-alive\r\n" in head
        await connection.send(get(TARGET).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert "Connection" not in await _head(connection)
        assert await connection.is_closed()


async def test_a_callback_whose_body_is_still_to_come_is_answered_and_the_connection_closed(start: Start) -> None:
    async with start() as site, connected_to(site.port) as connection:
        await connection.send(get(TARGET, "Content-Length: 9"))
        assert f"{CLOSES}\r\n" in await _head(connection)
        assert await connection.is_closed()
        assert len(site.accepted) == 1


@pytest.mark.parametrize("request_bytes", USUAL, ids=["GET", "POST", "form"])
async def test_the_library_builds_no_answer_to_a_usual_request(
    start: Start, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built() -> None:
        raise AssertionError("the library built the answer")

    monkeypatch.setattr("ingress.server.accepted", built)
    async with start() as site, connected_to(site.port) as connection:
        await connection.send(request_bytes)
        assert (await _head(connection)).startswith("HTTP/1.1 200 OK\r\n")


async def test_a_client_that_goes_before_its_answer_costs_only_its_connection(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset() -> bytes:
        raise ConnectionResetError

    async with start() as site:
        with monkeypatch.context() as broken, capture_logs() as logs:
            broken.setattr("ingress.server.accepted_bytes", reset)
            async with connected_to(site.port) as connection:
                await connection.send(get(TARGET))
                assert await connection.is_closed()
        async with connected_to(site.port) as connection:
            await connection.send(get(TARGET))
            assert (await _head(connection)).startswith("HTTP/1.1 200 OK\r\n")
        assert len(site.accepted) == 2
    assert [line for line in logs if line["log_level"] == "error"] == []
