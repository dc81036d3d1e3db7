"""Request lines with blanks and bytes that are not ASCII, in whatever segments they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
import pytest_asyncio

from console.local.ports import free_port
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, connected

TARGET = b"/callbacks/default?CallType=API&Event=pickup&CallID=%d&RequestID=7&ResponderAgent="


def _get(agent: bytes, number: int = 5) -> bytes:
    return b"GET " + TARGET % number + agent + b" HTTP/1.1\r\nHost: a b\r\n\r\n"


def _post(body: bytes, agent: bytes = b"x") -> bytes:
    return b"POST " + TARGET % 6 + agent + b" HTTP/1.1\r\nHost: x\r\nCONTENT-length: %d\r\n\r\n" % len(body) + body


@pytest_asyncio.fixture
async def ingress(servers: Servers) -> AsyncIterator[tuple[int, Servers]]:
    port = free_port()
    async with servers.fleet() as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await fleet.start_all()
        await connected(*fleet.processes)  # else it answers out of its spool
        yield port, servers


Ingress = tuple[int, Servers]


async def _answers(port: int, segments: Sequence[bytes], count: int = 1) -> list[tuple[int, bytes]]:
    """Send bytes in segments of their own over one connection; returns status and content type of the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for segment in segments:
        writer.write(segment)
        await writer.drain()
        await asyncio.sleep(0.05)
    answers = []
    try:
        async with asyncio.timeout(LIMIT_S):
            for _ in range(count):
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
                answers.append((int(head.split()[1]), head.partition(b"content-type: ")[2].split()[0]))
    finally:
        writer.close()
        await writer.wait_closed()
    return answers


async def _agents(servers: Servers) -> list[str]:
    events = [event for message in await servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]
    return [event["query"].rpartition("ResponderAgent=")[2] for event in events]


async def test_an_agents_name_is_taken_as_it_is_in_one_segment_and_in_several(ingress: Ingress) -> None:
    port, servers = ingress
    for agent, query in ((b"Ole Olsen", "Ole%20Olsen"), ("Søren Ærø".encode(), "S%C3%B8ren%20%C3%86r%C3%B8")):
        request = _get(agent)
        name = request.index(agent)
        for cut in (0, 8, name + 3, name + len(agent), len(request) - 1):
            assert (await _answers(port, [request[:cut], request[cut:]]))[0][0] == 200
        assert await _agents(servers) == [query] * 5


async def test_requests_that_follow_each_other_on_one_connection_are_all_taken(ingress: Ingress) -> None:
    port, servers = ingress
    requests = [_get(b"A A"), _get(b"B"), _post(b"", b"C C"), _post(b"x=GET /a b HTTP/1.1\r\n\r\n"), _get(b"\xc3\xb8")]
    stream = b"".join(requests)
    middle = stream.index(b"B")
    assert [status for status, _ in await _answers(port, [stream[:middle], stream[middle:]], 5)] == [200] * 5
    # A body without a type is a form if it looks like one.
    assert await _agents(servers) == ["A%20A", "B", "C%20C", "x&x=GET /a b HTTP/1.1", "%C3%B8"]


async def test_a_target_in_absolute_form_is_taken(ingress: Ingress) -> None:
    port, servers = ingress
    for scheme, agent in ((b"http://hooks.example.com", b"A A"), (b"HTTPS://[::1]:8443", b"B")):
        assert (await _answers(port, [_get(agent).replace(b" /", b" " + scheme + b"/", 1)]))[0][0] == 200
    assert (await _answers(port, [b"GET http://hooks.example.com HTTP/1.1\r\nHost: x\r\n\r\n"]))[0][0] == 404
    assert await _agents(servers) == ["A%20A", "B"]


async def test_after_a_chunked_body_the_connection_is_closed(ingress: Ingress) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", ingress[0])
    writer.write(b"POST " + TARGET % 6 + b"x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200")


REFUSED = {
    "long as it came": ([_get(b"a " * 4200)], 414),
    "long once encoded": ([_get(b"\xc3\xb8 " * 2600)], 200),
    "long for the parser": ([_get(b"a " * 21_000)], 414),
    "long and plain": ([_get(b"a" * 9000)], 414),
    "long and plain for the parser": ([_get(b"a" * 42_000)], 414),
    "long after empty lines": ([b"\r\n\r\n" + _get(b"a" * 9000)], 414),
    "long in segments": ([b"GET /callbacks/default?", *[b"a" * 5000] * 2, b" HTTP/1.1\r\nHost: x\r\n\r\n"], 414),
    "long without an end": ([b"GET /", *[b"a \xff" * 1000] * 6], 414),
    "not too long": ([_get(b"a" * 5000 + b" a" * 300)], 200),
    "no version": ([b"GET /callbacks/default?a b\r\n\r\n"], 400),
    "bare line feeds": ([b"GET /callbacks/default?a b HTTP/1.1\nHost: x\n\n"], 400),
    "a header's name": ([b"GET ", b"/callbacks/default?a b HTTP/1.1\r\nHo st: x\r\n\r\n"], 400),
    "no HTTP at all": ([b"\x16\x03\x01\x02\x00\x01\x00"], 400),
}


async def test_what_is_too_long_or_no_http_is_refused_with_problem_details(ingress: Ingress) -> None:
    answers = {what: (await _answers(ingress[0], segments))[0] for what, (segments, _) in REFUSED.items()}
    assert {what: status for what, (status, _) in answers.items()} == {what: status for what, (_, status) in REFUSED.items()}
    assert {kind for status, kind in answers.values() if status >= 400} == {b"application/problem+json"}


def _of_length(line_bytes: int, filling: bytes) -> bytes:
    """A request whose line has so many bytes, as they are sent."""
    request = _get(b"", 1)
    missing = line_bytes - request.index(b"\r\n")
    return _get((filling * missing)[: missing // len(filling) * len(filling)] + b"x" * (missing % len(filling)), 1)


@pytest.mark.parametrize("filling", [b"a", b" a", "ø".encode(), b"%20"], ids=["plain", "blanks", "raw UTF-8", "encoded"])
async def test_a_line_is_as_long_as_it_was_sent_whatever_its_bytes_become_and_however_they_are_cut(
    ingress: Ingress, filling: bytes
) -> None:
    port, servers = ingress
    for length, status in ((2940, 200), (8192, 200), (8193, 414)):
        request = _of_length(length, filling)
        assert request.index(b"\r\n") == length
        for cut in (0, 3000, length - 3, length + 1):
            # What follows on the connection is answered too.
            answers = await _answers(port, [request[:cut], request[cut:] + _get(b"B B")], 2)
            assert [got for got, _ in answers] == [status, 200], (length, cut)
    agents = await _agents(servers)
    assert len(agents) == 4 * 3 + 4 * 2
    assert agents.count("B%20B") == 4 * 3
