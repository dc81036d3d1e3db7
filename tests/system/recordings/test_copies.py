"""However often, in whatever order and wherever the jobs of a recording come: it is stored once, and told in one way."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from redis.asyncio import Redis

from console.commands.recordings_verify import check_day
from shared.archive.storage import Archive
from simulator.audio import recording
from tests.helpers import full_disk
from tests.helpers.recordings import (
    GUID,
    WAV,
    Pbx,
    begin,
    dead_letter,
    end_leases,
    file_of,
    job,
    nothing_left,
    sidecar_of,
    submit,
    worker,
)
from tests.helpers.revisions import Revisions, line
from tests.helpers.servers import (
    Event,
    Servers,
    eventually,
    eventually_as_many,
    eventually_nothing,
    exit_code,
    next_events,
    next_new,
    waiting_events,
)
from tests.helpers.volume import sizes

OTHER = recording("8", 1.5)
COPIES, CALLS = 12, 10


def _wav(content: bytes) -> web.Response:
    return web.Response(body=content, content_type="audio/wav")


async def test_any_interleaving_of_copies_of_a_job_stores_its_recording_once(servers: Servers, pbx: Pbx) -> None:
    jobs = [job(str(number), guid=None).encode() for number in range(CALLS) for _ in range(COPIES)]
    random.Random(513).shuffle(jobs)  # noqa: S311 - repeatable on purpose
    for number in range(CALLS):
        # Whoever asked twice at once would store another content than the one it told.
        pbx.answers[str(number)] = [_wav(recording(str(number), 1.5)), *(_wav(OTHER) for _ in range(COPIES))]
    bodies: dict[str, set[str]] = {}
    count = 0
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx) as fleet:
        await fleet.add("second", "worker", {}).start()
        await submit(servers, *jobs)

        async def told() -> int:
            nonlocal count
            for event in await waiting_events(queue):
                bodies.setdefault(str(event.message_id), set()).add(str(event.body))
                count += 1
            return count

        await eventually_as_many(len(jobs), told)
    assert {len(told) for told in bodies.values()} == {1}, "one id, one body"
    assert len(bodies) == CALLS
    assert dict(pbx.asked) == {str(number): 1 for number in range(CALLS)}
    for number in range(CALLS):
        assert file_of(servers, "wav", f"call-{number}").read_bytes() == recording(str(number), 1.5)
    assert nothing_left(servers)


async def test_a_second_fetch_changes_nothing_where_it_is_equal_and_keeps_both_where_it_is_not(
    servers: Servers, pbx: Pbx
) -> None:
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        await submit(servers, job().encode())
        (first,) = await next_events(queue, 1)
        before = (file_of(servers, "wav").stat().st_mtime_ns, file_of(servers, "wav").read_bytes())
        await submit(servers, job().encode(), again=1)
        assert await next_events(queue, 1) == [first]
        assert (file_of(servers, "wav").stat().st_mtime_ns, file_of(servers, "wav").read_bytes()) == before
        pbx.answers["7"] = [_wav(OTHER), _wav(OTHER)]
        others = []
        for _ in range(2):
            await submit(servers, job().encode(), again=1)
            (event,) = await next_events(queue, 1)
            variant = event.body["data"]["sha256"][:8]
            assert event.message_id == f"acme/513/recording/{GUID}/stored/{variant}"
            assert event.body["data"]["reason"] == "other_content"
            others.append((event.body["data"]["uri"], variant))
        pbx.answers["7"] = [web.Response(status=302, headers={"Location": "http://[::1]/"})]
        await submit(servers, job().encode(), again=1)
        assert (await dead_letter(servers)).headers["reason"] == "origin_not_allowed"
        assert await waiting_events(queue) == [], "what is stored stays so, whatever a second look brings"
    sidecar = sidecar_of(servers)
    assert (sidecar["recording"]["state"], sidecar["recording"]["sha256"]) == ("stored", first.body["data"]["sha256"])
    ((uri, variant),) = set(others)
    assert [other["uri"] for other in sidecar["others"]] == [uri]
    assert file_of(servers, "wav").read_bytes() == WAV
    assert file_of(servers, f"{variant}.wav").read_bytes() == OTHER
    assert pbx.asked["7"] == 5


async def test_a_further_recording_that_was_damaged_is_stored_again_under_a_longer_name(servers: Servers, pbx: Pbx) -> None:
    digits = sha256(OTHER).hexdigest()
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        await submit(servers, job().encode())
        await next_events(queue, 1)
        for name in (digits[:8], digits[:16]):
            pbx.answers["7"] = [_wav(OTHER)]
            await submit(servers, job().encode(), again=1)
            (event,) = await next_events(queue, 1)
            assert event.routing_key == "recording.stored.acme"
            assert file_of(servers, f"{name}.wav").read_bytes() == OTHER
            file_of(servers, f"{digits[:8]}.wav").write_bytes(OTHER[:100])
    assert file_of(servers, "wav").read_bytes() == WAV


async def test_an_amendment_rewrites_the_sidecar_and_a_late_older_job_does_not_bring_the_old_record_back(
    servers: Servers, pbx: Pbx
) -> None:
    first = job(record={"revision": 1, "outcome": "unknown"}).encode()
    second = job(fetch=False, record={"revision": 2, "outcome": "answered"}).encode()
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        await submit(servers, first)
        await next_events(queue, 1)
        await submit(servers, second)

        async def is_amended() -> bool:
            return bool(sidecar_of(servers)["call"]["outcome"] == "answered")

        await eventually(is_amended)
        assert await waiting_events(queue) == [], "a rewritten sidecar is no event"
        await submit(servers, first)
        await next_events(queue, 1)
    sidecar = sidecar_of(servers)
    assert (sidecar["call"]["outcome"], sidecar["recording"]["state"]) == ("answered", "stored")


async def test_two_legs_that_say_they_have_one_guid_are_both_kept(servers: Servers, pbx: Pbx) -> None:
    pbx.answers["8"] = [_wav(OTHER)]
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        await submit(servers, job("7").encode())
        await next_events(queue, 1)
        await submit(servers, job("8", call="514", request_id=514).encode())
        (event,) = await next_events(queue, 1)
    assert event.message_id == f"acme/514/recording/{GUID}/stored"
    assert file_of(servers, "wav").read_bytes() == WAV
    assert file_of(servers, "8.wav").read_bytes() == OTHER
    assert sidecar_of(servers, f"{GUID}.8")["request_id"] == 514


async def test_a_guid_that_two_legs_have_one_of_them_late_gives_each_its_own_file_and_event_in_any_order(
    servers: Servers, pbx: Pbx
) -> None:
    revisions, told = Revisions(), f"&Guid={GUID}&IsCallRecorded=1"
    begun = (line(0, "API", "7", "pickup"), line(1, "Outgoing", "8", "pickup"))
    revisions.tell(*begun, line(9, "Outgoing", "8", "hangup", told), line(10, "API", "7", "hangup"))
    revisions.tell(line(20, "API", "7", "hangup", told))
    link = "https://localhost:8080/rec?nId={}"
    jobs = [replace(job, recording_url=link.format(job.call_id)) for job in revisions.jobs if job.state == "waiting"]
    assert [(job.call_id, job.record["revision"]) for job in jobs] == [("8", 1), ("7", 2), ("8", 2)]
    pbx.answers["8"] = [_wav(OTHER)]
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx) as fleet:
        await fleet.add("second", "worker", {}).start()
        await submit(servers, *(replace(job, fetch=True).encode() for job in reversed(jobs * 2)))
        bodies = {(event.message_id, str(event.body)) for event in await next_events(queue, len(jobs) * 2)}
    assert len(bodies) == 2, "one id, one body"
    ids = {event_id for event_id, _ in bodies}
    assert ids == {f"acme/513/recording/{GUID}/stored", f"acme/513/recording/{GUID}.7/stored"}
    assert file_of(servers, "wav").read_bytes() == OTHER
    assert file_of(servers, "7.wav").read_bytes() == WAV


@pytest.mark.parametrize("trouble", ["full", "unwritable"])
async def test_an_archive_that_takes_nothing_is_told_of_and_the_recording_stored_once_it_does(
    servers: Servers, pbx: Pbx, trouble: str
) -> None:
    blocked = servers.directory / ("archive/acme" if trouble == "unwritable" else "full")
    full = {full_disk.VARIABLE: str(servers.directory / "full")}
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, **full):
        blocked.write_text("in the way")
        ids = []

        async def drafts() -> list[Path]:  # one that was given up is removed by a thread
            return list((servers.directory / "archive").rglob("*.callfold-tmp"))

        for round_ in (1, 2):
            await submit(servers, job().encode(), round=round_)
            (event,) = await next_events(queue, 1)
            assert (event.routing_key, event.body["data"]["reason"]) == ("recording.failed.acme", "archive_unavailable")
            assert (await dead_letter(servers)).headers["reason"] == "archive_unavailable"
            assert not file_of(servers, "wav").exists()
            await eventually_nothing(drafts)
            ids.append(event.message_id)
        assert ids == [f"acme/513/recording/{GUID}/failed", f"acme/513/recording/{GUID}/failed/1.2"]
        blocked.unlink()
        await submit(servers, job().encode(), round=3)
        (event,) = await next_events(queue, 1)
        assert event.routing_key == "recording.stored.acme"
    assert file_of(servers, "wav").read_bytes() == WAV
    assert sorted(path.name for path in file_of(servers, "wav").parent.iterdir()) == [f"{GUID}.json", f"{GUID}.wav"]
    assert nothing_left(servers)


async def test_a_failure_is_told_again_in_the_same_words_though_nothing_could_be_written_into_the_archive(
    servers: Servers, pbx: Pbx
) -> None:
    bodies = []
    async with (
        servers.subscribed("recording.#") as queue,
        worker(servers, pbx, CALLFOLD_CRASH_AT="recording.before_ack") as fleet,
    ):
        victim = fleet.processes.pop()
        (servers.directory / "archive" / "acme").write_text("in the way")
        await submit(servers, job().encode(), attempts=20)
        bodies += await next_events(queue, 1)
        assert await exit_code(victim) == -signal.SIGKILL
        await end_leases(servers)
        await fleet.add("heir", "worker", {"CALLFOLD_CRASH_AT": "nowhere"}).start()
        bodies += await next_events(queue, 1)
    first, second = bodies
    assert (first.message_id, first.body["data"]["reason"]) == (f"acme/513/recording/{GUID}/failed", "archive_unavailable")
    assert second == first


async def test_a_download_whose_worker_is_killed_in_its_middle_is_resumed_by_another(servers: Servers, pbx: Pbx) -> None:
    content = recording("7", 60)
    asked: list[str | None] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Range"))
        response, missing = await begin(request, content)
        await response.write(missing[:100_000])
        await response.drain()
        await response.write(missing[100_000:])
        return response

    pbx.serve["7"] = serve
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, CALLFOLD_CRASH_AT="recording.chunk") as fleet:
        victim = fleet.processes.pop()
        await submit(servers, job().encode())
        assert await exit_code(victim) == -signal.SIGKILL
        assert not file_of(servers, "wav").exists()
        assert not nothing_left(servers), "a part, to be resumed"
        await fleet.add("heir", "worker", {"CALLFOLD_CRASH_AT": "nowhere"}).start()
        (event,) = await next_events(queue, 1)  # the victim's lock ends first
    assert asked[0] is None
    assert str(asked[1]).startswith("bytes=")
    assert event.routing_key == "recording.stored.acme"
    assert file_of(servers, "wav").read_bytes() == content
    assert nothing_left(servers)


async def test_a_content_whose_worker_died_before_it_told_is_told_of_though_the_next_fetch_brings_another(
    servers: Servers, pbx: Pbx
) -> None:
    pbx.answers["7"] = [_wav(WAV), _wav(OTHER)]
    async with (
        servers.subscribed("recording.#") as queue,
        worker(servers, pbx, CALLFOLD_CRASH_AT="recording.archived") as fleet,
    ):
        victim = fleet.processes.pop()
        await submit(servers, job().encode(), again=1)
        assert await exit_code(victim) == -signal.SIGKILL
        await end_leases(servers)
        await fleet.add("heir", "worker", {"CALLFOLD_CRASH_AT": "nowhere"}).start()
        events = await next_new(queue, 2)
    told = {event.message_id: event.body["data"]["sha256"] for event in events}
    first, second = sha256(WAV).hexdigest(), sha256(OTHER).hexdigest()
    assert told == {
        f"acme/513/recording/{GUID}/stored": first,
        f"acme/513/recording/{GUID}/stored/{second[:8]}": second,
    }
    assert pbx.asked["7"] == 2


async def test_an_entry_of_a_sidecar_that_was_damaged_keeps_nothing_else_from_being_told(servers: Servers, pbx: Pbx) -> None:
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        pbx.answers["7"] = [_wav(WAV), _wav(OTHER)]
        await submit(servers, job().encode())
        (first,) = await next_new(queue, 1)
        await submit(servers, job().encode(), again=1)
        (second,) = await next_new(queue, 1, [first])
        sidecar = sidecar_of(servers)
        whole = sidecar["others"][0]
        damaged = ({**whole, "sha256": None}, {**whole, "reason": None}, {"uri": whole["uri"]}, whole)
        sidecar["others"] = damaged
        file_of(servers, "json").write_bytes(orjson.dumps(sidecar))
        await submit(servers, job().encode(), again=1, may_have_stored=1)
        told = await next_events(queue, 2)
        assert told == [first, second]
        file_of(servers, "wav").unlink()
        pbx.answers["7"] = [web.Response(status=302, headers={"Location": "http://[::1]/"})]
        await submit(servers, job().encode(), may_have_stored=1)
        assert (await dead_letter(servers)).headers["reason"] == "origin_not_allowed"
        assert await waiting_events(queue) == [second], "what is not there is not told"


async def _problems(servers: Servers, events: Sequence[Event], served: Mapping[str, set[str]], *, jobs: int) -> list[object]:
    """List what is not as it must be once all jobs have come to their ends, and may be so before."""
    bodies: dict[str, set[str]] = {}
    for event in events:
        bodies.setdefault(str(event.message_id), set()).add(str(event.body))
    found: list[object] = [f"{event_id} has {len(told)} bodies" for event_id, told in bodies.items() if len(told) > 1]
    if len(events) < jobs:
        found.append(f"{len(events)} events of {jobs} jobs")
    archive = Archive((servers.directory / "archive").as_uri())
    day = "acme/monitor/2026-UTC/11/23"
    found += [each async for each in check_day(archive, day, (1,))]
    found += [] if nothing_left(servers) else ["parts of downloads"]
    for number in range(CALLS):
        sidecar = await archive.sidecar(f"{day}/call-{number}.json")
        stored = Counter(str(info.sha256) for info in sidecar.contents) if sidecar else Counter()
        told = {str(event.body["data"]["sha256"]) for event in events if f"/call-{number}/" in str(event.message_id)}
        found += [f"call {number}: {digest} is there {times} times" for digest, times in stored.items() if times > 1]
        found += [f"call {number}: {digest} is stored or told, not both" for digest in told ^ {*stored}]
        found += [f"call {number}: {digest} was never served" for digest in {*stored} - served.get(str(number), set())]
    return found


@pytest.mark.parametrize("seed", [*sizes(1, 2), pytest.param(3, marks=pytest.mark.volume)])
async def test_whatever_is_lost_meanwhile_a_content_is_stored_once_and_none_is_forgotten(
    servers: Servers, pbx: Pbx, seed: int
) -> None:
    """Copies in any order, two workers, one killed with `kill -9` and replaced; and Redis forgets the locks, again and again."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    jobs = [job(str(number), guid=None).encode() for number in range(CALLS) for _ in range(4)]
    chance.shuffle(jobs)
    served: dict[str, set[str]] = {}

    async def serve(request: web.Request) -> web.StreamResponse:
        """Serve one of two contents, some so slowly that others come, are stored and done meanwhile."""
        call_id = request.query["nId"]
        content = recording(call_id + chance.choice("12"), 1.5)
        served.setdefault(call_id, set()).add(sha256(content).hexdigest())
        await asyncio.sleep(chance.choice((0, 0, 1.5)))
        return _wav(content)

    pbx.serve = {str(number): serve for number in range(CALLS)}
    events: list[Event] = []

    async def problems() -> list[object]:
        events.extend(await waiting_events(queue))
        return await _problems(servers, events, served, jobs=len(jobs))

    redis = Redis.from_url(servers.stack.redis_url)
    async with servers.subscribed("recording.#") as queue:
        async with worker(servers, pbx) as fleet:
            victim = fleet.add("victim", "worker", {})
            await victim.start()
            await submit(servers, *jobs, again=1)
            killed_at = chance.randrange(20, 60)
            for moment in range(80):
                await asyncio.sleep(chance.uniform(0.02, 0.15))
                for lock in await redis.keys("callfold:lock:*"):
                    await redis.delete(lock)
                if moment == killed_at:
                    os.kill(victim.pid, signal.SIGKILL)
            fleet.processes.remove(victim)
            await exit_code(victim)
            await fleet.add("heir", "worker", {}).start()
            await eventually_nothing(problems)
        assert await problems() == [], "nor did what was still at work change that"
    await redis.aclose()
