"""An archive that is full or away when a worker starts: calls are folded all the same, and recordings wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika

from console.local.ports import free_port
from console.local.processes import Fleet
from shared.archive.local_disk import INCOMPLETE
from shared.errors import ConfigError
from tests.helpers import full_disk
from tests.helpers.recordings import Pbx, job, sources_of, submit
from tests.helpers.s3 import Busy, there
from tests.helpers.servers import Servers, call_back, callfold, eventually, exit_code, metric, next_events

ARCHIVE = "s3://evidence/calls"
MISSED = "token=x&CallType=API&Event=missed&CallID=9&RequestID=9&EventCode=5"


@asynccontextmanager
async def _folding(servers: Servers, pbx: Pbx, **settings: str) -> AsyncIterator[tuple[Fleet, aio_pika.abc.AbstractQueue]]:
    """Start a worker and an ingress while the archive is away, and see that a call is folded and no recording job is taken."""
    port = free_port()
    async with (
        servers.subscribed("recording.#") as told,
        servers.subscribed("call.#") as calls,
        servers.fleet(CALLFOLD_SOURCES=sources_of(servers, pbx), **settings) as fleet,
    ):
        worker = fleet.add("worker", "worker", {})
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await fleet.start_all()
        await submit(servers, job().encode())
        assert await call_back(port, [MISSED], source="acme") == [200]
        (event,) = await next_events(calls, 1)
        assert event.body["data"]["outcome"] == "agent_missed"
        async with servers.queue("recordings") as queue:

            async def waits() -> bool:  # RabbitMQ reports 0 if a queue does not answer in time
                return bool((await queue.declare()).message_count)

            await eventually(waits)
            assert (await queue.declare()).consumer_count == 0
        assert await metric(worker, "callfold_recordings_held") == 1
        yield fleet, told


async def _stored(fleet: Fleet, told: aio_pika.abc.AbstractQueue) -> None:
    (event, *_) = await next_events(told, 1)
    assert event.routing_key == "recording.stored.acme"
    assert await metric(fleet.processes[0], "callfold_recordings_held") == 0
    assert "archive_checked" in fleet.processes[0].log_path.read_text()


async def _complained(fleet: Fleet) -> bool:
    return '"archive_unavailable"' in fleet.processes[0].log_path.read_text()


async def test_a_worker_that_starts_while_the_disk_of_the_archive_is_full_folds_and_stores_once_it_is_not(
    servers: Servers, pbx: Pbx
) -> None:
    flag = servers.directory / "full"
    flag.touch()
    more = {full_disk.VARIABLE: str(flag)}
    async with _folding(servers, pbx, **more) as (fleet, told):
        assert "No space left on device" in fleet.processes[0].log_path.read_text()
        code, said, _ = await callfold("doctor", **servers.environment(**more))
        assert code == 1
        assert "No space left on device" in said
        flag.unlink()
        await _stored(fleet, told)
    assert list((servers.directory / "archive").glob(".probe-*")) == []


async def test_a_worker_that_starts_while_an_object_store_refuses_folds_and_stores_once_it_takes_files(
    servers: Servers, pbx: Pbx, s3: Busy
) -> None:
    s3.always = dict.fromkeys(("GET", "PUT", "POST", "DELETE"), 403)
    async with _folding(servers, pbx, CALLFOLD_ARCHIVE_URL=ARCHIVE) as (fleet, told):
        await eventually(lambda: _complained(fleet))
        s3.always.clear()
        await _stored(fleet, told)
    assert not any("probe-" in name for name in (await there(s3.port))[0])


async def test_a_worker_that_starts_while_an_object_store_does_not_answer_folds(servers: Servers, pbx: Pbx, s3: Busy) -> None:
    answers = asyncio.Event()
    s3.met["part None"] = answers.wait
    async with _folding(servers, pbx, CALLFOLD_ARCHIVE_URL=ARCHIVE) as (fleet, told):
        answers.set()
        await _stored(fleet, told)


async def test_a_worker_whose_object_store_writes_over_files_does_not_start_and_ends_where_that_shows_late(
    servers: Servers, pbx: Pbx, s3: Busy
) -> None:
    s3.is_deaf = True
    settings = {"CALLFOLD_SOURCES": sources_of(servers, pbx), "CALLFOLD_ARCHIVE_URL": ARCHIVE}
    async with servers.fleet(**settings) as fleet:
        worker = fleet.add("worker", "worker", {})
        with suppress(ConfigError):  # it is ready for a moment where the store takes its time
            await worker.start()
        assert await exit_code(worker) == 2
        assert "overwrites existing files" in worker.log_tail()
        s3.always = dict.fromkeys(("GET", "PUT", "POST", "DELETE"), 403)
        await worker.start()
        s3.always.clear()
        assert await exit_code(worker) == 2
        assert "overwrites existing files" in worker.log_tail()


async def test_a_worker_whose_archive_cannot_be_written_starts_and_says_so(servers: Servers, pbx: Pbx) -> None:
    root = servers.directory / "archive"
    root.mkdir()
    (root / INCOMPLETE).write_text("in the way")
    async with _folding(servers, pbx) as (fleet, told):
        assert await _complained(fleet)
        (root / INCOMPLETE).unlink()
        await _stored(fleet, told)
