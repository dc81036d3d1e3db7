"""`callfold recordings`, `retention` and `hold`, on a real archive that real workers filled."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from console.commands.retention import RetentionRequest, retain
from console.local.child_process import ProcessFailedError
from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import topology
from shared.archive.storage import Archive
from shared.config.live_sources import LiveSources
from shared.config.settings import load_settings
from shared.errors import BrokerUnavailableError, UnavailableError
from shared.retention.expiry import Expiry
from shared.runtime.audit import Audit
from shared.runtime.process import background
from shared.runtime.store import open_store
from tests.helpers.pace import LIMIT_S
from tests.helpers.recording_site import OLD, Site, audited
from tests.helpers.recordings import GUID, WAV, Pbx
from tests.helpers.servers import (
    AGENT_GUID,
    DIALED_GUID,
    RETRY_S,
    VENDOR_LINES,
    Servers,
    call_back,
    eventually,
    exit_code,
    next_events,
)
from tests.helpers.settings import settings_here
from worker.daily_retention import DailyRetention

FIRST, SECOND = "a0000000-0000-0000-0000-000000000001", "b0000000-0000-0000-0000-000000000002"

NOBODY = "amqp://guest:guest@127.0.0.1:1/"


async def test_a_recording_is_got_by_its_call_or_its_guid_and_nothing_is_written_over(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "got")
    await site.stored(site.job())
    target = servers.directory / "out"
    target.mkdir()
    code, out, _ = await site.callfold("recordings", "get", "got", "513", "-o", str(target), "--json")
    assert (code, json.loads(out)["file"], json.loads(out)["leg"]) == (0, str(target / f"{GUID}.wav"), "agent")
    assert (target / f"{GUID}.wav").read_bytes() == WAV
    code, _, err = await site.callfold("recordings", "get", "got", GUID, "-o", str(target))
    assert (code, "wav exists. Choose" in err) == (1, True)
    code, _, _ = await site.callfold("recordings", "get", "got", GUID, "-o", str(target), "--force")
    assert code == 0
    for wrong, what in (("514", "No recording of got 514"), ("00000000-0000-0000-0000-000000000000", "No recording of got")):
        code, _, err = await site.callfold("recordings", "get", "got", wrong)
        assert (code, what in err) == (1, True)
    code, _, err = await site.callfold("recordings", "get", "nobody", "513")
    assert (code, "Unknown source nobody" in err) == (2, True)
    stored = site.file(f"{GUID}.wav")
    stored.write_bytes(WAV[:-1] + b"!")
    code, _, err = await site.callfold("recordings", "get", "got", GUID, "-o", str(target / "damaged.wav"))
    assert (code, "is damaged" in err, (target / "damaged.wav").exists()) == (1, True, False)
    assert sorted(path.name for path in target.iterdir()) == [f"{GUID}.wav"]


async def test_what_was_got_before_a_failure_is_told_and_what_was_not_is_not(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "gottold")
    await site.stored(site.job("7", guid=FIRST), site.job("8", guid=SECOND))
    stored = site.file(f"{SECOND}.wav")
    stored.write_bytes(WAV[:-1] + b"!")
    target = servers.directory / "out"
    target.mkdir()
    code, _, err = await site.callfold("recordings", "get", "gottold", "513", "-o", str(target))
    assert (code, "is damaged" in err) == (1, True)
    assert [path.name for path in target.iterdir()] == [f"{FIRST}.wav"]
    (line,) = await audited(servers, 1, action="download", source="gottold")
    assert (line.call, line.detail) == ("513", {"recording": FIRST})


async def test_without_rabbitmq_a_recording_is_got_and_the_command_says_what_the_history_lacks(
    servers: Servers, pbx: Pbx
) -> None:
    site = Site(servers, pbx, "gotalone")
    await site.stored(site.job())
    out = servers.directory / "got.wav"
    code, _, err = await site.callfold("recordings", "get", "gotalone", GUID, "-o", str(out), CALLFOLD_AMQP_URL=NOBODY)
    assert (code, out.read_bytes()) == (0, WAV)
    (line,) = [json.loads(line) for line in err.splitlines() if "audit_not_in_history" in line]
    assert (line["action"], line["call"], line["detail"]) == ("download", "513", {"recording": GUID})


async def test_a_sealed_recording_is_opened_with_its_identity_only(servers: Servers, pbx: Pbx) -> None:
    identity = pyrage.x25519.Identity.generate()
    site = Site(servers, pbx, "sealed", f'archive_recipient = "{identity.to_public()}"')
    await site.stored(site.job())
    assert site.files() == [f"{GUID}.json", f"{GUID}.wav.age"]
    keys, out = servers.directory / "key.txt", servers.directory / "opened.wav"
    keys.write_text(f"# created today\n{identity}\n", encoding="utf-8")
    code, _, err = await site.callfold("recordings", "get", "sealed", GUID, "-o", str(out))
    assert (code, "--identity" in err) == (2, True)
    code, _, err = await site.callfold("recordings", "get", "sealed", GUID, "-o", str(out), CALLFOLD_ARCHIVE_IDENTITY=str(keys))
    assert (code, err) == (0, "")
    assert out.read_bytes() == WAV
    assert (await site.callfold("recordings", "verify"))[0] == 0


async def test_verify_tells_every_difference_between_the_archive_and_its_sidecars(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "verified")
    names = [f"call-{number}" for number in range(7, 12)]
    await site.stored(*(site.job(str(number), guid=None, started_at=OLD) for number in range(7, 12)))
    code, out, err = await site.callfold("recordings", "verify")
    assert (code, out, "5 files" in err) == (0, "", True)
    site.file(f"{names[0]}.wav").unlink()
    site.file(f"{names[1]}.wav").write_bytes(WAV[:-1] + b"!")
    site.file(f"{names[2]}.wav").write_bytes(WAV[:-2])
    site.file(f"{names[3]}.json").write_text("{}", encoding="utf-8")
    site.file(f"{names[4]}.json").with_name("stray.txt").write_text("?", encoding="utf-8")
    code, out, _ = await site.callfold("recordings", "verify", "--json", "--source", "verified")
    found = {told["path"].rpartition("/")[2]: told["problem"] for told in map(json.loads, out.splitlines())}
    assert code == 1
    assert found[f"{names[0]}.wav"] == "is missing"
    assert "SHA-256" in found[f"{names[1]}.wav"]
    assert f"has {len(WAV) - 2} bytes" in found[f"{names[2]}.wav"]
    assert "not a sidecar" in found[f"{names[3]}.json"]
    assert found[f"{names[3]}.wav"] == found["stray.txt"] == "has no sidecar"
    assert len(found) == 6
    code, out, _ = await site.callfold("recordings", "verify", "--since", "1d")
    assert (code, out) == (0, ""), "these calls are older"


async def test_what_failed_is_redriven_with_a_whole_new_schedule(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "redriven")
    pbx.answers["7"] = [web.Response(status=403) for _ in range(5)]
    await site.stored(site.job())
    code, out, _ = await site.callfold("recordings", "redrive", "--source", "redriven", "--dry-run")
    assert (code, out) == (0, "1 would be redriven\n")
    async with servers.subscribed("recording.#") as queue, site.working():
        _, out, _ = await site.callfold("recordings", "redrive", "--reason", "not_allowed", "--json")
        assert json.loads(out) == {"redriven": 1, "dry_run": False}
        (event,) = await next_events(queue, 1)
    assert event.message_id == f"redriven/513/recording/{GUID}/stored"
    assert event.body["data"]["attempts"] == 3, "two more were refused"
    assert site.files() == [f"{GUID}.json", f"{GUID}.wav"]


async def test_what_is_recorded_and_not_in_the_archive_is_backfilled(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "backfilled")
    refused = [web.Response(status=404) for _ in range(len(RETRY_S) + 1)]
    pbx.answers["1000000087849"] = refused
    async with servers.subscribed("recording.#") as queue, site.working("ingress") as port:
        await call_back(port, [f"token=x&{line}" for line in VENDOR_LINES], source="backfilled")
        told = {event.body["data"]["leg"]: event.body["type"].split(".")[2] for event in await next_events(queue, 2)}
        assert told == {"agent": "absent", "dialed": "stored"}
        site.file(f"{DIALED_GUID}.json").unlink()
        site.file(f"{DIALED_GUID}.wav").unlink()
        arguments = ("recordings", "backfill", "--since", "1h", "--source", "backfilled")
        code, out, _ = await site.callfold(*arguments, "--dry-run")
        assert (code, out) == (0, "2 requested (dry run: no job was queued)\n")
        assert (await site.callfold(*arguments, "--json"))[1] == '{"asked_for":2}\n'
        events = await next_events(queue, 2)
        assert {event.message_id for event in events} == {
            f"backfilled/513/recording/{guid}/stored" for guid in (AGENT_GUID, DIALED_GUID)
        }
        assert (await site.callfold(*arguments))[1] == "2 stored\n"
        assert (await site.callfold(*arguments, "--again"))[1] == "2 requested\n"
        await next_events(queue, 2)
    assert site.files() == sorted(f"{guid}.{kind}" for guid in (AGENT_GUID, DIALED_GUID) for kind in ("json", "wav"))
    assert (await site.callfold("recordings", "verify"))[0] == 0


async def test_retention_deletes_what_is_old_and_tells_each_but_not_what_is_held(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "retained")
    calls = {"513": GUID, "514": None, "515": None}
    jobs = [
        site.job(str(7 + number), call=call, request_id=int(call), guid=guid, started_at=OLD if call != "515" else _now())
        for number, (call, guid) in enumerate(calls.items())
    ]
    await site.stored(*jobs)
    code, out, _ = await site.callfold("hold", "retained", "514", "--reason", "case 2026-17", "--json")
    assert (code, json.loads(out)) == (0, {"call": "retained/514", "held": 1, "deleted": 0})
    code, out, _ = await site.callfold("hold", "retained", "--json")
    assert (code, json.loads(out)["call"], json.loads(out)["reason"]) == (0, "retained/514", "case 2026-17")
    arguments = ("retention", "--older-than", "365d", "--source", "retained")
    before = site.files()
    code, out, _ = await site.callfold(*arguments, "--dry-run")
    assert (code, out) == (0, f"1 recording ({len(WAV)} bytes) would be deleted; 1 kept on hold\n")
    assert site.files() == before
    async with servers.subscribed("recording.#") as queue:
        _, out, err = await site.callfold(*arguments)
        assert out == f"1 recording ({len(WAV)} bytes) deleted; 1 kept on hold\n"
        (logged,) = (json.loads(line) for line in err.splitlines() if '"recording_expired"' in line)
        assert (logged["call"], logged["leg"], [Path(path).name for path in logged["files"]]) == (
            "retained/513",
            "agent",
            [f"{GUID}.wav"],
        )
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.message_id) == (
            "recording.expired.retained",
            f"retained/513/recording/{GUID}/expired",
        )
        assert (event.body["data"]["reason"], event.body["data"]["bytes"]) == ("retention", len(WAV))
        assert site.files() == [name for name in before if name != f"{GUID}.wav"]
        assert json.loads(site.file(f"{GUID}.json").read_bytes())["recording"]["state"] == "expired"
        assert (await site.callfold("recordings", "verify"))[0] == 0
        code, out, _ = await site.callfold("hold", "retained", "514", "--release", "--json")
        assert (code, json.loads(out)) == (0, {"call": "retained/514", "released": 1})
        assert (await site.callfold("hold", "retained", "514", "--release"))[0] == 1
        _, out, _ = await site.callfold(*arguments, "--with-records", "--json")
        assert json.loads(out) == {
            "recordings": 1,
            "records": 2,
            "bytes": len(WAV),
            "held": 0,
            "waiting": 0,
            "problems": 0,
        }
        ids = {event.message_id for event in await next_events(queue, 3)}
    assert ids == {
        f"retained/513/recording/{GUID}/expired/record",
        "retained/514/recording/call-8/expired",
        "retained/514/recording/call-8/expired/record",
    }, "every deletion is told"
    assert site.files() == ["call-9.json", "call-9.wav"], "young"


async def test_a_run_that_deletes_is_told_before_it_begins_and_how_it_ended_also_where_it_is_cut_off(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(servers, pbx, "cuttold")
    await site.stored(*(site.job(str(number), guid=guid, started_at=OLD) for number, guid in enumerate((FIRST, SECOND), start=7)))
    settings_here(monkeypatch, site.settings)
    files: list[list[str]] = []
    real_record, real_expire = Audit.record_or_raise, Expiry.expire

    async def record_or_raise(*given: Any, **told: Any) -> None:  # noqa: ANN401
        await real_record(*given, **told)
        files.append(site.files())

    async def cut_at_the_second(expiry: Expiry, path: str) -> None:
        if expiry.done.recordings:
            raise KeyboardInterrupt
        await real_expire(expiry, path)

    monkeypatch.setattr(Audit, "record_or_raise", record_or_raise)
    monkeypatch.setattr(Expiry, "expire", cut_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        await retain(load_settings(), RetentionRequest("1d", "cuttold", with_records=False, is_dry_run=False), as_json=False)
    begun, ended = await audited(servers, 2, action="deletion", source="cuttold")
    assert (begun.detail["stage"], ended.detail["stage"]) == ("begun", "ended")
    assert begun.detail["run"] == ended.detail["run"]
    assert ended.detail["deleted"] == {"recordings": 1, "records": 0, "problems": 0}
    assert files[0] == [f"{FIRST}.json", f"{FIRST}.wav", f"{SECOND}.json", f"{SECOND}.wav"], "told before anything was deleted"
    assert site.files() == [f"{FIRST}.json", f"{SECOND}.json", f"{SECOND}.wav"]


async def test_a_run_that_cannot_be_told_deletes_nothing(servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(servers, pbx, "untold")
    await site.stored(site.job(started_at=OLD))
    settings_here(monkeypatch, site.settings)

    async def refuse(_self: Publisher, message: Message) -> None:
        raise BrokerUnavailableError(f"RabbitMQ refused {message.routing_key}")

    before = site.files()
    monkeypatch.setattr(Publisher, "publish", refuse)
    with pytest.raises(ExceptionGroup, match="TaskGroup"):
        await retain(load_settings(), RetentionRequest("1d", "untold", with_records=False, is_dry_run=False), as_json=False)
    assert site.files() == before


async def test_a_retention_that_was_cut_off_goes_on_with_the_same_event(servers: Servers, pbx: Pbx) -> None:
    site = Site(servers, pbx, "cut")
    await site.stored(site.job(started_at=OLD))
    sidecar = site.file(f"{GUID}.json")
    told = json.loads(sidecar.read_bytes())
    told["recording"] |= {"state": "expiring", "expired_at": OLD}
    sidecar.write_text(json.dumps(told), encoding="utf-8")
    async with servers.subscribed("recording.#") as queue:
        await site.callfold("retention", "--older-than", "1d")
        (event,) = await next_events(queue, 1)
    assert event.body["time"] == OLD
    assert site.files() == [f"{GUID}.json"]


async def test_one_worker_a_day_runs_retention_and_a_run_that_failed_is_run_again(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(servers, pbx, "daily")
    await site.stored(site.job(started_at=OLD))
    settings_here(monkeypatch, site.settings)
    monkeypatch.setenv("CALLFOLD_RETENTION_DAYS", "30")
    settings = load_settings()
    publisher = Publisher(BrokerAddress(settings.amqp_urls, topology(RETRY_S), "test"), timeout_s=LIMIT_S)
    archive, now = Archive(settings.archive_url), datetime.now(UTC)
    async with open_store(settings) as store, background(publisher.run()):
        await publisher.wait_until_up()
        daily = [DailyRetention(archive, publisher, store, LiveSources.load(settings.sources_file), settings) for _ in range(2)]
        root = servers.directory / "archive" / "daily"
        aside = root.rename(root.with_name("aside"))
        root.write_text("in the way", encoding="utf-8")
        with pytest.raises(UnavailableError):
            await daily[0].once(now)
        root.unlink()
        aside.rename(root)
        with capture_logs() as logged:
            assert [await one.once(now) for one in daily] == [True, False]
        (run,) = (told for told in logged if told["event"] == "retention_finished")
        assert (run["recordings"], run["bytes"], run["records"], run["held"], run["problems"]) == (1, len(WAV), 0, 0, 0)
        assert site.files() == [f"{GUID}.json"]
        assert await daily[1].once(now + timedelta(days=1))

        async def nothing_waits() -> bool:
            return await servers.take_all("recordings") == []

        await eventually(nothing_waits)


async def test_a_daily_run_that_was_killed_is_taken_up_by_another_worker(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(servers, pbx, "killed")
    await site.stored(site.job(started_at=OLD))
    settings = site.settings | {"CALLFOLD_RETENTION_DAYS": "30"}
    async with servers.fleet(**settings) as fleet:
        victim = fleet.add("victim", "worker", {"CALLFOLD_CRASH_AT": "retention.begun"})
        with suppress(ProcessFailedError):  # before or after it was ready
            await victim.start()
        assert await exit_code(victim) == -signal.SIGKILL
        fleet.processes.remove(victim)
    loaded, now = settings_here(monkeypatch, settings), datetime.now(UTC)
    publisher = Publisher(BrokerAddress(loaded.amqp_urls, topology(RETRY_S), "test"), timeout_s=LIMIT_S)
    async with open_store(loaded) as store, background(publisher.run()):
        await publisher.wait_until_up()
        heir = DailyRetention(Archive(loaded.archive_url), publisher, store, LiveSources.load(loaded.sources_file), loaded)
        await eventually(lambda: heir.once(now))
        assert site.files() == [f"{GUID}.json"]
        assert not await heir.once(now), "once a day"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
