"""Recording jobs over a real broker, a real worker, a PBX that misbehaves on request, and files on disk."""

from __future__ import annotations

import asyncio
import hashlib
import io
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import CallRef, SourceName
from shared.records import RecordingJob
from shared.sources import load_sources
from simulator.audio import recording
from tests.support import Servers, eventually, next_events
from worker.fetch import FetchError, Reason, recording_link
from worker.wav import InvalidWavError, read_audio

WAV = recording("7", 1.5)
GUID = "bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"
SECTOK = "3511b272f4fb03ecf900b80b1cc5b8fe"


def job(call_id: str = "7", **changed: Any) -> RecordingJob:  # noqa: ANN401
    told: dict[str, Any] = {
        "source": SourceName("acme"),
        "call": CallRef("513"),
        "request_id": 513,
        "call_id": call_id,
        "guid": GUID,
        "leg": "agent",
        "fetch": True,
        "recording_url": f"https://localhost:8080/rec?sectok={SECTOK}&nId={call_id}",
        "started_at": "2026-11-23T23:59:59.999999Z",
        "record": {"outcome": "answered"},
    }
    return RecordingJob(**(told | changed))


class Pbx:
    """Serves recordings; `answers` says what the next requests of a CallID get, then the WAV."""

    def __init__(self) -> None:
        self.answers: dict[str, list[web.Response]] = {}
        self.asked: Counter[str] = Counter()
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        call_id = request.query["nId"]
        self.asked[call_id] += 1
        waiting = self.answers.get(call_id, [])
        return waiting.pop(0) if waiting else web.Response(body=WAV, content_type="audio/wav")


@pytest_asyncio.fixture
async def pbx() -> AsyncIterator[Pbx]:
    served = Pbx()
    app = web.Application()
    app.add_routes([web.get("/rec", served.handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


def _sources(servers: Servers, pbx: Pbx) -> str:
    path = servers.directory / "sources.toml"
    path.write_text(f'[sources.acme]\nsecret = "x"\nrecording_origin = "{pbx.url}"\n[sources.linkless]\nsecret = "x"\n')
    return str(path)


@asynccontextmanager
async def _worker(servers: Servers, pbx: Pbx, **settings: str) -> AsyncIterator[Any]:
    async with servers.fleet(CALLFOLD_SOURCES=_sources(servers, pbx), **settings) as fleet:
        await fleet.start(fleet.add("worker", "worker", {}))
        yield fleet


async def _submit(servers: Servers, *bodies: bytes) -> None:
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=10) as connection:
        channel = await connection.channel()
        for body in bodies:
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, "recordings")


def _file(servers: Servers, suffix: str, name: str = GUID) -> Path:
    return servers.directory / "archive" / "acme" / "monitor" / "2026-UTC" / "11" / "23" / f"{name}.{suffix}"


def _sidecar(servers: Servers, name: str = GUID) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(_file(servers, "json", name).read_bytes())
    return read


async def test_a_recording_that_is_not_ready_twice_is_stored_on_the_third_try(servers: Servers, pbx: Pbx) -> None:
    pbx.answers["7"] = [web.Response(status=404), web.Response(text="<html>log in</html>", content_type="text/html")]
    async with servers.subscribed("recording.#") as queue, _worker(servers, pbx) as fleet:
        await _submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        logged = fleet.roles[0].log_path.read_text()
    assert (event.routing_key, event.message_id) == ("recording.stored.acme", f"acme/513/recording/{GUID}/stored")
    assert event.body["type"] == "callfold.recording.stored.v1"
    data = event.body["data"]
    assert data | {"uri": None} == {
        "source": "acme",
        "request_id": 513,
        "call_id": "7",
        "guid": GUID,
        "leg": "agent",
        "uri": None,
        "bytes": len(WAV),
        "sha256": hashlib.sha256(WAV).hexdigest(),
        "seconds": 1.5,
        "attempts": 3,
        "reason": None,
    }
    assert data["uri"] == _file(servers, "wav").as_uri()
    assert _file(servers, "wav").read_bytes() == WAV
    sidecar = _sidecar(servers)
    assert (sidecar["nId"], sidecar["usId"], sidecar["leg"], sidecar["call"]) == (7, GUID, "agent", {"outcome": "answered"})
    assert (sidecar["recording"]["state"], sidecar["recording"]["sha256"]) == ("stored", data["sha256"])
    assert SECTOK not in str(sidecar) + str(event.body) + logged


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status": 404}, "not_ready"),
        ({"status": 503}, "not_ready"),
        ({"body": b""}, "not_ready"),
        ({"status": 403}, "not_allowed"),
        ({"text": "<!DOCTYPE html><form>", "content_type": "audio/wav"}, "html_page"),
        ({"body": WAV[:-10]}, "not_a_recording"),
        ({"body": WAV[:44]}, "not_a_recording"),
        ({"body": b"RIFX" + WAV[4:]}, "not_a_recording"),
        ({"status": 500}, "unexpected_status"),
    ],
)
async def test_when_the_schedule_is_used_up_the_failure_is_told_with_its_reason_and_the_job_kept(
    servers: Servers, pbx: Pbx, answer: dict[str, Any], reason: str
) -> None:
    pbx.answers["7"] = [web.Response(**answer) for _ in range(3)]
    async with servers.subscribed("recording.#") as queue, _worker(servers, pbx):
        await _submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.message_id) == ("recording.failed.acme", f"acme/513/recording/{GUID}/failed")
        assert (event.body["data"]["reason"], event.body["data"]["attempts"]) == (reason, 3)
        letter = await _dead(servers)
    assert pbx.asked["7"] == 3
    assert letter.headers["reason"] == reason
    assert letter.headers["detail"]
    assert str(letter.headers["first_seen"]).endswith("Z")
    assert RecordingJob.decode(letter.body) == job()
    assert not _file(servers, "wav").exists()
    assert (_sidecar(servers)["recording"]["state"], _sidecar(servers)["recording"]["reason"]) == ("failed", reason)


async def _dead(servers: Servers) -> aio_pika.abc.AbstractIncomingMessage:
    (letter,) = await eventually(lambda: servers.take_all("recordings.dead"))
    found: aio_pika.abc.AbstractIncomingMessage = letter
    return found


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"source": "linkless", "recording_url": None}, "no_recording_link"),
        ({"recording_url": "http://[not-an-address/x?nId=7"}, "no_recording_link"),
        ({"source": "gone"}, "unknown_source"),
    ],
)
async def test_what_can_never_be_had_fails_at_once(servers: Servers, pbx: Pbx, changed: dict[str, Any], reason: str) -> None:
    async with servers.subscribed("recording.#") as queue, _worker(servers, pbx):
        await _submit(servers, job(**changed).encode())
        (event,) = await next_events(queue, 1)
        assert (event.body["data"]["reason"], event.body["data"]["attempts"]) == (reason, 1)
        assert (await _dead(servers)).headers["reason"] == reason
    assert pbx.asked == {}


async def test_a_redirect_and_a_body_over_the_cap_fail_at_once(servers: Servers, pbx: Pbx) -> None:
    pbx.answers["8"] = [web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})]
    async with servers.subscribed("recording.#") as queue, _worker(servers, pbx, CALLFOLD_RECORDING_MAX_BYTES="1000"):
        await _submit(servers, job("7").encode(), job("8", guid=None).encode())
        events = await next_events(queue, 2)
    assert {event.body["data"]["call_id"]: event.body["data"]["reason"] for event in events} == {
        "7": "too_large",
        "8": "redirected",
    }


async def test_a_leg_without_recording_gets_its_sidecar_and_nothing_else(servers: Servers, pbx: Pbx) -> None:
    async with servers.subscribed("recording.#") as queue, _worker(servers, pbx):
        await _submit(servers, job("9", guid=None, fetch=False).encode(), job().encode())
        events = await next_events(queue, 1)
        await eventually(lambda: _exists(_file(servers, "json", "call-9")))
    assert [event.body["data"]["call_id"] for event in events] == ["7"]
    assert _sidecar(servers, "call-9")["recording"] == {"state": "not_recorded"}
    assert pbx.asked == {"7": 1}


async def _exists(path: Path) -> bool:
    return path.exists()


async def test_what_is_no_job_is_a_dead_letter(servers: Servers, pbx: Pbx) -> None:
    async with _worker(servers, pbx):
        await _submit(servers, b"{}")
        letter = await _dead(servers)
    assert (letter.headers["reason"], letter.body) == ("undecodable", b"{}")


@pytest.mark.parametrize("point", ["recording.archived", "recording.before_ack"])
async def test_a_worker_killed_after_archiving_leaves_one_whole_file_and_one_event_id(
    servers: Servers, pbx: Pbx, point: str
) -> None:
    async with servers.subscribed("recording.#") as queue, _worker(servers, pbx, CALLFOLD_CRASH_AT=point) as fleet:
        victim = fleet.roles.pop()
        await _submit(servers, job().encode())
        assert await asyncio.wait_for(victim.process.wait(), 20) == -signal.SIGKILL
        pbx.answers["7"] = [web.Response(status=302, headers={"Location": "/login"})]
        await fleet.start(fleet.add("heir", "worker", {"CALLFOLD_CRASH_AT": "nowhere"}))
        events = await next_events(queue, 1 if point == "recording.archived" else 2)
    assert {event.message_id for event in events} == {f"acme/513/recording/{GUID}/stored"}
    assert all(event.body == events[0].body for event in events)
    assert pbx.asked["7"] == 1, "what is stored is not asked for again"
    assert _sidecar(servers)["recording"]["state"] == "stored"
    assert _file(servers, "wav").read_bytes() == WAV
    assert [path.suffix for path in sorted(_file(servers, "wav").parent.iterdir())] == [".json", ".wav"]


def test_the_origin_of_a_recording_url_is_replaced_and_values_of_a_template_cannot_leave_it(tmp_path: Path) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(
        '[sources.acme]\nsecret = "x"\nrecording_origin = "http://10.0.0.5:81"\n'
        '[sources.template]\nsecret = "x"\nrecording_url = "https://pbx:1/get/{guid}?nId={call_id}"\n'
        '[sources.elsewhere]\nsecret = "x"\nrecording_url = "https://a/x"\nrecording_origin = "https://b"\n'
    )
    sources = load_sources(path)
    acme, template, elsewhere = (sources[SourceName(name)] for name in ("acme", "template", "elsewhere"))
    for sent in (
        "https://localhost:8080/a/b?nId=7",
        "http://u:p@evil/a/b?nId=7",
        "//evil/a/b?nId=7",
        "https://evil:99/a/b?nId=7#x",
    ):
        assert recording_link(acme, job(recording_url=sent)) == "http://10.0.0.5:81/a/b?nId=7"
    assert recording_link(template, job(recording_url=None, guid="../../x")) == "https://pbx:1/get/..%2F..%2Fx?nId=7"
    with pytest.raises(FetchError) as refused:
        recording_link(elsewhere, job(recording_url=None))
    assert refused.value.reason is Reason.ORIGIN_NOT_ALLOWED


@given(length=st.integers(0, len(WAV)))
def test_a_part_of_a_recording_is_never_taken_for_a_whole_one(length: int) -> None:
    part = WAV[:length]
    if length < len(WAV) - 1:
        with pytest.raises(InvalidWavError):
            read_audio(io.BytesIO(part), length)
    elif length == len(WAV):
        audio = read_audio(io.BytesIO(part), length)
        assert (audio.seconds, audio.channels, audio.sample_rate) == (1.5, 1, 8000)


def test_a_header_that_ends_in_the_middle_is_refused() -> None:
    part = WAV[:4] + b"\0" * 4 + WAV[8:22]
    with pytest.raises(InvalidWavError):
        read_audio(io.BytesIO(part), len(part))


def test_a_header_whose_sizes_were_never_filled_in_is_read_by_what_is_there() -> None:
    streamed = WAV[:4] + b"\xff" * 4 + WAV[8:40] + b"\xff" * 4 + WAV[44:]
    assert read_audio(io.BytesIO(streamed), len(streamed)).seconds == 1.5
