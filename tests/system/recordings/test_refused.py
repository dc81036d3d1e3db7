"""A file that is refused is kept, listed and can be accepted. A recording shorter than its call is requested once more."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pyrage
import pytest
from aiohttp import web

from shared.archive.storage import Archive
from simulator.audio import recording
from tests.helpers.recording_site import OLD, Site, audited
from tests.helpers.recordings import GUID, Pbx, submit
from tests.helpers.refused_files import keep
from tests.helpers.servers import Event, Servers, next_events
from tests.helpers.shelf import DAY
from tests.helpers.wav_files import FMT, LIST, SAMPLES, WAV, chunk, riff

PICKED_UP = datetime.fromisoformat("2026-11-23T23:59:59.123000+00:00")
UNTOLD = riff(FMT, chunk(b"data", SAMPLES, 0), declared=36)


def wav(content: bytes) -> web.Response:
    return web.Response(body=content, content_type="audio/wav")


def record(call_id: str, talk_s: float) -> dict[str, Any]:
    """Return the record of a call of one leg, by the clock of the PBX."""
    times = [PICKED_UP + timedelta(seconds=after_s) for after_s in (0, talk_s)]
    picked_up_at, hung_up_at = (f"{at:%Y-%m-%dT%H:%M:%S.%f}Z" for at in times)
    leg = {"call_id": call_id, "inferred": False, "picked_up_at": picked_up_at, "hung_up_at": hung_up_at}
    return {"revision": 1, "outcome": "answered", "talk_seconds": talk_s, "agent": leg, "dialed": None, "other_legs": []}


def by_call_id(events: list[Event]) -> dict[str, dict[str, Any]]:
    return {event.body["data"]["call_id"]: event.body["data"] | {"state": event.routing_key.split(".")[1]} for event in events}


def sidecar(site: Site, call_id: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(site.file(f"call-{call_id}.json").read_bytes())["recording"]
    return read


@pytest.fixture
def sealed_site(servers: Servers, pbx: Pbx) -> Site:
    return Site(servers, pbx, "sealed", f'archive_recipient = "{pyrage.x25519.Identity.generate().to_public()}"')


async def test_recordings_as_real_writers_leave_them(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "real")
    short, longer = recording("9", 2), recording("9", 55)
    answers = {
        "1": [WAV + b"\r\n"],
        "2": [UNTOLD, UNTOLD],
        "3": [riff(FMT, chunk(b"data", SAMPLES, 400)), riff(FMT, chunk(b"data", SAMPLES, 401)), WAV],
        "4": [WAV[:-10]] * 3,
        "5": [riff(FMT, chunk(b"data", b""), LIST)] * 3,
        "6": [b'{"error": "no"}' * 100] * 3,
        "7": [UNTOLD[:size] for size in (5000, 6000, 7000)],
        "11": [short, longer],
        "12": [short, recording("9", 1)],
        "13": [short] * 2,
        "14": [recording("9", 41)],
    }
    pbx.answers |= {call_id: [wav(content) for content in contents] for call_id, contents in answers.items()}
    pbx.answers["15"] = [wav(short), web.Response(status=404), web.Response(status=404)]
    jobs = [
        site.job(call_id, guid=None, record=record(call_id, 60 if len(call_id) > 1 else 1), call=f"call-{call_id}")
        for call_id in pbx.answers
    ]
    async with servers.subscribed("recording.#") as queue, site.working():
        await submit(servers, *jobs)
        data = by_call_id(await next_events(queue, len(jobs)))
    stored = {call_id: (one["seconds"], one["flags"]) for call_id, one in data.items() if one["state"] == "stored"}
    assert stored == {
        "1": (0.5, ["trailing_bytes"]),
        "2": (0.5, ["size_not_told"]),
        "3": (0.5, ["header_changed"]),
        "11": (55, ["header_changed"]),
        "12": (2, ["shorter_than_call"]),
        "13": (2, ["shorter_than_call"]),
        "14": (41, ["shorter_than_call"]),
        "15": (2, ["shorter_than_call"]),
    }
    assert [sidecar(site, call_id)["flags"] for call_id in stored] == [flags for _, flags in stored.values()]
    failed = {call_id: (one["reason"], one["flags"], "kept" in one) for call_id, one in data.items() if call_id not in stored}
    assert failed == {
        "4": ("truncated", [], True),
        "5": ("no_audio", [], False),
        "6": ("not_a_recording", [], False),
        "7": ("growing", [], True),
    }
    kept = {path.name for path in (servers.directory / "archive" / "real" / "refused").iterdir()}
    assert kept == {name for one in "47" for name in (Path(data[one]["kept"]).name, f"call-{one}.{one}.json")}
    code, out, _ = await site.callfold("recordings", "verify")
    assert (code, out.count("shorter_than_call")) == (0, 4)


async def test_a_refused_file_is_listed_accepted_or_expires(servers: Servers, sealed_site: Site, pbx: Pbx) -> None:
    site, cut = sealed_site, WAV[:-10]
    pbx.answers |= {call_id: [wav(cut) for _ in range(3)] for call_id in ("7", "8", "9")}
    old = {"started_at": OLD, "record": {"revision": 1}}
    await site.stored(site.job("7"), *(site.job(call_id, guid=None, call=f"call-{call_id}", **old) for call_id in ("8", "9")))
    code, out, _ = await site.callfold("recordings", "refused", "--json")
    listed = {one["call_id"]: one for one in map(json.loads, out.splitlines())}
    assert (code, sorted(listed)) == (0, ["7", "8", "9"])
    one = listed["7"]
    assert (one["reason"], one["bytes"], one["sha256"], one["seconds"]) == (
        "truncated",
        len(cut),
        sha256(cut).hexdigest(),
        0.499375,
    )
    assert one["uri"].endswith(".wav.age")
    code, out, _ = await site.callfold("recordings", "refused", "--source", "sealed")
    assert (code, "sealed/call-8  call-8  agent leg" in out) == (0, True)

    async with servers.subscribed("recording.#") as queue:
        code, out, err = await site.callfold("recordings", "accept", f"sealed/{GUID}")
        assert (code, err) == (0, "")
        assert out.startswith("sealed/513: accepted as file://")
        (event,) = await next_events(queue, 1)
    assert (event.routing_key, event.message_id) == ("recording.stored.sealed", f"sealed/513/recording/{GUID}/stored")
    data = event.body["data"]
    assert (data["flags"], data["bytes"], data["sha256"], data["reason"]) == (["accepted"], len(cut), one["sha256"], None)
    assert data["encryption"]["scheme"] == "age"
    assert site.file(f"{GUID}.json").exists()
    assert await site.callfold("recordings", "verify") == (0, "", ANY)
    (line,) = await audited(servers, 1, action="accept")
    assert (line.source, line.call, line.detail["recording"]) == ("sealed", "513", GUID)
    code, _, err = await site.callfold("recordings", "accept", f"sealed/{GUID}")
    assert (code, "No refused file" in err) == (1, True)

    archive = Archive(site.settings["CALLFOLD_ARCHIVE_URL"])
    of_leg = {
        "source": "sealed",
        "call": "513",
        "name": GUID,
        "guid": GUID,
        "sidecar": f"sealed/{DAY.partition('/')[2]}/{GUID}.json",
    }
    await keep(archive, "7", WAV[:-20], **of_leg)
    async with servers.subscribed("recording.#") as queue:
        code, out, _ = await site.callfold("recordings", "accept", f"sealed/{GUID}", "--json")
        (event,) = await next_events(queue, 1)
    digits = sha256(WAV[:-20]).hexdigest()[:8]
    assert (code, json.loads(out)["flags"], event.message_id) == (0, ["accepted"], f"sealed/513/recording/{GUID}/stored/{digits}")
    assert (event.body["data"]["reason"], event.body["data"]["encryption"]) == ("other_content", None)
    assert await site.callfold("recordings", "verify") == (0, "", ANY)

    await site.callfold("hold", "sealed", "call-8", "--ahead")
    code, out, _ = await site.callfold("retention", "--older-than", "365d", "--json")
    assert (code, json.loads(out)["refused"], json.loads(out)["held"] > 0) == (0, 1, True)
    code, out, _ = await site.callfold("recordings", "refused", "--json")
    assert [json.loads(one)["call_id"] for one in out.splitlines()] == ["8"]
