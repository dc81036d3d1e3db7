"""A thousand recordings, a fault in each, two workers that are killed meanwhile: every hash right, every failure's reason true."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import orjson

from console.fleet import Fleet
from shared.adapter import SAMPLE_LINK
from simulator.focalscope import FocalScope, Plan
from simulator.recordings import Fault
from simulator.scenario import SECTOK
from tests.recordings.support import job
from tests.support import RETRY_S, Servers, eventually, waiting_events

TRIES = len(RETRY_S) + 1
ALWAYS = 10**9
# How often each fault shows itself, and what it must end in.
TABLE: dict[Fault, tuple[int, str, str | None]] = {
    Fault.NONE: (0, "stored", None),
    Fault.NOT_READY: (TRIES - 1, "stored", None),
    Fault.UNAVAILABLE: (TRIES - 1, "stored", None),
    Fault.TRUNCATED: (ALWAYS, "failed", "truncated"),
    Fault.GROWING: (TRIES - 1, "stored", None),
    Fault.DRIP: (1, "stored", None),
    Fault.RESET: (2, "stored", None),
    Fault.WRONG_CONTENT_RANGE: (1, "stored", None),
    Fault.CHANGED: (1, "stored", None),
    Fault.IGNORES_RANGE: (1, "stored", None),
    Fault.GZIP: (ALWAYS, "stored", None),
    Fault.LOGIN_PAGE: (ALWAYS, "failed", "login_page"),
    Fault.ENDLESS: (ALWAYS, "failed", "too_large"),
    Fault.REDIRECT: (ALWAYS, "failed", "origin_not_allowed"),
    Fault.EMPTY: (ALWAYS, "absent", "empty"),
}
RECORDINGS = 1000


@asynccontextmanager
async def two_workers(servers: Servers, pbx: FocalScope) -> AsyncIterator[Fleet]:
    sources = servers.directory / "sources.toml"
    sources.write_text(f'[sources.acme]\nsecret = "x"\nrecording_origin = "{pbx.url}"\nrecordings_per_second = 1000\n')
    async with servers.fleet(CALLFOLD_SOURCES=str(sources), CALLFOLD_RECORDING_MAX_BYTES="1000000") as fleet:
        for number in range(2):
            await fleet.start(fleet.add(f"worker-{number}", "worker", {}))
        yield fleet


async def test_a_thousand_recordings_with_a_fault_in_each(servers: Servers) -> None:
    rng = random.Random(513)  # noqa: S311 - repeatable on purpose
    faults = {str(70000 + number * 2): rng.choice(list(TABLE)) for number in range(RECORDINGS)}
    async with FocalScope(Plan(SAMPLE_LINK)) as pbx, servers.subscribed("recording.#") as queue:
        for call_id, fault in faults.items():
            pbx.recordings.add(call_id, rng.uniform(1, 2), fault=fault, times=TABLE[fault][0])
        async with two_workers(servers, pbx) as fleet:
            await _submit(servers, list(faults))
            killed = asyncio.create_task(_kill_now_and_then(fleet))
            events: dict[str, list[bytes]] = {}

            async def all_ended() -> bool:
                for event in await waiting_events(queue):
                    events.setdefault(event.message_id or "", []).append(orjson.dumps(event.body))
                return len({event_id.rpartition("/")[0] for event_id in events}) == RECORDINGS

            await eventually(all_ended, timeout_s=100)
            await killed
    assert all(len(set(bodies)) == 1 for bodies in events.values()), "one id, one body"
    assert len(events) == RECORDINGS, "each ended in exactly one way"
    ends = {data["call_id"]: (kind, data) for kind, data in (_end(bodies[0]) for bodies in events.values())}
    wrong = [
        (call_id, fault, ends[call_id])
        for call_id, fault in faults.items()
        if (ends[call_id][0], ends[call_id][1]["reason"]) != TABLE[fault][1:]
    ]
    assert not wrong, wrong[:5]
    for call_id, fault in faults.items():
        wav, sidecar = _paths(servers, call_id)
        told = orjson.loads(sidecar.read_bytes())["recording"]
        assert (told["state"], told["reason"]) == TABLE[fault][1:]
        if told["state"] == "stored":
            fingerprint = (wav.stat().st_size, hashlib.sha256(wav.read_bytes()).hexdigest())
            assert fingerprint == pbx.recordings.fingerprint(call_id) == (told["bytes"], told["sha256"])
        else:
            assert not wav.exists()
    there = Counter(path.suffix for path in (servers.directory / "archive").rglob("*") if path.is_file())
    assert there == {".json": RECORDINGS, ".wav": sum(1 for fault in faults.values() if TABLE[fault][1] == "stored")}
    assert not list((servers.directory / "downloads").iterdir()), "nothing left of what was on its way"
    logs = "".join(path.read_text() for path in (servers.directory / "logs").iterdir())
    assert SECTOK not in logs


def _end(body: bytes) -> tuple[str, dict[str, object]]:
    event = orjson.loads(body)
    return event["type"].split(".")[2], event["data"]


def _paths(servers: Servers, call_id: str) -> tuple[Path, Path]:
    day = servers.directory / "archive" / "acme" / "monitor" / "2026-UTC" / "11" / "23"
    return day / f"call-{call_id}.wav", day / f"call-{call_id}.json"


async def _submit(servers: Servers, call_ids: list[str]) -> None:
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=10) as connection:
        channel = await connection.channel()
        for call_id in call_ids:
            link = f"https://localhost:8080/_cros_/master/?sectok={SECTOK}&nId={call_id}"
            body = job(call_id, guid=None, recording_url=link).encode()
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, "recordings")


async def _kill_now_and_then(fleet: Fleet) -> None:
    """Kill a worker as `kill -9` does, in the middle of its work, and start another; three times."""
    for number in range(3):
        victim = fleet.roles[0]
        await asyncio.sleep(1.5)  # not waited for: a moment in the middle of the work
        victim.process.send_signal(signal.SIGKILL)
        await victim.process.wait()
        fleet.roles.remove(victim)
        await fleet.start(fleet.add(f"heir-{number}", "worker", {}))
