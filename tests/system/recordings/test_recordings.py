"""Recording jobs over a real broker, a real worker, a PBX that misbehaves on request, and files on disk."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from typing import Any

import pytest
from aiohttp import web

from shared.domain.recording import RecordingJob
from tests.helpers.recordings import (
    GUID,
    SECTOK,
    WAV,
    Pbx,
    dead_letter,
    end_leases,
    exists,
    file_of,
    job,
    nothing_left,
    sidecar_of,
    submit,
    worker,
)
from tests.helpers.servers import Servers, eventually, exit_code, next_events


async def test_a_recording_that_is_not_ready_twice_is_stored_on_the_third_try(servers: Servers, pbx: Pbx) -> None:
    pbx.answers["7"] = [web.Response(status=404), web.Response(text="<html>log in</html>", content_type="text/html")]
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx) as fleet:
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        logged = fleet.processes[0].log_path.read_text()
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
        "sha512": hashlib.sha512(WAV).hexdigest(),
        "seconds": 1.5,
        "channels": 1,
        "sample_rate": 8000,
        "encryption": None,
        "attempts": 3,
        "reason": None,
        "flags": [],
    }
    assert data["uri"] == file_of(servers, "wav").as_uri()
    assert file_of(servers, "wav").read_bytes() == WAV
    sidecar = sidecar_of(servers)
    assert (sidecar["nId"], sidecar["usId"], sidecar["leg"], sidecar["call"]) == (7, GUID, "agent", {"outcome": "answered"})
    assert (sidecar["recording"]["state"], sidecar["recording"]["sha256"]) == ("stored", data["sha256"])
    assert sidecar["recording"]["sha512"] == data["sha512"]
    assert SECTOK not in str(sidecar) + str(event.body) + logged
    lines = [json.loads(line) for line in logged.splitlines()]
    assert {line["process"] for line in lines} == {"worker"}
    of_job = [(line["event"], line["level"], line.get("reason")) for line in lines if line.get("call") == "513"]
    assert of_job == [
        ("recording_attempt_failed", "info", "not_found"),  # routine at first
        ("recording_attempt_failed", "warning", "login_page"),
        ("recording_published", "info", None),
    ]
    assert {(line["source"], line["request_id"]) for line in lines if line.get("call") == "513"} == {("acme", 513)}


@pytest.mark.parametrize(
    ("answer", "result", "reason"),
    [
        ({"status": 404}, "absent", "not_found"),
        ({"status": 410}, "absent", "not_found"),
        ({"body": b""}, "absent", "empty"),
        ({"status": 204}, "absent", "empty"),
        ({"status": 202}, "failed", "not_ready"),
        ({"status": 425}, "failed", "not_ready"),
        ({"status": 503}, "failed", "not_ready"),
        ({"status": 401}, "failed", "not_allowed"),
        ({"status": 403}, "failed", "not_allowed"),
        ({"text": "<!DOCTYPE html><form>", "content_type": "audio/wav"}, "failed", "login_page"),
        ({"text": "please log in", "content_type": "text/html"}, "failed", "login_page"),
        ({"body": WAV[:-10]}, "failed", "truncated"),
        ({"body": WAV[:4] + (36).to_bytes(4, "little") + WAV[8:40] + b"\0\0\0\0"}, "absent", "empty"),
        ({"body": b"RIFX" + WAV[4:]}, "failed", "not_a_recording"),
        ({"body": b"\x0b\x02\x80", "headers": {"Content-Encoding": "br"}}, "failed", "compressed"),
        ({"status": 500}, "failed", "unexpected_status"),
    ],
)
async def test_when_the_schedule_is_used_up_the_end_is_told_with_its_reason_and_the_job_kept(
    servers: Servers, pbx: Pbx, answer: dict[str, Any], result: str, reason: str
) -> None:
    pbx.answers["7"] = [web.Response(**answer) for _ in range(3)]
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.message_id) == (f"recording.{result}.acme", f"acme/513/recording/{GUID}/{result}")
        assert (event.body["data"]["reason"], event.body["data"]["attempts"]) == (reason, 3)
        letter = await dead_letter(servers)
    assert pbx.asked["7"] == 3
    assert letter.headers["reason"] == reason
    assert letter.headers["detail"]
    assert str(letter.headers["first_seen"]).endswith("Z")
    assert RecordingJob.decode(letter.body) == job()
    assert not file_of(servers, "wav").exists()
    assert (sidecar_of(servers)["recording"]["state"], sidecar_of(servers)["recording"]["reason"]) == (result, reason)
    assert nothing_left(servers)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"source": "linkless", "recording_url": None}, "no_recording_link"),
        ({"recording_url": "http://[not-an-address/x?nId=7"}, "no_recording_link"),
        ({"source": "gone"}, "unknown_source"),
    ],
)
async def test_what_can_never_be_had_fails_at_once(servers: Servers, pbx: Pbx, changed: dict[str, Any], reason: str) -> None:
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        await submit(servers, job(**changed).encode())
        (event,) = await next_events(queue, 1)
        assert (event.body["data"]["reason"], event.body["data"]["attempts"]) == (reason, 1)
        assert (await dead_letter(servers)).headers["reason"] == reason
    assert pbx.asked == {}


async def test_a_redirect_and_a_body_over_the_cap_fail_at_once(servers: Servers, pbx: Pbx) -> None:
    pbx.answers["8"] = [web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})]
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, CALLFOLD_RECORDING_MAX_BYTES="1000"):
        await submit(servers, job("7").encode(), job("8", guid=None).encode())
        events = await next_events(queue, 2)
    assert {event.body["data"]["call_id"]: event.body["data"]["reason"] for event in events} == {
        "7": "too_large",
        "8": "origin_not_allowed",
    }


async def test_the_template_is_requested_where_the_url_is_wrong_and_nothing_before_the_pbx_allows_it(
    servers: Servers, pbx: Pbx
) -> None:
    asked: list[tuple[str, float]] = []
    overloaded = iter([web.Response(status=503, headers={"Retry-After": "1"})])

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.raw_path, time.monotonic()))
        return next(overloaded, None) or web.Response(body=WAV, content_type="audio/wav")

    pbx.serve |= {"7": answer, "8": answer}
    pbx.answers["404"] = [web.Response(status=404)]
    jobs = [job(call_id, guid=None, recording_url=url).encode() for call_id, url in (("7", "null"), ("8", "{{RecordingURL}}"))]
    wrong = job("9", guid=None, recording_url=f"https://localhost/rec?nId=404&sectok={SECTOK}")
    template = f"recordings_at_once = 1\nrecording_url = '{pbx.url}/rec?a=%2f%7E[x]&nId={{call_id}}'"
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, template):
        await submit(servers, *jobs)
        events = await next_events(queue, 2)
        await submit(servers, wrong.encode())
        events += await next_events(queue, 1)
    assert {event.routing_key for event in events} == {"recording.stored.acme"}
    assert sorted(event.body["data"]["attempts"] for event in events) == [1, 1, 2], "who only waits makes no attempt"
    assert (pbx.asked["404"], pbx.asked["9"]) == (1, 1), "both links in one attempt"
    assert {path for path, _ in asked} == {f"/rec?a=%2f%7E[x]&nId={call_id}" for call_id in ("7", "8")}
    (_, refused_at), *later = asked
    assert len(later) == 2
    assert all(at - refused_at >= 1 for _, at in later), "neither recording was requested while the PBX asked to wait"


async def test_a_leg_without_recording_gets_its_sidecar_and_nothing_else(servers: Servers, pbx: Pbx) -> None:
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        await submit(servers, job("9", guid=None, fetch=False, state="not_recorded").encode(), job().encode())
        events = await next_events(queue, 1)
        await eventually(lambda: exists(file_of(servers, "json", "call-9")))
    assert [event.body["data"]["call_id"] for event in events] == ["7"]
    assert sidecar_of(servers, "call-9")["recording"] == {"state": "not_recorded"}
    assert pbx.asked == {"7": 1}


async def test_what_is_no_job_is_a_dead_letter(servers: Servers, pbx: Pbx) -> None:
    async with worker(servers, pbx):
        await submit(servers, b"{}")
        letter = await dead_letter(servers)
    assert (letter.headers["reason"], letter.body) == ("undecodable", b"{}")


async def test_a_download_directory_that_takes_nothing_is_told_for_what_it_is(servers: Servers, pbx: Pbx) -> None:
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        (servers.directory / "downloads").rmdir()
        (servers.directory / "downloads").write_text("in the way")
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
    assert (event.routing_key, event.body["data"]["reason"]) == ("recording.failed.acme", "no_space")


@pytest.mark.parametrize("point", ["recording.archived", "recording.before_ack"])
async def test_a_worker_killed_after_archiving_leaves_one_whole_file_and_one_event_id(
    servers: Servers, pbx: Pbx, point: str
) -> None:
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, CALLFOLD_CRASH_AT=point) as fleet:
        victim = fleet.processes.pop()
        await submit(servers, job().encode())
        assert await exit_code(victim) == -signal.SIGKILL
        pbx.answers["7"] = [web.Response(status=302, headers={"Location": "/login"})]
        await end_leases(servers)
        await fleet.add("heir", "worker", {"CALLFOLD_CRASH_AT": "nowhere"}).start()
        events = await next_events(queue, 1 if point == "recording.archived" else 2)
    assert {event.message_id for event in events} == {f"acme/513/recording/{GUID}/stored"}
    assert all(event.body == events[0].body for event in events)
    assert pbx.asked["7"] == 1, "what is stored is not asked for again"
    assert sidecar_of(servers)["recording"]["state"] == "stored"
    assert file_of(servers, "wav").read_bytes() == WAV
    assert [path.suffix for path in sorted(file_of(servers, "wav").parent.iterdir())] == [".json", ".wav"]
    assert nothing_left(servers)
