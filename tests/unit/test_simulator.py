"""The simulated FocalScope: what it sends folds to what it says is true, and the comparison sees every difference."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import io
import random
import wave
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest
from aiohttp import web

from console.page.waveform import PeakReader
from shared.clock import utc_now
from shared.domain.adapter_link import SECRET_PARAMETER, make_link, parse_link, take_secret
from shared.domain.call import derive
from shared.domain.call_event import call_record
from shared.domain.callback import parse_callback
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, SourceName
from shared.domain.raw_event import CallbackEvent
from simulator.audio import recording
from simulator.compare import COMPLETED, STORED, differences
from simulator.faults import Faults, inject_faults
from simulator.focalscope import FocalScope, Plan
from simulator.scenario import SECTOK, Step, Truth
from tests.helpers.servers import POLICY

LINK = make_link("http://127.0.0.1:1", "acme", "s3cret")
ADAPTER = parse_link(LINK)
FAULTS = Faults(reorder=0.5, duplicate=0.5, delay=0.5, burst=0.2, max_delay_s=0.05)


async def _play(calls: int, faults: Faults, seed: int = 7) -> tuple[FocalScope, list[str]]:
    """Run calls against a real HTTP server; returns the queries in the order they came."""
    queries: list[str] = []

    async def callback(request: web.Request) -> web.Response:
        queries.append(request.rel_url.raw_query_string)
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/callbacks/acme", callback)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    plan = Plan(adapter=LINK, ingress_urls=(url,), seed=seed, speed=300, faults=faults)
    async with FocalScope(plan) as pbx:
        await pbx.run(calls, per_second=1000)
    await runner.cleanup()
    return pbx, queries


def _fold(queries: list[str]) -> dict[CallKey, dict[str, str]]:
    folded: dict[CallKey, dict[str, str]] = {}
    received_at = utc_now()  # the timestamps are of this time
    for query in queries:
        secret, rest = take_secret(query)
        assert secret == "s3cret"
        event = CallbackEvent(SourceName("acme"), received_at, rest)
        key, facts = facts_of(event, ADAPTER)
        call = folded.setdefault(key, {})
        for field, value in facts:
            best = max if field.startswith(">") else min
            call[field] = best(call.get(field, value), value)
    return folded


async def test_what_is_sent_folds_to_the_truth_whatever_the_faults() -> None:
    pbx, queries = await _play(200, FAULTS)
    calls = {key.call: derive(key, facts, POLICY) for key, facts in _fold(queries).items()}
    assert len(calls) == len(pbx.truths) == 200
    events = [_event(call_record(call, 1)) for call in calls.values() if call.closing]
    stored = [_stored(truth, leg.call_id, pbx) for truth in pbx.truths.values() for leg in truth.legs if leg.recorded]
    assert len(events) == 200
    assert len(stored) > 50
    assert differences(pbx.truths, events + stored, pbx.recordings.fingerprint) == []
    assert len({truth.outcome for truth in pbx.truths.values()}) == 3


def _event(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": f"acme/{record['request_id']}/1", "type": COMPLETED, "data": record}


def _stored(truth: Truth, call_id: str, pbx: FocalScope) -> dict[str, Any]:
    size, sha256 = pbx.recordings.fingerprint(call_id)
    data = {"request_id": truth.request_id, "call_id": call_id, "bytes": size, "sha256": sha256}
    return {"id": f"acme/{truth.request_id}/recording/{call_id}/stored", "type": STORED, "data": data}


async def test_faults_really_happen_and_without_them_each_event_comes_once() -> None:
    _, clean = await _play(30, Faults())
    assert len(set(clean)) == len(clean)
    _, doubled = await _play(30, Faults(duplicate=1.0, max_delay_s=0.01))
    assert len(doubled) == 2 * len(set(doubled))
    pbx, rest = await _play(30, Faults(drop=0.5))
    happened = sum(4 if truth.dialed else 2 for truth in pbx.truths.values())
    assert sum(truth.dropped for truth in pbx.truths.values()) == happened - len(rest) > 10


def test_callbacks_change_places_and_none_is_sent_before_its_event() -> None:
    steps = [Step(float(number), {"number": str(number)}) for number in range(6)]
    rng = random.Random(1)  # noqa: S311 - repeatable on purpose
    orders = set()
    for _ in range(200):
        sent, _ = inject_faults(steps, FAULTS, rng)
        assert all(step.at_s >= float(step.values["number"]) for step in sent)
        orders.add("".join(dict.fromkeys(step.values["number"] for step in sent)))
    assert len(orders) > 50


async def test_the_same_seed_is_the_same_story() -> None:
    (first, _), (second, _), (other, _) = [await _play(20, FAULTS, seed) for seed in (1, 1, 2)]
    assert first.truths == second.truths != other.truths


async def test_the_dial_endpoint_answers_with_an_unquoted_key_and_each_callback_parses() -> None:
    async with FocalScope(Plan(adapter=LINK, speed=1000)) as pbx, aiohttp.ClientSession() as session:
        async with session.get(f"{pbx.url}/dial?agent=1001&number=%2B4512345678&adapter=x") as response:
            assert await response.text() == "{RequestID:1000}"
        async with session.get(f"{pbx.url}/dial") as response:
            assert (response.status, response.content_type) == (200, "text/html")
    target = pbx._target({"CallID": "5 &x", "CallTypeName": "API", "DialApiEventName": "start"})
    assert dict(parse_qsl(target.partition("?")[2]))[SECRET_PARAMETER] == "s3cret"
    assert parse_callback(ADAPTER, take_secret(target.partition("?")[2])[1].replace("5%20%26x", "5")).call_id == "5"


async def test_a_recording_is_not_ready_at_first_and_a_wrong_token_gets_the_login_page() -> None:
    async with FocalScope(Plan(adapter=LINK)) as pbx, aiohttp.ClientSession() as session:
        pbx.recordings.add("7", 2.5, ready_in_s=3600)
        link = f"{pbx.url}/_cros_/master/?uid=form_faster_downloadcall&target=self&sectok={SECTOK}&nId=7"
        async with session.get(link) as response:
            assert response.status == 404
        pbx.recordings.add("7", 2.5)
        async with session.get(link) as response:
            body = await response.read()
        async with session.get(link.replace(SECTOK, "wrong")) as response:
            assert (response.status, response.content_type) == (200, "text/html")
    assert pbx.recordings.fingerprint("7") == (len(body), hashlib.sha256(body).hexdigest())
    with wave.open(io.BytesIO(body)) as file:
        assert file.getnframes() / file.getframerate() == 2.5


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda events: events.pop(0), "published 0 times"),
        (lambda events: events[0]["data"].update(outcome="unknown"), "outcome"),
        (lambda events: events[0]["data"].update(complete=False), "complete"),
        (lambda events: events[0]["data"].update(call_type="Login"), "call_type"),
        (lambda events: events[0]["data"].update(ended_by="nobody"), "ended_by"),
        (lambda events: events[0]["data"]["agent"].update(extension="1009"), "extension"),
        (lambda events: events[0]["data"]["agent"].update(call_type="Outgoing"), "call_type"),
        (lambda events: events[0]["data"]["agent"].update(guid="x"), "guid"),
        (lambda events: events[0]["data"]["agent"].update(inferred=True), "inferred"),
        (lambda events: events[0]["data"].update(agent=None), "leg is None"),
        (lambda events: events.append(copy.deepcopy(events[0]) | {"id": "acme/1000/2"}), "published 2 times"),
        (lambda events: events.append(copy.deepcopy(events[0]) | {"time": "x"}), "different bodies"),
        (lambda events: events.append({"id": "x", "type": COMPLETED, "data": {"request_id": 1}}), "never dialed"),
        (lambda events: events.append({"id": "y", "type": "other", "data": {"request_id": 1000}}), "not expected"),
        (lambda events: events.pop(), "was not stored"),
        (lambda events: events[-1]["data"].update(sha256="x"), "expected"),
    ],
)
async def test_the_comparison_sees_each_kind_of_difference(spoil: Any, said: str) -> None:  # noqa: ANN401
    pbx, queries = await _play(5, Faults())
    calls = sorted(_fold(queries).items())
    events = [_event(call_record(derive(key, facts, POLICY), 1)) for key, facts in calls]
    events += [_stored(truth, leg.call_id, pbx) for truth in pbx.truths.values() for leg in truth.legs if leg.recorded]
    assert events[-1]["type"] == STORED
    assert differences(pbx.truths, events, pbx.recordings.fingerprint) == []
    spoil(events)
    found = differences(pbx.truths, events, pbx.recordings.fingerprint)
    assert found
    assert said in " ".join(found)


def test_the_same_call_always_sounds_the_same() -> None:
    assert recording("41", 1) == recording("41", 1) != recording("42", 1)


@pytest.mark.parametrize("seconds", [4, 30, 300])
def test_the_picture_of_a_simulated_recording_has_a_shape(seconds: int) -> None:
    reader = PeakReader()
    reader.feed(recording("41", seconds))
    drawn = reader.peaks()
    assert drawn
    heights = {round(peak, 1) for peak in drawn.channels[0]}
    assert len(heights) >= 5
    assert max(heights) <= 0.8
    # Phrases and the pauses between them are visible.
    assert min(heights) == 0 or seconds == 300


async def test_a_callback_whose_connection_breaks_is_sent_once_and_counted_as_lost() -> None:
    heard: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n"))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with FocalScope(Plan(adapter=LINK, ingress_urls=(url,), seed=7, speed=300)) as pbx:
            await pbx.run(3, per_second=1000)
    assert pbx.counters == {"lost": len(heard)}
    assert len(heard) == len(set(heard))
