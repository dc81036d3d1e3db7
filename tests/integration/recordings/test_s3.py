"""The archive in an object store: a real S3 server process, and between it and us what a busy S3 answers."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time

import orjson
import pytest

from shared.archive import deadlines, object_store
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.local_disk import TakenError
from shared.archive.storage import Archive
from shared.errors import ConfigError
from simulator.audio import recording
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.recordings import WAV
from tests.helpers.refused_files import check_limits
from tests.helpers.s3 import Busy, there
from tests.helpers.servers import eventually

LONG = recording("7", 700)  # 11 MB: three parts


ARCHIVE = "s3://evidence/calls"


@pytest.mark.parametrize("end", ["timeout", "cancelled"])
async def test_an_upload_that_is_given_up_or_cut_off_is_aborted(s3: Busy, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        arrived.set()
        await go_on.wait()

    s3.met["part 2"] = hang
    if end == "timeout":
        monkeypatch.setattr(object_store, "_STALL_S", 15 * PACE)  # the first part is sent within this time, too
    else:
        monkeypatch.setattr(deadlines, "_FINISH_S", LIMIT_S)
    writing = asyncio.create_task(Archive(ARCHIVE).put("acme/a.wav", io.BytesIO(LONG)))
    await asyncio.wait_for(arrived.wait(), LIMIT_S)
    if end == "cancelled":
        writing.cancel()
    with pytest.raises(ArchiveUnavailableError if end == "timeout" else asyncio.CancelledError):
        await writing
    go_on.set()

    async def nothing_is_there() -> bool:  # a store that takes its time clears up after we have ended
        return await there(s3.port) == ([], [])

    await eventually(nothing_is_there)


@pytest.mark.parametrize("moment", ["part 2", "naming"])
async def test_clearing_up_after_a_cancellation_ends_before_a_shutdown_gives_up(
    s3: Busy, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The store does not answer any more: not what is under way, and not what would clear up after it."""
    monkeypatch.setattr(deadlines, "_FINISH_S", 0.5)
    monkeypatch.setattr(object_store, "_STALL_S", 10 * LIMIT_S)  # what it would wait for otherwise
    is_reached, go_on = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        is_reached.set()
        await go_on.wait()

    s3.met["removal"] = go_on.wait
    s3.met[moment] = hang
    writing = asyncio.create_task(Archive(ARCHIVE).put("acme/a.wav", io.BytesIO(LONG), is_new=True))
    await asyncio.wait_for(is_reached.wait(), LIMIT_S)
    writing.cancel()
    done, _ = await asyncio.wait([writing], timeout=LIMIT_S)
    go_on.set()
    assert done, "it does not wait for as long as it would otherwise"
    assert writing.cancelled()
    await s3.idle()


async def test_an_upload_may_take_as_long_as_it_needs_while_something_moves(s3: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    stall_s = 10 * PACE
    monkeypatch.setattr(object_store, "_STALL_S", stall_s)
    for part in (1, 2, 3):
        s3.met[f"part {part}"] = lambda: asyncio.sleep(0.35 * stall_s)
    begun = time.monotonic()
    await Archive(ARCHIVE).put("acme/a.wav", io.BytesIO(LONG))
    assert time.monotonic() - begun > stall_s
    assert await there(s3.port) == (["calls/acme/a.wav"], [])


@pytest.mark.usefixtures("s3")
async def test_refused_files_are_limited() -> None:
    await check_limits(Archive(ARCHIVE))


@pytest.mark.parametrize("content", [LONG, WAV], ids=["long", "short"])
@pytest.mark.parametrize("moment", ["before", "while it is read back", "as it gets its name"])
async def test_what_is_to_be_new_writes_over_nothing_whenever_another_comes(s3: Busy, content: bytes, moment: str) -> None:
    archive = Archive(ARCHIVE)

    async def another() -> None:
        s3.met.clear()
        await archive.put("acme/a.wav", b"another's")

    if moment == "before":
        await another()
    elif moment == "as it gets its name":
        s3.met["naming"] = another
    last = another if moment == "while it is read back" else None
    with pytest.raises(TakenError):
        await archive.put("acme/a.wav", io.BytesIO(content), confirm=last, is_new=True)
    assert await archive.read("acme/a.wav") == b"another's"
    assert await there(s3.port) == (["calls/acme/a.wav"], [])


async def test_a_store_that_knows_no_conditions_is_found_out_at_the_start(s3: Busy) -> None:
    s3.is_deaf = True
    with pytest.raises(ConfigError, match="overwrites existing files"):
        await Archive(ARCHIVE).check()
    assert await there(s3.port) == ([], [])


async def test_what_a_killed_process_left_is_swept_once_nobody_can_be_at_it(s3: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(ARCHIVE)
    await archive.put(".incomplete/left", b"part")
    await archive.put("acme/a.wav", b"whole")
    await archive.sweep()
    assert (await there(s3.port))[0] == ["calls/.incomplete/left", "calls/acme/a.wav"]
    monkeypatch.setattr(object_store, "_ABANDONED_S", -5)
    await archive.sweep()
    assert (await there(s3.port))[0] == ["calls/acme/a.wav"]


async def test_a_part_that_is_damaged_on_the_way_is_found_out_and_does_not_stay(s3: Busy) -> None:
    """This server, unlike S3 itself, does not hold a part against its checksum: it is read back."""
    archive = Archive(ARCHIVE)
    await archive.put("acme/a.wav", b"another's")
    s3.damaged = True
    with pytest.raises(ArchiveUnavailableError, match="arrived damaged"):
        await archive.put("acme/a.wav", io.BytesIO(LONG))
    assert await there(s3.port) == (["calls/acme/a.wav"], [])
    assert await archive.read("acme/a.wav") == b"another's"
    s3.damaged = False
    await archive.put("acme/a.wav", io.BytesIO(LONG))
    assert (await archive.checksums("acme/a.wav")).sha256 == hashlib.sha256(LONG).hexdigest()


async def test_the_archive_tells_what_is_there_and_what_is_not(s3: Busy) -> None:
    archive = Archive(ARCHIVE)
    await archive.check()
    assert await archive.read("nothing") is None
    assert await archive.size("nothing") is None
    await archive.delete("nothing")
    uri = await archive.put("acme/monitor/2026-UTC/11/23/a.json", orjson.dumps({"v": 2}))
    assert uri == f"{ARCHIVE}/acme/monitor/2026-UTC/11/23/a.json"
    assert [entry.path async for entry in archive.entries("acme")] == ["acme/monitor/2026-UTC/11/23/a.json"]
    assert await archive.days("acme") == ["acme/monitor/2026-UTC/11/23"]
    assert await archive.days("other") == []
    s3.always["GET"] = 503
    with pytest.raises(ArchiveUnavailableError):
        await archive.read("acme/monitor/2026-UTC/11/23/a.json")


def test_the_machine_s_own_credentials_are_not_touched(s3_port: int) -> None:
    assert "AWS_ENDPOINT_URL" not in os.environ
