"""Dial requests: what FocalScope is asked, what each of its answers means, and that one phone rings, however often it is asked for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from redis.asyncio import Redis

from tests.helpers.console import AUTHORIZED, KEY, Play, World, answering, redis_of, world
from tests.helpers.pace import LIMIT_S, paced
from tests.helpers.servers import Event, Servers, eventually, lines_of, next_events

_HASTY_S = paced(3)
_OTHER_KEY = "another-key-0123456789abcdef"


_SOURCES = """
[sources.acme]
dial_url = "http://127.0.0.1:{port}/dial?agent={agent}&number={queue_prefix}{number}&ref={reference}&adapter=main"
[sources.odd]
dial_url = "http://127.0.0.1:{port}/dial?agent={agent}&number={queue_prefix}{number}&ref={reference}"
agent_pattern = "(?s).+"
number_pattern = "(?s).+"
allow_feature_codes = true
[sources.strict]
dial_url = "http://127.0.0.1:{port}/dial?agent={agent}&number={number}"
agent_pattern = "1[0-9]{3}"
allow_numbers = ["+45*", "112"]
deny_numbers = ["+4590*"]
[sources.scarce]
dial_url = "http://127.0.0.1:{port}/dial?agent={agent}&number={number}"
dials_per_day = 2
[sources.away]
dial_url = "http://127.0.0.1:1/dial?agent={agent}&number={number}"
[sources.mute]
"""


@pytest_asyncio.fixture(scope="module")
async def here(shared_servers: Servers) -> AsyncIterator[World]:
    more = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_DIAL_TIMEOUT_SECONDS": f"{LIMIT_S:g}", "CALLFOLD_DIALS_PER_MINUTE": "100000"}
    async with world(shared_servers, _SOURCES, "ingress", "worker", "console", **more) as made:
        few = {"CALLFOLD_CONSOLE_KEY": _OTHER_KEY, "CALLFOLD_DIALS_PER_MINUTE": "3"}
        hasty = made.add_console("hasty", CALLFOLD_DIAL_TIMEOUT_SECONDS=_HASTY_S)
        for role in (made.add_console("other", **few), made.add_console("second"), hasty):
            await role.start()
        yield made


async def _dial(
    here: World, parameters: Mapping[str, object] | None = None, *, key: str = "", console: str = "console", **wanted: object
) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {_OTHER_KEY if console == 'other' else KEY}"}
    headers |= {"Idempotency-Key": here.idempotency_key(key)} if key else {}
    body = {"source": "acme", "number": "+4512345678"} | dict(parameters or {}) | wanted
    status, told, _ = await here.ask("POST", "/dial", console=console, headers=headers, json=body)
    return status, told


async def _asked_twice(here: World, *, key: str, agent: str, console: str = "console") -> list[tuple[int, Any]]:
    return [await _dial(here, key=key, agent=agent, console=console) for _ in range(2)]


async def test_a_dial_is_answered_with_the_request_id_and_asked_as_the_template_says(here: World) -> None:
    status, told = await _dial(here, agent="1001", queue_prefix="9", reference="crm-42")
    assert (status, told["source"], told["dial_state"]) == (201, "acme", "accepted")
    assert here.dialing.asked["1001"] == [
        {
            "agent": "1001",
            "number": "9+4512345678",
            "ref": "crm-42",
            "adapter": "main",
            "": "agent=1001&number=9%2B4512345678&ref=crm-42&adapter=main",
        }
    ]
    assert isinstance(told["request_id"], int)


@pytest.mark.parametrize("evil", ["1&agent=2", "a=b", "x#y", "a b+c", "Søren 😀", "%26", "a;b", "{number}", "../..", "\r\nX: y"])
async def test_no_value_can_add_a_parameter_or_change_on_its_way(here: World, evil: str) -> None:
    agent, number, reference = f"a{evil}", f"n{evil}", f"r{evil}"
    status, _ = await _dial(here, source="odd", agent=agent, number=number, reference=reference)
    assert status == 201
    (asked,) = here.dialing.asked.pop(agent)
    told = {name: value for name, value in asked.items() if name}
    assert told == {"agent": agent, "number": number, "ref": reference}
    assert all(character.isalnum() or character in "%&=-._~{}" for character in asked[""])


def _in_pieces(*pieces: bytes) -> Play:
    async def play(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.05)
        return response

    return play


async def _not_compressed(_: web.Request) -> web.StreamResponse:
    return web.Response(text='{"requestid":513,"Status":"OK"}', headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    "play",
    [
        answering("{RequestID:513}"),
        answering('{"RequestID":513}', content_type="application/json"),
        answering(' \r\n{ "RequestID" : "513" }\n'),
        _in_pieces(b"{Reque", b"stID:5", b"13}"),
        answering("{RequestID:513}", status=202),
        _not_compressed,
    ],
    ids=["unquoted", "JSON", "whitespace", "in pieces", "accepted", "not compressed"],
)
async def test_each_way_of_writing_the_request_id_is_understood(here: World, play: Play) -> None:
    here.dialing.plays["written"] = play
    status, told = await _dial(here, agent="written")
    assert (status, told["request_id"]) == (201, 513)


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"{" * 10_000)
        await asyncio.sleep(0)


async def _broken(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    await asyncio.Event().wait()
    raise AssertionError


async def _silent(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def _trickling(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.1)


_BAD_ANSWERS: dict[str, tuple[Play, int, str, str]] = {
    "no request id": (answering("{RequestID:}"), 502, "unknown", "no RequestID"),
    "request id 0": (answering("{RequestID:0}"), 502, "unknown", "no RequestID"),
    "two of them": (answering("{RequestID:1}{RequestID:2}"), 502, "unknown", "no single RequestID"),
    "an error": (answering('{"error":"no such agent"}', content_type="application/json"), 502, "unknown", "no such agent"),
    "a page": (answering("\n<!doctype html><title>Log in</title>"), 502, "unknown", "with an HTML page"),
    "empty": (answering(""), 502, "unknown", "empty"),
    "blank": (answering(" \r\n"), 502, "unknown", "empty"),
    "not found": (answering("{RequestID:513}", status=404), 502, "refused", "status 404"),
    "accepted": (answering("{}", status=202), 502, "unknown", "no RequestID"),
    "server error": (answering("{RequestID:513}", status=500), 502, "unknown", "status 500"),
    "redirect": (answering("", status=302, Location="/dial?agent=elsewhere&number=1"), 502, "unknown", "status 302"),
    "busy": (answering("", status=409), 502, "unknown", "status 409"),
    "mark": (answering("\ufeff{}"), 502, "unknown", "no RequestID"),
    "endless": (_endless, 502, "unknown", "longer than"),
    "trickling": (_trickling, 504, "unknown", f"within {_HASTY_S} s"),
    "broken": (_broken, 504, "unknown", "was lost"),
    "cut": (_in_pieces(b"{Request"), 502, "unknown", "no RequestID"),
    "silent": (_silent, 504, "unknown", f"within {_HASTY_S} s"),
}


@pytest.mark.parametrize("name", _BAD_ANSWERS)
async def test_each_bad_answer_has_its_own_error_and_is_asked_for_once(here: World, name: str) -> None:
    play, expected, state, sentence = _BAD_ANSWERS[name]
    agent = name.replace(" ", "-")
    here.dialing.plays[agent] = play
    status, problem = await _dial(here, agent=agent, console="hasty" if play in {_silent, _trickling} else "console")
    assert (status, problem["status"], problem["dial_state"]) == (expected, expected, state)
    assert sentence in problem["title"]
    assert (await _dial(here, agent="next"))[0] == 201  # whatever was to be asked again has been asked by then
    # A client that gives up soon may do so before the endpoint has read its request.
    asked = len(here.dialing.asked.pop(agent, []))
    assert asked == 1 or (asked == 0 and expected == 504)
    assert not here.dialing.asked["elsewhere"]


async def test_a_connection_that_is_refused_dialed_nothing(here: World) -> None:
    status, told = await _dial(here, source="away", agent="1001")
    assert (status, told["dial_state"]) == (502, "refused")


async def test_a_dial_without_answer_is_never_dialed_again_under_its_key(here: World) -> None:
    here.dialing.plays["quiet"] = _silent
    first, second = await _asked_twice(here, agent="quiet", key="quiet-1", console="hasty")
    assert first == second
    assert (first[0], first[1]["dial_state"]) == (504, "unknown")
    assert len(here.dialing.asked["quiet"]) <= 1


async def test_the_answer_to_a_key_is_kept_for_a_day(here: World) -> None:
    assert (await _dial(here, agent="day", key="day-1"))[0] == 201
    who, key = hashlib.sha256(KEY.encode()).hexdigest()[:12], here.idempotency_key("day-1")
    async with redis_of(here.servers) as redis:
        left_s = await redis.ttl(f"callfold:dial:answer:{hashlib.sha256(f'{who}/{key}'.encode()).hexdigest()}")
    assert 86_000 <= left_s <= 86_400


async def test_a_repeat_gets_the_first_answer_and_another_body_is_refused(here: World) -> None:
    first, second = await _asked_twice(here, agent="repeat", key="repeat-1")
    assert first == second
    assert first[0] == 201
    status, told = await _dial(here, agent="repeat", key="repeat-1", number="+4587654321")
    assert (status, told["parameter"], told["dial_state"]) == (422, "Idempotency-Key", "refused")
    assert len(here.dialing.asked["repeat"]) == 1
    assert (await _dial(here, agent="repeat", key="repeat-2"))[1]["request_id"] != first[1]["request_id"]
    assert len(here.dialing.asked["repeat"]) == 2


async def _have_asked(redis: Redis, times: int) -> bool:
    return bool((await redis.info("commandstats")).get("cmdstat_get", {}).get("calls", 0) >= times)


@pytest.mark.parametrize("consoles", [("console",), ("console", "second")], ids=["one console", "two consoles"])
async def test_two_hundred_equal_requests_at_once_are_one_dial_and_two_hundred_equal_answers(
    here: World, consoles: tuple[str, ...]
) -> None:
    agent = f"crowd{len(consoles)}"

    async def slow(_: web.Request) -> web.StreamResponse:
        async with redis_of(here.servers) as redis:
            await redis.config_resetstat()
            await eventually(partial(_have_asked, redis, 400))  # most of them are waiting for this answer
        return web.Response(text=f"{{RequestID:{here.dialing.next_id()}}}")

    here.dialing.plays[agent] = slow
    asking = (_dial(here, agent=agent, key=agent, console=consoles[number % len(consoles)]) for number in range(200))
    answers = await asyncio.gather(*asking)
    assert len(here.dialing.asked[agent]) == 1
    assert answers == [answers[0]] * 200
    assert answers[0][0] == 201


async def test_a_key_is_its_holders_own(here: World) -> None:
    _, ours = await _dial(here, agent="scope", key="scope-1")
    status, theirs = await _dial(here, agent="scope", key="scope-1", console="other")
    assert status == 201
    assert ours["request_id"] != theirs["request_id"]
    status, told = await _dial(here, agent="scope", key="scope-1", number="112")
    assert status == 422, told


async def test_what_was_refused_can_be_tried_again_under_its_key(here: World) -> None:
    here.dialing.plays["again"] = answering("wrong link", status=404)
    assert (await _dial(here, agent="again", key="again-1"))[0] == 502
    del here.dialing.plays["again"]
    assert (await _dial(here, agent="again", key="again-1"))[0] == 201
    assert (await _dial(here, source="strict", agent="again", key="again-2"))[0] == 400
    assert len(here.dialing.asked["again"]) == 2


@pytest.mark.parametrize(
    ("wanted", "expected", "parameter"),
    [
        ({"source": "none", "agent": "1001"}, 404, "source"),
        ({"source": "mute", "agent": "1001"}, 409, "source"),
        ({"agent": "10 01"}, 400, "agent"),
        ({"agent": ""}, 400, "agent"),
        ({"agent": "1001", "number": "+45 12 34"}, 400, "number"),
        ({"agent": "1001", "number": "12\n"}, 400, "number"),
        ({"agent": "1001", "number": 112}, 400, "number"),
        ({"source": "strict", "agent": "2001"}, 400, "agent"),
        ({"source": "strict", "agent": "1001", "number": "+4612345678"}, 403, "number"),
        ({"source": "strict", "agent": "1001", "number": "+4590123456"}, 403, "number"),
        ({"source": "strict", "agent": "1001", "number": "004590123456"}, 403, "number"),
        ({"agent": "1001", "number": "*21*004590123456#"}, 403, "number"),
        ({"agent": "1001", "queue_prefix": "*21*"}, 403, "queue_prefix"),
        ({"agent": "1001", "queue_prefix": "9&x"}, 400, "queue_prefix"),
        ({"agent": "1001", "reference": "r" * 257}, 400, "reference"),
        ({"agent": "1001", "metadata": {"a b": "c"}}, 400, "metadata"),
        ({"agent": "1001", "metadata": {str(n): "c" for n in range(21)}}, 400, "metadata"),
        ({"agent": "1001", "nummer": "1"}, 400, "nummer"),
    ],
)
async def test_what_may_not_be_dialed_is_refused_with_the_name_of_the_parameter(
    here: World, wanted: dict[str, object], expected: int, parameter: str
) -> None:
    before = sum(map(len, here.dialing.asked.values()))
    status, told = await _dial(here, wanted)
    assert (status, told["dial_state"]) == (expected, "refused")
    assert told["parameter"].partition(".")[0] == parameter
    assert sum(map(len, here.dialing.asked.values())) == before


async def test_allowed_numbers_are_dialed(here: World) -> None:
    for number in ("+4512345678", "112"):
        assert (await _dial(here, source="strict", agent="1001", number=number))[0] == 201


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"source":"acme","agent":"\\ud800","number":"1"}', "application/json", 400),
        (b"agent=1001", "application/x-www-form-urlencoded", 415),
        (b'{"source":"acme","agent":"1001","number":"112"}', "text/plain", 415),
        (b" " * 70_000, "application/json", 413),
    ],
)
async def test_a_body_that_is_no_dial_request_is_refused(here: World, body: bytes, content_type: str, expected: int) -> None:
    headers = AUTHORIZED | {"Content-Type": content_type}
    status, told, answered = await here.ask("POST", "/dial", headers=headers, data=body)
    assert (status, told["status"], answered["Content-Type"]) == (expected, expected, "application/problem+json")


async def test_a_strange_idempotency_key_is_refused_or_taken_as_it_is(here: World) -> None:
    body = orjson.dumps({"source": "acme", "agent": "strange", "number": "112"})
    headers = AUTHORIZED | {"Content-Type": "application/json", "Idempotency-Key": "k" * 256}
    status, told, _ = await here.ask("POST", "/dial", headers=headers, data=body)
    assert (status, told["parameter"]) == (400, "Idempotency-Key")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(here.console.rpartition(":")[2]))
    head = f"POST /dial HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    head += f"Connection: close\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Idempotency-Key: \xff\xfe\r\n\r\n" + body)
    answer = await asyncio.wait_for(reader.read(), LIMIT_S)
    writer.close()
    assert answer.startswith((b"HTTP/1.1 201", b"HTTP/1.1 400"))


async def test_more_than_so_many_a_minute_are_refused_and_can_be_tried_later(here: World) -> None:
    wanted = {"source": "acme", "agent": "rated", "number": "112"}
    headers = {"Authorization": f"Bearer {_OTHER_KEY}"}
    expected = [201, 201, 201, 429, 429, 429]
    async with redis_of(here.servers) as redis:

        async def one_minute() -> tuple[list[int], Any, str]:
            """Ask six times; returns the statuses, and of the last answer its body and when to try again."""
            for name in await redis.keys("callfold:dial:rate:*"):
                await redis.delete(name)
            statuses = [(await _dial(here, console="other", agent="rated"))[0] for _ in range(5)]
            status, body, answered = await here.ask("POST", "/dial", console="other", headers=headers, json=wanted)
            return [*statuses, status], body, answered.get("Retry-After", "")

        # Requests that straddle two minutes count twice; then again, at the beginning of the second one.
        found = await one_minute()
        if found[0] != expected:
            found = await one_minute()
    statuses, body, retry_after_s = found
    assert (statuses, body["dial_state"]) == (expected, "refused")
    assert 1 <= int(retry_after_s) <= 60
    assert (await _dial(here, source="strict", agent="9", console="other"))[0] == 400  # what is wrong is not counted


async def test_more_than_so_many_a_day_are_refused_until_the_next_day(here: World) -> None:
    async def one_day() -> list[int]:
        return [(await _dial(here, source="scarce", agent="1001"))[0] for _ in range(3)]

    found = await one_day()
    if found != [201, 201, 429]:  # midnight came in the middle
        found = await one_day()
    assert found == [201, 201, 429]
    headers = AUTHORIZED | {"Content-Type": "application/json"}
    body = {"source": "scarce", "agent": "1001", "number": "112"}
    status, told, answered = await here.ask("POST", "/dial", headers=headers, json=body)
    assert (status, told["dial_state"], "dials_per_day" in told["title"]) == (429, "refused", True)
    assert 0 < int(answered["Retry-After"]) <= 86_400


async def _completed(queue: Any, request_id: int) -> Event:  # noqa: ANN401
    while True:
        for event in await next_events(queue, 1):
            if event.body["data"]["request_id"] == request_id:
                return event


@pytest.mark.parametrize("first", ["answer", "callbacks"])
async def test_reference_and_metadata_are_in_the_record_whichever_comes_first(here: World, first: str) -> None:
    request_id, agent = here.dialing.next_id(), f"first-{first}"
    lines = lines_of(request_id)

    async def play(_: web.Request) -> web.StreamResponse:
        if first == "callbacks":
            await here.call_back(lines[:2])
            await here.detail(f"acme/{request_id}", status="talking")
        return web.Response(text=f"{{RequestID:{request_id}}}")

    here.dialing.plays[agent] = play
    wanted = {"reference": "crm-42", "metadata": {"campaign": "Größe", "n": "1"}, "number": "+4512345678"}
    async with here.servers.subscribed("call.completed.acme.*") as queue:
        assert await _dial(here, wanted, agent=agent) == (
            201,
            {"request_id": request_id, "source": "acme", "dial_state": "accepted"},
        )
        if first == "answer":
            told = await here.detail(f"acme/{request_id}", status="ringing")
            assert told["record"]["reference"] == "crm-42"
            await here.call_back(lines[:2])
        else:
            await here.knows_reference(f"acme/{request_id}")
        await here.call_back(lines[2:])
        event = await _completed(queue, request_id)
    data = event.body["data"]
    assert (data["outcome"], data["reference"], data["metadata"]) == ("answered", "crm-42", wanted["metadata"])
    assert (data["dial"]["agent"], data["dial"]["number"]) == (agent, "+4512345678")


async def test_a_dial_that_is_journaled_after_the_end_of_its_call_amends_it(here: World) -> None:
    request_id = here.dialing.next_id()

    async def play(_: web.Request) -> web.StreamResponse:
        await here.call_back(lines_of(request_id))
        await here.detail(f"acme/{request_id}", status="complete", published_revision=1)
        return web.Response(text=f"{{RequestID:{request_id}}}")

    here.dialing.plays["late"] = play
    async with here.servers.subscribed("call.amended.acme.*") as queue:
        assert (await _dial(here, agent="late", reference="crm-43"))[0] == 201
        event = await _completed(queue, request_id)
    assert (event.body["data"]["reference"], event.body["data"]["revision"]) == ("crm-43", 2)


async def test_what_is_journaled_is_no_longer_kept(here: World) -> None:
    assert (await _dial(here, agent="kept"))[0] == 201
    async with redis_of(here.servers) as redis:
        assert await eventually(lambda: _is_gone(redis))


async def _is_gone(redis: Any) -> bool:  # noqa: ANN401
    return not await redis.exists("callfold:dial:unjournaled")


async def test_an_empty_idempotency_key_is_no_key(here: World) -> None:
    status, told, _ = await here.ask(
        "POST", "/dial", headers=AUTHORIZED | {"Idempotency-Key": ""}, json={"source": "acme", "agent": "empty", "number": "112"}
    )
    assert (status, told["parameter"], told["dial_state"]) == (400, "Idempotency-Key", "refused")
