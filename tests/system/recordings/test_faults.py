"""A thousand recordings, a fault in each, workers that are killed in the middle of them: every hash right, every reason true."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import aio_pika
import orjson
import pytest

from console.local.processes import Fleet
from shared.domain.adapter_link import SAMPLE_LINK
from shared.domain.recording import RecordingJob
from simulator.focalscope import FocalScope, Plan
from simulator.recordings import Fault
from simulator.scenario import SECTOK
from tests.helpers.faulty_archives import Bucket, Disk
from tests.helpers.pace import LIMIT_S
from tests.helpers.recording_faults import ALWAYS, FULL, KILLED, UNWRITABLE, Trouble, dealt, not_of, of
from tests.helpers.recordings import end_leases, job, nothing_left, takes_jobs
from tests.helpers.s3 import Busy
from tests.helpers.servers import UNMEASURED, Servers, callfold, eventually, waiting_events
from tests.helpers.volume import sizes

SEED = 513


# Downloads in hand, cut off by one kill; few enough rounds of it that no job comes back ten times.
KILLED_AT_ONCE, KILLED_AT_ONCE_OF_FEW = 12, 1
TOLD_S = 3 * LIMIT_S
_AT_ONCE = 16

Ends = dict[str, tuple[str, dict[str, Any]]]


@pytest.mark.parametrize("count", sizes(34, 1000))
async def test_recordings_with_a_fault_in_each_on_their_way_to_a_disk(servers: Servers, count: int) -> None:
    await _storm(servers, Disk(servers.directory), count)


@pytest.mark.parametrize("count", sizes(38, 300))
async def test_recordings_with_a_fault_in_each_on_their_way_into_s3(servers: Servers, s3: Busy, count: int) -> None:
    await _storm(servers, Bucket(s3), count)


@dataclass(slots=True)
class _Storm:
    """What is under way: the recordings and their troubles, and what was told of them, in order."""

    servers: Servers
    pbx: FocalScope
    fleet: Fleet
    queue: aio_pika.abc.AbstractQueue
    troubles: dict[str, Trouble]
    told: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    kills: int = 0

    async def ended(self, call_ids: Sequence[str], *states: str) -> Ends:
        """Wait until each of these was told of with one of the states; returns how, by CallID."""
        ids = {f"{_job(call_id, self.troubles).id}/{state}": call_id for call_id in call_ids for state in states}

        async def all_are() -> bool:
            for event in await waiting_events(self.queue):
                self.told[event.message_id or ""].append(orjson.dumps(event.body))
            return {ids[event_id] for event_id in self.told if event_id in ids} == set(call_ids)

        await eventually(all_are, timeout_s=TOLD_S)
        assert all(len(set(bodies)) == 1 for bodies in self.told.values()), "one id, one body"
        found = [event_id for event_id in ids if event_id in self.told]
        assert len(found) == len(call_ids), "each ended in exactly one way"
        return {ids[event_id]: _end(self.told[event_id][0]) for event_id in found}


async def _storm(servers: Servers, place: Disk | Bucket, count: int) -> None:
    troubles = dealt(count, place.kind, SEED)
    async with FocalScope(Plan(SAMPLE_LINK)) as pbx, servers.subscribed("recording.#") as queue:
        for number, (call_id, trouble) in enumerate(troubles.items()):
            seconds = 4 if trouble is KILLED else 1 + number % 100 / 100
            pbx.recordings.add(call_id, seconds, fault=trouble.fault, times=trouble.times)
        async with _two_workers(servers, pbx, place.settings) as fleet:
            storm = _Storm(servers, pbx, fleet, queue, troubles)
            ends = await _ends(storm, place)
            assert _table(troubles, ends) == {
                trouble: (trouble.state, trouble.reason, trouble.tries) for trouble in troubles.values()
            }
            assert storm.kills >= 4
            assert all(pbx.recordings.was_resumed(call_id) for call_id in of(troubles, KILLED))
            await _is_filed(storm, place, {call_id: state for call_id, (state, _) in ends.items()})
            refused = [call_id for call_id, (_, data) in ends.items() if data["reason"] == "archive_unavailable"]
            await _redrive(storm, place, refused)
            states = {call_id: state for call_id, (state, _) in ends.items()} | dict.fromkeys(refused, "stored")
            await _is_filed(storm, place, states)
    assert len(storm.told) == count + len(refused)
    assert nothing_left(servers), "nothing of what was on its way"
    logs = "".join(path.read_text() for path in (servers.directory / "logs").iterdir())
    assert SECTOK not in logs


async def _ends(storm: _Storm, place: Disk | Bucket) -> Ends:
    """Bring every recording to its end: first those for which nothing can be written at all, then all others together."""
    full = of(storm.troubles, FULL)
    with place.full():
        await _submit(storm, full)
        ends = await storm.ended(full, "failed")
        assert await place.files() == {}
    with_others = not_of(storm.troubles, [FULL])
    place.trouble(storm.troubles)
    # The last of each comes when no worker is killed any more, so that none takes along what is left of its fault.
    undisturbed = {storm.troubles[call_id]: call_id for call_id in not_of(storm.troubles, [FULL, KILLED])}.values()
    await _submit(storm, [call_id for call_id in with_others if call_id not in undisturbed])
    await _kill_in_the_middle(storm, place)
    await _submit(storm, [*undisturbed])
    return ends | await storm.ended(with_others, "stored", "absent", "failed")


def _table(troubles: dict[str, Trouble], ends: Ends) -> dict[Trouble, tuple[str, str | None, int]]:
    """Sum up what came of each trouble; fails where it ended in more than one way."""
    found: dict[Trouble, set[tuple[str, str | None]]] = defaultdict(set)
    tries: dict[Trouble, set[int]] = defaultdict(set)
    for call_id, (state, data) in ends.items():
        found[troubles[call_id]].add((state, data["reason"]))
        tries[troubles[call_id]].add(data["attempts"])
    assert {trouble: ways for trouble, ways in found.items() if len(ways) > 1} == {}
    # Who asks for a worker that died meets what is left of a fault that passes.
    assert {trouble.what: told for trouble, told in tries.items() if len(told) > 1 and trouble.times == ALWAYS} == {}
    return {trouble: (*next(iter(ways)), max(tries[trouble])) for trouble, ways in found.items()}


async def _is_filed(storm: _Storm, place: Disk | Bucket, states: dict[str, str]) -> None:
    """See that what is in the archive is what was told, to the byte, and nothing else is."""
    files = await place.files()
    for call_id, state in states.items():
        trouble, stem = storm.troubles[call_id], _stem(call_id, storm.troubles)
        if state == "failed" and trouble in {FULL, UNWRITABLE}:
            continue  # what cannot be written has no sidecar
        told = orjson.loads(files[f"{stem}.json"])["recording"]
        assert told["state"] == state, (trouble.what, told)
        if state == "stored":
            wav = files[f"{stem}.wav"]
            fingerprint = (len(wav), hashlib.sha256(wav).hexdigest())
            assert fingerprint == storm.pbx.recordings.fingerprint(call_id) == (told["bytes"], told["sha256"])
    unwritten = [
        call_id for call_id, state in states.items() if state == "failed" and storm.troubles[call_id] in {FULL, UNWRITABLE}
    ]
    refused = {path for path in files if "/refused/" in path}
    assert Counter(Path(path).suffix for path in files.keys() - refused) == {
        ".json": len(states) - len(unwritten),
        ".wav": sum(state == "stored" for state in states.values()),
    }
    kept: dict[str, Counter[str]] = defaultdict(Counter)
    for path in refused:
        kept[Path(path).name.split(".")[2]][Path(path).suffix] += 1
    assert {call_id: suffixes for call_id, suffixes in kept.items() if suffixes != {".json": 1, ".wav": 1}} == {}
    incomplete = {call_id for call_id in states if storm.troubles[call_id].fault is Fault.TRUNCATED}
    assert incomplete <= kept.keys()
    # What a worker refused before it was killed can be left, although another one stored the recording in the meantime.
    left = kept.keys() - incomplete
    assert {states[call_id] for call_id in left} <= {"stored"}
    assert len(left) <= storm.kills


async def _redrive(storm: _Storm, place: Disk | Bucket, refused: Sequence[str]) -> None:
    place.repair()
    environment = storm.servers.environment(**place.settings)
    code, out, _ = await callfold("recordings", "redrive", "--reason", "archive_unavailable", **environment)
    # A worker that is killed before it has acknowledged a job buries it once more.
    assert (code, out.split()[1:]) == (0, ["redriven"])
    assert 0 <= int(out.split()[0]) - len(refused) <= storm.kills * _AT_ONCE
    await storm.ended(refused, "stored")


async def _kill_in_the_middle(storm: _Storm, place: Disk | Bucket) -> None:
    """Kill both workers, as `kill -9` does, whenever enough downloads stand half-way on the disk; until each of them was."""
    waiting = set(of(storm.troubles, KILLED))
    at_once = KILLED_AT_ONCE if len(waiting) > KILLED_AT_ONCE else KILLED_AT_ONCE_OF_FEW

    async def half_way() -> set[str]:
        there = {call_id for call_id in waiting if _has_progress(storm, call_id)}
        return there if len(there) >= min(at_once, len(waiting)) else set()

    while waiting:
        # No more than so many at once: all of a few may stand half-way together, and there is to be more than one round.
        cut_off = set(sorted(await eventually(half_way, timeout_s=TOLD_S))[:at_once])
        victims, storm.fleet.processes[:] = list(storm.fleet.processes), []
        await asyncio.gather(*(victim.stop(signal.SIGKILL) for victim in victims))
        if storm.kills:  # after the first kill, whose heirs meet the locks of who died
            await end_leases(storm.servers)
        storm.kills += len(victims)
        await place.note_left()
        for call_id in cut_off:
            storm.pbx.recordings.end_fault(call_id)
        waiting -= cut_off
        await asyncio.gather(*(_worker(storm.fleet, storm.kills + number).start() for number in range(2)))


def _has_progress(storm: _Storm, call_id: str) -> bool:
    name = sha256(_job(call_id, storm.troubles).id.encode()).hexdigest()[:32]
    try:
        return (storm.servers.directory / "downloads" / f"{name}.part").stat().st_size > 0
    except FileNotFoundError:
        return False


@asynccontextmanager
async def _two_workers(servers: Servers, pbx: FocalScope, settings: dict[str, str]) -> AsyncIterator[Fleet]:
    sources = servers.directory / "sources.toml"
    sources.write_text(
        f'[sources.acme]\nsecret = "x"\nrecording_origin = "{pbx.url}"\nrecordings_per_second = 1000\nrecordings_at_once = {_AT_ONCE}\n'
    )
    settings = settings | {
        "CALLFOLD_SOURCES": str(sources),
        "CALLFOLD_RECORDING_MAX_BYTES": "1000000",
        "CALLFOLD_RECORDING_CONCURRENCY": str(_AT_ONCE),
        "CALLFOLD_RECORDING_STALL_SECONDS": f"{10 * TOLD_S:g}",  # what is held is cut off by a kill, not by a clock
    }
    async with servers.fleet(**settings, **UNMEASURED) as fleet:
        for number in range(2):
            process = _worker(fleet, number)
            await process.start()
            await takes_jobs(process)
        yield fleet


def _worker(fleet: Fleet, number: int) -> Any:  # noqa: ANN401
    return fleet.add(f"worker-{number}", "worker", {})


def _end(body: bytes) -> tuple[str, dict[str, Any]]:
    event = orjson.loads(body)
    return event["type"].split(".")[2], event["data"]


def _day(trouble: Trouble) -> str:
    return "24" if trouble is UNWRITABLE else "23"


def _stem(call_id: str, troubles: dict[str, Trouble]) -> str:
    return f"acme/monitor/2026-UTC/11/{_day(troubles[call_id])}/call-{call_id}"


def _job(call_id: str, troubles: dict[str, Trouble]) -> RecordingJob:
    link = f"https://localhost:8080/_cros_/master/?sectok={SECTOK}&nId={call_id}"
    return job(call_id, guid=None, recording_url=link, started_at=f"2026-11-{_day(troubles[call_id])}T12:00:00.000000Z")


async def _submit(storm: _Storm, call_ids: Sequence[str]) -> None:
    async with await aio_pika.connect(storm.servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        for call_id in call_ids:
            body = _job(call_id, storm.troubles).encode()
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, "recordings")
