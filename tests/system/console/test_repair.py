"""What people do when something went wrong with recordings: backfill, verify, redrive, hold, get. The commands as they are run."""

from __future__ import annotations

import json
import shutil
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from console.commands.recordings_backfill import BackfillRequest, backfill
from shared.config.settings import load_settings
from simulator.audio import recording
from tests.helpers.recording_site import OLD, Site
from tests.helpers.recordings import GUID, WAV, Pbx, dead_letter, submit
from tests.helpers.servers import Servers, call_back, eventually, next_events, waiting_events
from tests.helpers.settings import settings_here

pytestmark = pytest.mark.usefixtures("fresh_stack")

OTHER = recording("8", 1.5)


def _rewrite(sidecar: Path, told: dict[str, Any]) -> None:
    body = json.loads(sidecar.read_bytes())
    sidecar.write_text(json.dumps(body | {"recording": told}), encoding="utf-8")


async def test_a_recording_whose_file_was_lost_is_fetched_again_and_not_told_to_be_there(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "lost")
    arguments = ("recordings", "backfill", "--since", "100000d", "--source", "lost")
    async with servers.subscribed("recording.#") as queue, site.working():
        await submit(servers, site.job())
        (first,) = await next_events(queue, 1)
        assert (await site.callfold(*arguments))[1] == "1 stored\n"
        pbx.answers["7"] = [web.Response(status=404) for _ in range(3)]
        site.file(f"{GUID}.wav").unlink()
        await submit(servers, site.job())
        assert (await dead_letter(servers)).headers["reason"] == "not_found"
        assert await waiting_events(queue) == [], "a further copy of its job does not tell what is not there"
        assert (await site.callfold(*arguments))[1] == "1 requested\n"
        assert await next_events(queue, 1) == [first]
        assert (await site.callfold(*arguments))[1] == "1 stored\n"
    assert site.file(f"{GUID}.wav").read_bytes() == WAV
    assert (await site.callfold("recordings", "verify", "--source", "lost"))[0] == 0


@pytest.mark.parametrize("state", ["waiting", "storing"])
async def test_a_recording_whose_job_was_lost_is_found_out_and_asked_for_again(servers: Servers, pbx: Pbx, state: str) -> None:
    site = Site(servers, pbx, f"jobless-{state}")
    await site.stored(site.job())
    sidecar = site.file(f"{GUID}.json")
    told = json.loads(sidecar.read_bytes())["recording"]
    site.file(f"{GUID}.wav").unlink()
    arguments = ("recordings", "backfill", "--since", "100000d", "--source", site.name)
    _rewrite(sidecar, told | {"state": state})
    assert (await site.callfold(*arguments))[1] == "1 in progress\n", "it may be in work now"
    assert (await site.callfold(*arguments, "--again", "--dry-run"))[1] == "1 requested (dry run: no job was queued)\n"
    _rewrite(sidecar, told | {"state": state, "at": OLD})
    code, out, _ = await site.callfold("recordings", "verify", "--source", site.name)
    assert (code, "longer than its job takes" in out) == (1, True)
    assert (await site.callfold(*arguments))[1] == "1 requested\n"
    async with servers.subscribed("recording.#") as queue, site.working():
        await next_events(queue, 1)
    assert (await site.callfold("recordings", "verify", "--source", site.name))[0] == 0


@pytest.mark.parametrize("left", ["everything", "the journal alone"])
async def test_legs_that_came_to_share_a_guid_are_backfilled_under_the_names_they_had(
    servers: Servers, pbx: Pbx, left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent's leg is told to have it late, and would come first by its place in the record; only that revision is looked at."""
    site = Site(servers, pbx, f"shared-{len(left)}")
    pbx.answers["8"] = [web.Response(body=OTHER, content_type="audio/wav") for _ in range(2)]
    told = f"&RequestID=513&Guid={GUID}&IsCallRecorded=1&token=x"
    lines = [
        "CallType=API&Event=pickup&CallID=7&RequestID=513&token=x",
        f"CallType=Outgoing&Event=pickup&CallID=8{told}",
        f"CallType=Outgoing&Event=hangup&CallID=8{told}",
        "CallType=API&Event=hangup&CallID=7&RequestID=513&token=x",
    ]
    async with servers.subscribed("recording.#") as queue, site.working("ingress") as port:
        await call_back(port, lines, source=site.name)
        first = await next_events(queue, 1)
        since = datetime.now(UTC)
        await call_back(port, [f"CallType=API&Event=hangup&CallID=7{told}"], source=site.name)
        first += await next_events(queue, 1)
        assert [str(event.message_id).split("/")[3] for event in first] == [GUID, f"{GUID}.7"]
        if left == "the journal alone":
            async with aclosing(Redis.from_url(servers.stack.redis_url)) as redis:
                await redis.flushall()
        shutil.rmtree(servers.directory / "archive" / site.name)
        settings_here(monkeypatch, site.settings)
        monkeypatch.setattr("console.commands.recordings_backfill.ago", lambda _: since)
        assert (
            await backfill(load_settings(), BackfillRequest("1s", site.name, again=False, is_dry_run=False), as_json=False) == 0
        )
        assert capsys.readouterr().out.splitlines()[-1] == "2 requested"
        again = await next_events(queue, 2)
    assert {(event.message_id, event.body["data"]["sha256"]) for event in again} == {
        (event.message_id, event.body["data"]["sha256"]) for event in first
    }


async def test_an_older_letter_of_a_recording_is_redriven_into_a_round_of_its_own(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "older")
    pbx.answers["7"] = [web.Response(status=403) for _ in range(6)]
    await site.stored(site.job())
    older = await dead_letter(servers)
    async with servers.subscribed("recording.#") as queue, site.working():
        await site.callfold("recordings", "backfill", "--since", "100000d", "--source", "older")
        await next_events(queue, 1)
        await dead_letter(servers)
        async with servers.queue("recordings.dead") as letters:
            await letters.channel.default_exchange.publish(older, "recordings.dead")
        assert (await site.callfold("recordings", "redrive", "--source", "older"))[1] == "1 redriven\n"
        (event,) = await next_events(queue, 1)
    assert event.routing_key == "recording.stored.older"
    assert pbx.asked["7"] == 7


async def test_a_call_is_held_by_what_a_person_has_at_hand_and_nothing_else_is(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "court")
    await site.stored(site.job(started_at=OLD))
    for nonsense in ("51З3", "../../x", "513/../514", "call-", ""):  # noqa: RUF001 - a Cyrillic letter that looks like a 3
        code, out, err = await site.callfold("hold", "court", nonsense)
        assert (code, out, "Expected a RequestID" in err, "Traceback" in err) == (2, "", True, False)
    code, out, err = await site.callfold("hold", "court", "514")
    assert (code, out, "Unknown call court/514: not in Redis or in the archive." in err) == (1, "", True)
    code, _, err = await site.callfold("hold", "court", "00000000-0000-0000-0000-000000000000")
    assert (code, "Unknown recording" in err) == (1, True)
    assert (await site.callfold("hold", "court", "514", "--ahead"))[:2] == (0, "court/514 is held\n")
    assert (await site.callfold("hold", "court", GUID, "--reason", "case 7"))[:2] == (0, "court/513 is held\n")
    retain = ("retention", "--older-than", "1d", "--source", "court")
    assert (await site.callfold(*retain))[1] == "0 recordings (0 bytes) deleted; 1 kept on hold\n"
    assert site.files() == [f"{GUID}.json", f"{GUID}.wav"]
    assert (await site.callfold("hold", "court", GUID, "--release"))[:2] == (0, "court/513 is no longer held\n")
    await site.callfold(*retain)
    code, out, err = await site.callfold("hold", "court", "513", "--json")
    assert (code, json.loads(out)["deleted"], "deleted before the hold" in err) == (1, 1, True)


async def test_several_recordings_are_not_put_into_one_file(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "several")
    pbx.answers["8"] = [web.Response(body=OTHER, content_type="audio/wav")]
    await site.stored(site.job("7"), site.job("8", guid=None, leg="dialed"))
    target = servers.directory / "call.wav"
    target.write_bytes(b"mine")
    for output in (str(target), "-", str(servers.directory / "none" / "x.wav")):
        code, out, err = await site.callfold("recordings", "get", "several", "513", "-o", output, "--force")
        assert (code, out, "Cannot write 2 recordings to one file" in err, GUID in err) == (1, "", True, True)
    assert target.read_bytes() == b"mine"
    assert (await site.callfold("recordings", "get", "several", GUID, "-o", str(target), "--force"))[0] == 0
    assert target.read_bytes() == WAV

    async def both() -> bool:
        code, out, _ = await site.callfold("recordings", "get", "several", "513", "-o", str(servers.directory), "--force")
        return (code, len(out.splitlines())) == (0, 2)

    assert await eventually(both)
