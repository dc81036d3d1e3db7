"""Whatever the order in which copies of a job are worked on, step by step: its recording is stored once, and told in one way."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from shared.archive.sidecar import Sidecar, path_of
from shared.archive.storage import Archive
from shared.domain.recording import RecordingState
from shared.retention import recording_lock as lock
from tests.helpers.recordings import WAV, Pbx, job, sources_of
from tests.helpers.servers import Servers
from tests.helpers.settings import settings_here
from tests.helpers.staged_workers import Broker, Worker, staged

WORKERS = 3
ENOUGH_STEPS = 1000
_numbers = itertools.count(1)


class Act(StrEnum):
    """What happens next, to one of the workers."""

    STEP = "step"
    LOSE = "lose"  # its connection to the broker: the job is given out again, while it goes on
    KILL = "kill"
    LAPSE = "lapse"  # of whatever lock there is: who has it stood still for longer than the lease


Plan = list[tuple[Act, int, int]]
workers = st.integers(0, WORKERS - 1)
# Some steps in a row, so that short plans come as far as into the middle of the work.
steps = st.tuples(st.just(Act.STEP), workers, st.integers(1, 20))
troubles = st.tuples(st.sampled_from(Act), workers, st.just(1))
LIMITS = settings(
    max_examples=40,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Theatre:
    """One recording, its copies, and the workers that come across each other over them."""

    def __init__(self, servers: Servers, pbx: Pbx, workers: list[Worker], broker: Broker, call_id: str) -> None:
        self.servers, self.pbx, self.workers, self.broker = servers, pbx, workers, broker
        self.job = job(call_id, guid=None)
        self.dead: set[Worker] = set()

    async def act(self, act: Act, number: int) -> None:
        worker = self.workers[number]
        if worker in self.dead:
            return
        match act:
            case Act.STEP:
                if self.broker.ready or not worker.is_idle:
                    await worker.step()
            case Act.LOSE:
                self.broker.take_back(worker)
            case Act.KILL:
                if len(self.dead) < WORKERS - 1:
                    self.dead.add(worker)
                    self.broker.take_back(worker)
            case Act.LAPSE:
                await self._lapse()

    async def finish(self) -> None:
        """Let all who live work until there is nothing left to do; the locks of the dead end."""
        await self._lapse(of_the_dead=True)
        for _ in range(ENOUGH_STEPS):
            if not self.broker.ready and all(worker.is_idle for worker in self.workers if worker not in self.dead):
                return
            for number in range(WORKERS):
                await self.act(Act.STEP, number)
        raise AssertionError("the work does not end")

    async def sidecar(self) -> Sidecar:
        found = await Archive(_archive(self.servers, self.job.call_id).as_uri()).sidecar(path_of(self.job, "json"))
        assert found is not None
        return found

    async def _lapse(self, *, of_the_dead: bool = False) -> None:
        name = f"callfold:lock:{path_of(self.job, 'json')}"
        async with Redis.from_url(self.servers.stack.redis_url, decode_responses=True) as redis:
            holder = await redis.get(name)
            is_of_the_dead = any(holder in worker.holders for worker in self.dead)
            if holder and (is_of_the_dead or not of_the_dead):
                await redis.delete(name)


@pytest.fixture
def servers(redis_only: Servers) -> Servers:
    return redis_only


@asynccontextmanager
async def _theatre(servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Theatre]:
    monkeypatch.setattr(lock, "LEASE_S", 3600.0)  # it ends where the plan says so
    settings_here(monkeypatch, servers.environment(CALLFOLD_SOURCES=sources_of(servers, pbx), CALLFOLD_RECORDING_CONCURRENCY="1"))
    call_id, broker = str(next(_numbers)), Broker()
    async with staged(broker, WORKERS, servers.stack.redis_url, _archive(servers, call_id)) as workers:
        yield Theatre(servers, pbx, workers, broker, call_id)


async def _play(servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch, copies: int, plan: Plan) -> Theatre:
    """Work copies of a job off in the order of a plan, then to the end; returns what came of it, having seen that it is right."""
    async with _theatre(servers, pbx, monkeypatch) as theatre:
        broker, call_id = theatre.broker, theatre.job.call_id
        broker.ready.extend((theatre.job.encode(), {}) for _ in range(copies))
        for act, number, times in plan:
            for _ in range(times):
                await theatre.act(act, number)
        await theatre.finish()
    assert broker.dead == []
    assert {message.message_id for message in broker.told} == {f"{theatre.job.id}/stored"}
    told = [orjson.loads(message.body) for message in broker.told]
    assert all(event == told[0] for event in told), "one id, one body"
    assert told[0]["data"]["sha256"] == hashlib.sha256(WAV).hexdigest()
    (stored,) = _archive(servers, call_id).rglob("*.wav")
    assert stored.read_bytes() == WAV
    sidecar = await theatre.sidecar()
    assert (sidecar.state, sidecar.recording.sha256) == (RecordingState.STORED, told[0]["data"]["sha256"])
    return theatre


def _archive(servers: Servers, call_id: str) -> Path:
    return servers.directory / f"archive-{call_id}"


@given(copies=st.integers(2, 5), plan=st.lists(steps, max_size=30))
@LIMITS
async def test_any_interleaving_of_copies_asks_for_the_recording_once_and_stores_it_once(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch, copies: int, plan: Plan
) -> None:
    theatre = await _play(servers, pbx, monkeypatch, copies, plan)
    assert pbx.asked[theatre.job.call_id] == 1
    assert len(theatre.broker.told) == copies, "each copy tells of it"


@given(copies=st.integers(2, 4), plan=st.lists(steps | troubles, max_size=30))
@LIMITS
async def test_whoever_is_killed_or_loses_lock_or_broker_meanwhile_it_is_stored_once(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch, copies: int, plan: Plan
) -> None:
    await _play(servers, pbx, monkeypatch, copies, plan)


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_job_without_download_that_lost_its_lock_writes_nothing_over_what_was_stored_meanwhile(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """`steps`: how far it has come by then, up to its last look before it writes."""
    async with _theatre(servers, pbx, monkeypatch) as theatre:
        amended = replace(theatre.job, fetch=False, record={"revision": 2})
        theatre.broker.ready.append((amended.encode(), {}))
        for _ in range(steps):
            await theatre.act(Act.STEP, 0)
        theatre.broker.ready.append((replace(theatre.job, record={"revision": 1}).encode(), {}))
        await theatre.act(Act.LAPSE, 0)
        for _ in range(ENOUGH_STEPS):
            if theatre.broker.told and theatre.workers[1].is_idle:
                break
            await theatre.act(Act.STEP, 1)
        await theatre.finish()
        sidecar = await theatre.sidecar()
        (event,) = theatre.broker.told
    assert (sidecar.state, sidecar.recording.sha256) == (RecordingState.STORED, hashlib.sha256(WAV).hexdigest())
    assert sidecar.record == {"revision": 2}, "its job came again"
    assert event.message_id == f"{theatre.job.id}/stored"
