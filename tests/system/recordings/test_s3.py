"""Workers that store recordings in a real S3 server: in parts, through its bad moments, in constant memory."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from shared.archive.storage import Archive
from simulator.audio import recording
from tests.helpers.long_recordings import Long, growth_bytes
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import GUID, Pbx, dead_letter, end_leases, job, nothing_left, submit, worker
from tests.helpers.s3 import Busy, there
from tests.helpers.servers import Servers, exit_code, next_events, waiting_events
from tests.helpers.volume import sizes

LONG = recording("7", 700)  # 11 MB: three parts


ARCHIVE = "s3://evidence/calls"


DAY = "calls/acme/monitor/2026-UTC/11/23"


@asynccontextmanager
async def _storing(servers: Servers, pbx: Pbx) -> AsyncIterator[Any]:
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, CALLFOLD_ARCHIVE_URL=ARCHIVE) as fleet:
        yield queue, fleet


async def test_a_long_recording_is_stored_in_parts_each_with_its_checksum_through_bad_moments(
    servers: Servers,
    pbx: Pbx,
    s3: Busy,
) -> None:
    pbx.answers["7"] = [web.Response(body=LONG, content_type="audio/wav")]
    async with _storing(servers, pbx) as (queue, fleet):
        s3.bad["PUT"] = [500, 503, 503]
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        logged = fleet.processes[0].log_path.read_text()
    assert event.body["data"]["uri"] == f"{ARCHIVE}/acme/monitor/2026-UTC/11/23/{GUID}.wav"
    assert event.body["data"]["attempts"] == 1
    assert await there(s3.port) == ([f"{DAY}/{GUID}.json", f"{DAY}/{GUID}.wav"], [])
    archive = Archive(ARCHIVE)
    stored = b"".join([piece async for piece in archive.stream(f"acme/monitor/2026-UTC/11/23/{GUID}.wav")])
    assert hashlib.sha256(stored).hexdigest() == event.body["data"]["sha256"] == hashlib.sha256(LONG).hexdigest()
    assert s3.seen["sha256"] >= 3, "every part goes with its checksum"
    assert "secret-of-s3" not in logged


@pytest.mark.parametrize(("what", "left"), [("PUT", []), ("part 2", [f"{DAY}/{GUID}.json"])])
async def test_while_the_store_takes_nothing_a_recording_waits_and_no_upload_stays_open(
    servers: Servers, pbx: Pbx, s3: Busy, what: str, left: list[str]
) -> None:
    pbx.answers["7"] = [web.Response(body=LONG, content_type="audio/wav") for _ in range(3)]
    async with _storing(servers, pbx) as (queue, _):
        s3.always[what] = 503
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.body["data"]["reason"]) == ("recording.failed.acme", "archive_unavailable")
        s3.always.clear()
        assert await there(s3.port) == (left, [])
        letter = await dead_letter(servers)
        assert letter.headers["reason"] == "archive_unavailable"
        pbx.answers["7"] = [web.Response(body=LONG, content_type="audio/wav")]
        await submit(servers, letter.body, round=2)
        (event,) = await next_events(queue, 1)
        assert event.routing_key == "recording.stored.acme"
        assert await waiting_events(queue) == []
    assert nothing_left(servers)


async def test_of_a_worker_killed_in_the_middle_of_an_upload_nothing_is_at_the_final_name_and_another_stores_it(
    servers: Servers, pbx: Pbx, s3: Busy
) -> None:
    pbx.answers["7"] = [web.Response(body=LONG, content_type="audio/wav") for _ in range(2)]
    async with _storing(servers, pbx) as (queue, fleet):
        victim = fleet.processes.pop()

        async def kill() -> None:
            del s3.met["part 2"]
            os.kill(victim.pid, signal.SIGKILL)
            await exit_code(victim)

        s3.met["part 2"] = kill
        await submit(servers, job().encode())
        assert await exit_code(victim) == -signal.SIGKILL
        assert (await there(s3.port))[0] == [f"{DAY}/{GUID}.json"]
        await end_leases(servers)
        await fleet.add("heir", "worker", {}).start()
        (event,) = await next_events(queue, 1)
    assert event.routing_key == "recording.stored.acme"
    assert (await there(s3.port))[0] == [f"{DAY}/{GUID}.json", f"{DAY}/{GUID}.wav"]
    assert (await Archive(ARCHIVE).checksums(f"acme/monitor/2026-UTC/11/23/{GUID}.wav")).sha256 == hashlib.sha256(
        LONG
    ).hexdigest()


@pytest.mark.parametrize("mebibytes", sizes(64, 256))
async def test_an_upload_needs_constant_memory(servers: Servers, pbx: Pbx, s3: Busy, mebibytes: int) -> None:
    size = mebibytes << 20
    long = Long(pbx, size)
    async with _storing(servers, pbx) as (queue, fleet):
        await submit(servers, job("8", guid=None).encode())
        await next_events(queue, 1)
        with growth_bytes(fleet) as growth:
            await submit(servers, job().encode())
            (event,) = await next_events(queue, 1, timeout_s=2 * LIMIT_S * max(1, mebibytes / 128))
    assert (event.body["data"]["bytes"], event.body["data"]["sha256"]) == (size, long.sha256)
    assert growth[0] < size // 2, f"grew by {growth[0] >> 20} MiB"
