"""Looking calls up over HTTP: what is open, what Redis keeps, and what only the history still has."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

import aio_pika
import orjson
import pytest
import pytest_asyncio

from console.call_query import CallQuery
from console.history.store import History
from tests.helpers.console import AUTHORIZED, KEY, World, redis_of, world
from tests.helpers.history import call_event
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, callfold, eventually, lines_of
from tests.helpers.vcons import problems_of

# The history reads its stream from the beginning: what other tests published must not be mixed up with ours.
_SOURCE = f"l{uuid.uuid4().hex[:10]}"


# What an adapter tells is believed where it is not long ago.
_START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=6)


_START_MS = int(_START.timestamp()) * 1000


_CALLS = 70


@pytest_asyncio.fixture(scope="module")
async def here(shared_servers: Servers) -> AsyncIterator[World]:
    text = (
        f'[sources.{_SOURCE}]\ndial_url = "http://127.0.0.1:{{port}}/dial?agent={{agent}}&number={{number}}"\n[sources.other]\n'
    )
    more = {
        "CALLFOLD_CONSOLE_KEY": KEY,
        "CALLFOLD_HISTORY_URL": f"sqlite:///{shared_servers.directory / 'history.sqlite'}",
        "CALLFOLD_SETTLE_SECONDS": f"{LIMIT_S:g}",
        "CALLFOLD_LEG_GRACE_SECONDS": f"{2 * LIMIT_S:g}",
    }
    async with world(shared_servers, text, "ingress", "worker", "history", "console", **more) as made:
        yield made


def _at(seconds: float, hours_east: int = 0) -> str:
    """Write a time, so many seconds after the first start, as those east of Greenwich do."""
    return (_START + timedelta(seconds=seconds)).astimezone(timezone(timedelta(hours=hours_east))).isoformat()


def _line(request_id: int | None, call_type: str, event: str, call_id: int, **more: str) -> str:
    told = {"CallType": call_type, "Event": event, "CallID": str(call_id)} | (
        {"RequestID": str(request_id)} if request_id else {}
    )
    return urlencode(told | more)


def _answered(request_id: int, start_ms: int, **more: str) -> list[str]:
    """A call that both answered: the agent's leg began at `start_ms`."""
    agent, dialed = request_id * 10, request_id * 10 + 1
    began = {"StartTimestampUTC": str(start_ms)}
    return [
        _line(request_id, "API", "pickup", agent, **began),
        _line(request_id, "Outgoing", "pickup", dialed, **began, **more),
        _line(request_id, "Outgoing", "hangup", dialed, **began),
        _line(request_id, "API", "hangup", agent, **began),
    ]


@pytest_asyncio.fixture(scope="module")
async def filled(here: World) -> World:
    """Many complete calls, most with a start that others have too, in Redis and in the history."""
    for number in range(_CALLS):
        start_ms = _START_MS + (number // 20) * 1000
        more = {"CallerID": f"+4530{number:06}", "ResponderAgentExt": str(1000 + number % 3)}
        await here.call_back(_answered(1000 + number, start_ms, **more), _SOURCE)
    await eventually(lambda: _are_in_the_history(here, _CALLS))
    return here


async def _are_in_the_history(here: World, count: int) -> bool:
    async with aclosing(History(here.environment()["CALLFOLD_HISTORY_URL"])) as history:
        return len([row async for _, row in history.newest(CallQuery(source=_SOURCE, limit=500), None) if row]) >= count


async def _find(here: World, **asked: object) -> list[dict[str, Any]]:
    """Read all pages."""
    rows: list[dict[str, Any]] = []
    path: str | None = "/calls?" + urlencode({"source": _SOURCE} | asked)
    while path:
        status, told, headers = await here.get(path, headers=AUTHORIZED)
        assert status == 200, told
        rows += told["calls"]
        assert (told["next"] is None) == ("Link" not in headers)
        path = headers["Link"].partition(">")[0][1:] if "Link" in headers else None
    return rows


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["call"] for row in rows]


async def _forget(here: World, request_id: int | str) -> None:
    """Let Redis lose the facts of a call, as after its retain time."""
    async with redis_of(here.servers) as redis:
        (name,) = await redis.keys(f"callfold:*:facts:{_SOURCE}/{request_id}")
        await redis.delete(name)


@pytest.mark.parametrize("limit", [pytest.param(1, marks=pytest.mark.volume), 7, 50, 500])
async def test_pages_hold_every_call_once_newest_start_first(filled: World, limit: int) -> None:
    rows = await _find(filled, limit=limit, until=_at(100), since=_at(-100))
    assert sorted(_names(rows)) == sorted(str(1000 + number) for number in range(_CALLS))
    places = [(row["started_at"], f"{row['source']}/{row['call']}") for row in rows]
    assert places == sorted(places, reverse=True)
    assert len({at for at, _ in places}) == 4


async def test_pages_out_of_redis_and_the_history_hold_every_call_once_while_calls_come_and_are_forgotten(filled: World) -> None:
    moments = random.Random(513)  # noqa: S311 - a seed
    for number in moments.sample(range(_CALLS), 30):
        await _forget(filled, 1000 + number)

    async def disturb() -> None:
        for number in range(40):
            await filled.call_back(_answered(20_000 + number, _START_MS + 10_000_000 + number), _SOURCE)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(disturb())
    until = _at(100)
    seen = [_names(await _find(filled, limit=limit, until=until)) for limit in (3, 8, 19)]
    await task
    for names in seen:
        assert sorted(names) == sorted(str(1000 + number) for number in range(_CALLS))

    async def all_there() -> bool:
        return len(set(_names(await _find(filled, limit=6)))) >= _CALLS + 40

    await eventually(all_there)


async def test_a_call_whose_start_moved_after_it_was_published_is_listed_once(here: World) -> None:
    await here.call_back(_answered(3000, _START_MS + 5_000_000, CallerID="+4533"), _SOURCE)
    await eventually(lambda: _are_found(here, 1, number="+4533"))
    earlier = _line(3000, "API", "start", 30000, StartTimestampUTC=str(_START_MS + 4_000_000))
    await here.call_back([earlier], _SOURCE)

    async def moved() -> bool:
        rows = await _find(here, number="+4533")
        assert len(rows) == 1
        return bool(datetime.fromisoformat(rows[0]["started_at"]) == _START + timedelta(seconds=4000))

    await eventually(moved)
    assert len(await _find(here, number="+4533", limit=1)) == 1


async def _are_found(here: World, count: int, **asked: object) -> bool:
    return len(await _find(here, **asked)) == count


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"number": "+4530000007"}, {7}),
        ({"number": "+453*0007"}, {7}),
        ({"number": "+45300000?7"}, set()),
        ({"number": "[+]4530000007"}, set()),
        ({"number": "%"}, set()),
        ({"number": "*000001*"}, {1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}),
        ({"agent": "1001", "number": "*3000000*"}, {1, 4, 7}),
        ({"outcome": "answered", "number": "+4530000007"}, {7}),
        ({"outcome": "agent_missed", "number": "+4530000007"}, set()),
        ({"state": "complete", "number": "+4530000007"}, {7}),
        ({"state": "open", "number": "+4530000007"}, set()),
        ({"recorded": "false", "number": "+4530000007"}, {7}),
        ({"recorded": "true", "number": "+4530000007"}, set()),
        ({"since": _at(2), "until": _at(3)}, set(range(40, 60))),
        ({"since": _at(2, 2), "until": _at(2.999999, -3)}, set(range(40, 60))),
        ({"source": "other", "number": "+4530000007"}, set()),
    ],
)
@pytest.mark.parametrize("place", ["Redis", "history"])
async def test_each_filter_finds_what_it_says_in_both_places(
    filled: World, asked: Mapping[str, str], expected: set[int], place: str
) -> None:
    if place == "history":
        async with redis_of(filled.servers) as redis:
            for name in await redis.keys(f"callfold:*:facts:{_SOURCE}/1???"):
                await redis.delete(name)
    rows = await _find(filled, **asked)
    assert {int(name) - 1000 for name in _names(rows)} == expected


async def test_open_calls_are_found_by_their_state_and_their_dial(here: World) -> None:
    lines = [
        _line(4001, "API", "pickup", 40010),
        _line(4002, "API", "pickup", 40020),
        _line(4002, "API", "hangup", 40020),
    ]
    await here.call_back(lines, _SOURCE)
    dial = {"source": _SOURCE, "agent": "1077", "number": "+4577", "reference": "open-1"}
    status, told, _ = await here.ask("POST", "/dial", headers=AUTHORIZED, json=dial)
    assert status == 201
    dialed = str(told["request_id"])
    await eventually(lambda: _are_found(here, 1, reference="open-1"))
    for asked, expected in (
        ({"state": "ringing"}, [dialed]),
        ({"state": "talking"}, ["4001"]),
        ({"state": "ending"}, ["4002"]),
        ({"state": "open"}, [dialed, "4001", "4002"]),
        ({"reference": "open-1"}, [dialed]),
        ({"reference": "open-*"}, []),
        ({"agent": "10*7", "state": "open"}, [dialed]),
        ({"number": "+4577"}, [dialed]),
        ({"since": "5m", "state": "open"}, [dialed, "4001", "4002"]),
        ({"until": "5m", "state": "open"}, []),
    ):
        rows = await _find(here, **asked)
        assert sorted(_names(rows)) == sorted(expected), asked
        assert all(row["outcome"] is None and row["ended_at"] is None for row in rows)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("stat=open", "stat"),
        ("state=shut", "state"),
        ("outcome=", "outcome"),
        ("state=open&state=complete", "state"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("recorded=maybe", "recorded"),
        ("since=yesterday", "since"),
        ("since=2026-11-23T07:44:00", "since"),
        ("since=0001-01-01T00:00:00%2B14:00", "since"),
        ("until=2026-13-01T00:00:00Z", "until"),
        ("since=1h&until=2h", "until"),
        ("cursor=x", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("cursor=%F0%9F%98%80", "cursor"),
        ("cursor=" + "a" * 201, "cursor"),
        ("number=", "number"),
        ("number=" + "1" * 257, "number"),
    ],
)
async def test_a_wrong_parameter_is_named(here: World, query: str, parameter: str) -> None:
    status, told, headers = await here.get(f"/calls?{query}", headers=AUTHORIZED)
    assert (status, headers["Content-Type"]) == (400, "application/problem+json")
    assert told["parameter"] == parameter
    assert told["title"].startswith(parameter)


@pytest.mark.parametrize("query", ["source={}", "source={}&state=open&limit=1", "source={}&since=1h"])
async def test_a_source_that_nothing_is_known_of_is_named(here: World, query: str) -> None:
    for accept in ("application/json", "text/csv"):
        status, told, headers = await here.get(f"/calls?{query.format('nobody')}", headers=AUTHORIZED | {"Accept": accept})
        assert (status, headers["Content-Type"]) == (400, "application/problem+json")
        assert (told["parameter"], told["title"][:21]) == ("source", "Unknown source nobody")
    status, told, _ = await here.get(f"/calls?{query.format('other')}", headers=AUTHORIZED)
    assert (status, {call["source"] for call in told["calls"]} <= {"other"}) == (200, True), "configured"


async def test_a_source_of_earlier_times_can_be_asked_for(here: World) -> None:
    gone = f"{_SOURCE}-gone"
    async with here.servers.subscribed() as queue:
        calls = await queue.channel.get_exchange("calls")
        event = call_event(513, source=gone)
        message = aio_pika.Message(orjson.dumps(event), message_id=event["id"], delivery_mode=2)
        await calls.publish(message, f"call.completed.{gone}.answered")

    async def is_known() -> bool:
        status, told, _ = await here.get(f"/calls?source={gone}", headers=AUTHORIZED)
        assert status in {200, 400}
        return status == 200 and _names(told["calls"]) == ["513"]

    await eventually(is_known)
    status, told, _ = await here.get(f"/calls?source={gone}&outcome=agent_missed", headers=AUTHORIZED)
    assert (status, told["calls"]) == (200, [])


@pytest.mark.parametrize("number", ["\0", "\ud83d", "%", "\\", "'", "*" * 250, "[", "\u202e"])
async def test_strange_values_find_nothing_and_break_nothing(filled: World, number: str) -> None:
    raw = quote(number.encode("utf-8", "surrogatepass"))
    status, told, _ = await filled.get(f"{filled.console}/calls?limit=1&source={_SOURCE}&reference={raw}", headers=AUTHORIZED)
    assert (status, told["calls"]) == (200, [])
    status, _, _ = await filled.get(f"{filled.console}/calls?limit=1&source={_SOURCE}&number={raw}", headers=AUTHORIZED)
    assert status == 200


async def test_calls_as_csv_are_safe_to_open_and_have_a_next_page(here: World) -> None:
    evil = '=HYPERLINK("http://x","a")'
    lines = _answered(6000, _START_MS + 9_000_000, CallerID=evil, ResponderAgentExt="+1-2")
    await here.call_back(lines, _SOURCE)
    await here.call_back(_answered(6001, _START_MS + 9_000_001, CallerID="+4561", ResponderAgentExt='a,"b"\r\nc'), _SOURCE)
    await eventually(lambda: _are_found(here, 1, number="+4561"))
    path = "/calls?" + urlencode({"source": _SOURCE, "since": _at(9000), "until": _at(9001)})
    status, body, headers = await here.get(path, headers=AUTHORIZED | {"Accept": "text/csv"})
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert b"\r\n" in body
    newer, older = csv.DictReader(io.StringIO(body.decode(), newline=""))
    assert (newer["call"], newer["number"], newer["agent"]) == ("6001", "+4561", 'a,"b"\r\nc')
    assert (older["number"], older["agent"], older["complete"]) == (f"'{evil}", "'+1-2", "true")
    status, body, headers = await here.get(f"{path}&limit=1", headers=AUTHORIZED | {"Accept": "text/csv"})
    assert [row["call"] for row in csv.DictReader(io.StringIO(body.decode(), newline=""))] == ["6001"]
    assert 'rel="next"' in headers["Link"]


@pytest.mark.parametrize(
    ("number", "lines", "status", "why"),
    [
        (7001, [("API", "start")], "ringing", "waiting for the agent's end, closes at "),
        (7002, [("API", "pickup")], "talking", "waiting for the agent's hangup, closes at "),
        (7003, [("API", "pickup"), ("Outgoing", "start")], "talking", "the agent's hangup and the dialed party's end"),
        (7004, [("Outgoing", "pickup")], "talking", "the dialed party's hangup and any callback of the agent's leg"),
        (7005, [("API", "hangup")], "ending", "waiting for a pickup or missed event of the agent's leg"),
        (7006, [("API", "pickup"), ("API", "hangup")], "ending", "waiting for late callbacks, closes at "),
        (7007, [("API", "pickup"), ("Outgoing", "missed")], "ending", "waiting for the agent's hangup"),
    ],
)
async def test_an_open_call_says_what_it_waits_for(
    here: World, number: int, lines: list[tuple[str, str]], status: str, why: str
) -> None:
    queries = [_line(number, kind, event, number * 10 + (kind == "Outgoing")) for kind, event in lines]
    await here.call_back(queries, _SOURCE)

    async def is_folded() -> Any:  # noqa: ANN401
        found = await here.timeline(f"{_SOURCE}/{number}", status=status)
        return found if why in found["why"] else None

    told = await eventually(is_folded)
    assert told["published_revision"] == 0
    assert len(told["timeline"]) == len(queries)
    assert told["record"]["outcome"] is None


async def test_everything_about_a_call_with_arrival_times_and_then_out_of_the_history(here: World) -> None:
    dial = {"source": _SOURCE, "agent": "1001", "number": "+4512345678", "reference": "crm-1", "metadata": {"k": "v"}}
    _, told, _ = await here.ask("POST", "/dial", headers=AUTHORIZED, json=dial)
    number = told["request_id"]
    lines = lines_of(number)
    lines[3] += "&RecordingURL=" + quote("https://pbx/?sectok=3511b272f4fb03ec&nId=1")
    name = f"{_SOURCE}/{number}"
    await here.knows_reference(name)
    await here.call_back(lines, _SOURCE)
    told = await here.timeline(name, status="complete", published_revision=1)
    assert told["why"] == "complete: answered, by hangup, published as revision 1"
    assert (told["record"]["reference"], told["record"]["metadata"]) == ("crm-1", {"k": "v"})
    assert [leg["call_type"] for leg in told["legs"]] == ["API", "Outgoing"]
    timeline = told["timeline"]
    assert [row["kind"] for row in timeline] == ["dial", *["callback"] * 4]
    assert [row["event"] for row in timeline[1:]] == ["pickup", "pickup", "hangup", "hangup"]
    times = [row["received_at"] for row in timeline]
    assert times == sorted(times)
    assert "3511b272f4fb03ec" not in str(told)
    late = f"CallType=Outgoing&Event=pickup&CallID={number}999&RequestID={number}"
    await here.call_back([late, late.replace("pickup", "hangup")], _SOURCE)
    told = await here.detail(name, status="complete", published_revision=2)
    assert len(told["legs"]) == 3

    async def has_revisions() -> Any:  # noqa: ANN401
        found = await here.detail(name)
        return found if len(found["revisions"]) == 2 else None

    told = await eventually(has_revisions)
    assert [row["id"] for row in told["revisions"]] == [f"{name}/1", f"{name}/2"]
    await _forget(here, number)
    past = await here.detail(name, status="complete")
    assert past["why"].endswith("now only in the history")
    assert (past["record"], past["revisions"]) == (told["record"], told["revisions"])
    assert (past["timeline"], past["is_timeline_whole"]) == ([], False)


async def test_a_call_without_request_id_is_found_by_its_call_id(here: World) -> None:
    call_id = 1000000099001
    lines = [_line(None, "Incoming", event, call_id, CallerID="+4599") for event in ("start", "pickup", "hangup")]
    await here.call_back(lines, _SOURCE)
    told = await here.detail(f"{_SOURCE}/call-{call_id}", status="complete")
    assert (told["request_id"], told["record"]["outcome"]) == (None, "answered")
    (row,) = await _find(here, number="+4599")
    assert (row["call"], row["request_id"]) == (f"call-{call_id}", None)


@pytest.mark.parametrize("name", ["{}/999999", "none/513", "{}/x", "{}/call-1", "{}/1%2F2", "{}/%00", "..%2f..%2fetc/passwd"])
async def test_a_call_that_nobody_knows_is_not_found(here: World, name: str) -> None:
    status, told, headers = await here.get(f"{here.console}/calls/{name.format(_SOURCE)}", headers=AUTHORIZED)
    assert (status, told["status"], headers["Content-Type"]) == (404, 404, "application/problem+json")


async def test_the_command_line_finds_and_shows_the_same(filled: World) -> None:
    settings = filled.environment()
    code, out, err = await callfold("calls", "--source", _SOURCE, "--number", "+45300000*", "--limit", "13", "--csv", **settings)
    assert (code, err) == (0, "")
    assert [row["call"] for row in csv.DictReader(io.StringIO(out))] == _names(await _find(filled, number="+45300000*"))[:13]
    code, out, _ = await callfold("calls", "--source", _SOURCE, "--number", "+4530000007", "--json", **settings)
    assert (code, '"call":"1007"' in out, out.count("\n")) == (0, True, 1)
    code, _, err = await callfold("calls", "--since", "tomorrow", **settings)
    assert (code, "since" in err) == (2, True)
    await filled.call_back([_line(8001, "API", "pickup", 80010)], _SOURCE)
    expected = await filled.timeline(f"{_SOURCE}/8001", status="talking")

    async def is_shown() -> bool:  # both have only seconds to read the journal
        code, out, _ = await callfold("show", _SOURCE, "8001", "--json", **settings)
        assert code == 0
        shown = json.loads(out)
        return all(shown[name] == expected[name] for name in ("call", "status", "why", "timeline"))

    await eventually(is_shown)
    for name in ([f"{_SOURCE}/1007"], [f"{_SOURCE}/1007/1"], [f" {_SOURCE}/1007/ "], [_SOURCE, f"{_SOURCE}/1007"], ["1007"]):
        code, out, _ = await callfold("show", *name, "--json", **settings)
        assert (code, json.loads(out)["call"]) == (0, f"{_SOURCE}/1007"), name
    code, _, err = await callfold("show", "999999", **settings)
    assert (code, "No source has a call 999999" in err) == (2, True)
    code, _, err = await callfold("show", _SOURCE, "999999", **settings)
    assert (code, "Unknown call" in err) == (1, True)


async def test_the_journals_hold_events_and_nothing_else(filled: World) -> None:
    settings = filled.environment()
    code, _, err = await callfold("tail", "--since", "1h", "--limit", "1", **settings)
    assert (code, err) == (0, "")
    async with filled.session.get(f"{filled.console}/events", headers=AUTHORIZED) as watching:
        assert watching.status == 200
        await filled.call_back(_answered(9100, _START_MS), _SOURCE)
        await filled.timeline(f"{_SOURCE}/9100", status="complete")
    servers, last = filled.servers, f'"{_SOURCE}/9100/1"'.encode()
    events = [orjson.loads(body) for body in await servers.read_stream("calls.journal", lambda body: last in body)]
    assert {(type(event), event["specversion"]) for event in events} == {(dict, "1.0")}
    received = [orjson.loads(body) for body in await servers.read_stream("callbacks.journal", lambda body: b"=9100&" in body)]
    assert all(received)
    assert {event["kind"] for batch in received for event in batch} <= {"callback", "dial", "timer"}


async def test_a_call_is_annotated_over_http_and_by_command_and_its_record_is_amended_each_time(here: World) -> None:
    call = f"{_SOURCE}/9150"
    await here.call_back(lines_of(9150), _SOURCE)
    await here.detail(call, status="complete")
    path, repeated = f"/calls/{call}/annotations", {**AUTHORIZED, "Idempotency-Key": "transcript of 9150"}
    transcript = {
        "type": "transcript",
        "by": "ears 1",
        "body": {"text": "<b>Hello</b>\x1b[31m " + "æ" * 2000, "language": "da-DK"},
    }
    answers = [await here.ask("POST", path, headers=repeated, json=transcript) for _ in range(2)]
    assert [status for status, _, _ in answers] == [202, 202]
    first = answers[0][1]
    assert answers[1][1] == first
    other = transcript | {"body": {"text": "Another text"}}
    assert (await here.ask("POST", path, headers=repeated, json=other))[0] == 422
    detail = await here.detail(call, published_revision=2)
    assert detail["record"]["annotations"] == [
        {"id": first["id"], "type": "transcript", "at": first["at"], "by": "ears 1", "body": transcript["body"]}
    ]
    assert (await here.ask("POST", path, headers=repeated, json=transcript))[1] == first, "the fold has it by now"
    assert (await here.ask("POST", path, headers=repeated, json=other))[0] == 422
    environment = here.environment()
    _, note, _ = await callfold("annotate", _SOURCE, "9150", "--text", "Call back", "--by", "kasper", "--json", **environment)
    detail = await here.detail(call, published_revision=3)
    assert [each["type"] for each in detail["record"]["annotations"]] == ["transcript", "note"]
    assert detail["record"]["annotations"][1]["id"] == orjson.loads(note)["id"]
    _, shown, _ = await callfold("show", _SOURCE, "9150", **environment)
    assert "by ears 1" in shown
    assert "text: <b>Hello</b>[U+001B][31m" in shown
    assert "more characters" in shown
    _, page, _ = await here.get(f"/ui/calls/{call}", headers=AUTHORIZED)
    assert "&lt;b&gt;Hello&lt;/b&gt;[U+001B][31m" in page.decode()
    assert "<b>Hello</b>" not in page.decode()


async def test_a_call_that_only_the_history_has_is_a_vcon(filled: World) -> None:
    await filled.call_back(_answered(9160, _START_MS, CallerID="+4591600"), _SOURCE)
    await filled.detail(f"{_SOURCE}/9160", status="complete")

    async def is_in_the_history() -> bool:
        async with aclosing(History(filled.environment()["CALLFOLD_HISTORY_URL"])) as history:
            return any([row async for _, row in history.newest(CallQuery(source=_SOURCE, number="+4591600"), None) if row])

    await eventually(is_in_the_history)
    path, asked = f"/calls/{_SOURCE}/9160", AUTHORIZED | {"Accept": "application/vcon"}
    status, before, headers = await filled.get(path, headers=asked)
    assert (status, headers["Content-Type"]) == (200, "application/vcon")
    await _forget(filled, 9160)
    status, body, _ = await filled.get(path, headers=asked)
    assert (status, body) == (200, before), "from Redis or not, it is the published event"
    assert problems_of(orjson.loads(body)) == []
