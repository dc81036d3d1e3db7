"""The archive on disk: whole files only, whoever is killed, cut off or in a hurry beside another."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import io
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.archive import local_disk, storage
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.local_disk import TakenError
from shared.archive.sidecar import Sidecar, updated_sidecar
from shared.archive.storage import Archive
from shared.errors import ConfigError
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.recordings import job
from tests.helpers.servers import eventually

NAME = "acme/monitor/2026-UTC/11/23/a.wav"
MANY = b"A" * 3_000_000


class Slow(io.BytesIO):
    """A file that takes its time."""

    pause_s = 0.1

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(self.pause_s)
        return super().read(size)


def _left(root: Path) -> list[str]:
    return [path.name for path in (root / local_disk.INCOMPLETE).iterdir()]


async def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        done.append(("fsync", "temporary" if path.parent.name == local_disk.INCOMPLETE else str(path.relative_to(tmp_path))))
        if path.is_file():
            assert path.read_bytes() == MANY, "all of it"
        fsync(handle)

    def noted_rename(path: Path, target: Path) -> Path:
        assert not target.exists()
        done.append(("rename", str(target.relative_to(tmp_path))))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)

    async def last() -> None:
        done.append(("last", ""))

    archive = Archive(tmp_path.as_uri())
    assert await archive.put(NAME, io.BytesIO(MANY), confirm=last) == (tmp_path / NAME).as_uri()
    parents = ["acme/monitor/2026-UTC/11/23", "acme/monitor/2026-UTC/11", "acme/monitor/2026-UTC", "acme/monitor", "acme", "."]
    assert done == [("fsync", "temporary"), ("last", ""), ("rename", NAME), *(("fsync", parent) for parent in parents)]
    assert _left(tmp_path) == []


async def test_a_write_that_was_given_up_gives_no_name_later_though_its_thread_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, is_slow, go_on = os.fsync, True, threading.Event()

    def slow_once(handle: int) -> None:
        nonlocal is_slow
        if is_slow:
            is_slow = False
            go_on.wait(LIMIT_S)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", slow_once)
    monkeypatch.setattr(storage, "_STALL_S", 0.3)
    archive = Archive(tmp_path.as_uri())
    with pytest.raises(ArchiveUnavailableError):
        await archive.put(NAME, io.BytesIO(MANY))
    monkeypatch.setattr(storage, "_STALL_S", LIMIT_S)
    second = asyncio.create_task(archive.put(NAME, Slow(b"B" * 5_000_000)))
    while not second.done():
        go_on.set()
        assert not (tmp_path / NAME).exists() or (tmp_path / NAME).read_bytes() == b"B" * 5_000_000
        await asyncio.sleep(0.02)
    await second

    async def gone() -> bool:
        return _left(tmp_path) == []

    await eventually(gone)  # the first one's thread has ended too
    assert (tmp_path / NAME).read_bytes() == b"B" * 5_000_000


async def test_a_write_may_take_as_long_as_it_needs_while_something_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stall_s = 7 * PACE
    monkeypatch.setattr(storage, "_STALL_S", stall_s)
    file, size = Slow(b"B" * 12_000_000), 12_000_000
    file.pause_s = stall_s / 11
    begun = time.monotonic()
    await Archive(tmp_path.as_uri()).put(NAME, file)
    assert time.monotonic() - begun > stall_s
    assert (tmp_path / NAME).stat().st_size == size


async def test_a_write_that_was_cut_off_and_whose_file_was_closed_leaves_nothing(tmp_path: Path) -> None:
    file = Slow(b"A" * 50_000_000)
    writing = asyncio.create_task(Archive(tmp_path.as_uri()).put(NAME, file))

    async def begun() -> bool:
        return (tmp_path / local_disk.INCOMPLETE).exists() and _left(tmp_path) != []

    await eventually(begun)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    file.close()

    async def gone() -> bool:
        return _left(tmp_path) == []

    await eventually(gone)
    assert not (tmp_path / NAME).exists()


async def test_of_two_writers_of_one_name_each_writes_all_of_its_file_or_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path.as_uri())
    for _ in range(100):
        bodies = [orjson.dumps({"a": "x" * 4000}), orjson.dumps({"b": "y" * 300})]
        await asyncio.gather(*(archive.put("s.json", body) for body in bodies))
        assert (tmp_path / "s.json").read_bytes() in bodies
    assert _left(tmp_path) == []


async def test_what_is_to_be_new_writes_over_nothing_and_what_goes_wrong_last_prevents_it(tmp_path: Path) -> None:
    archive = Archive(tmp_path.as_uri())

    async def meanwhile() -> None:
        await archive.put(NAME, b"another's")

    with pytest.raises(TakenError):
        await archive.put(NAME, io.BytesIO(MANY), confirm=meanwhile, is_new=True)

    async def lost() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await archive.put(NAME, io.BytesIO(MANY), confirm=lost)
    assert (tmp_path / NAME).read_bytes() == b"another's"

    async def gone() -> bool:
        return _left(tmp_path) == []

    await eventually(gone)


async def test_a_full_disk_leaves_neither_the_file_nor_a_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path.as_uri())
    open_ = Path.open

    def fill(path: Path, mode: str) -> Any:  # noqa: ANN401
        path.symlink_to("/dev/full")
        return open_(path, mode.replace("x", "w"))

    monkeypatch.setattr(Path, "open", fill)
    with pytest.raises(ArchiveUnavailableError, match="No space left on device"):
        await archive.put(NAME, MANY)
    assert _left(tmp_path) == []
    assert not (tmp_path / NAME).exists()


_KILLED_WRITING = """
import asyncio, io, os, signal, sys
from pathlib import Path
from shared.archive.local_disk import DurableDirectory

class Deadly(io.BytesIO):
    def read(self, size=-1, /):
        os.kill(os.getpid(), signal.SIGKILL) if self.tell() else None
        return super().read(5)

asyncio.run(DurableDirectory(Path(sys.argv[1])).put("a", Deadly(b"0123456789")))
"""


async def test_what_a_killed_process_left_is_swept_at_once_and_what_another_still_writes_is_not(tmp_path: Path) -> None:
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", _KILLED_WRITING, str(tmp_path))
    assert await dying.wait() == -signal.SIGKILL
    (left,) = _left(tmp_path)
    archive = Archive(tmp_path.as_uri())
    go_on = threading.Event()

    class Held(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert go_on.wait(LIMIT_S)
            return super().read(size)

    writing = asyncio.create_task(archive.put(NAME, Held(MANY)))

    async def begun() -> bool:
        return len(_left(tmp_path)) == 2

    await eventually(begun)
    await Archive(tmp_path.as_uri()).check()
    assert left not in _left(tmp_path)
    go_on.set()
    await writing
    assert (tmp_path / NAME).read_bytes() == MANY

    async def nothing_is_left() -> bool:  # a probe that was refused is removed by a thread
        return _left(tmp_path) == []

    await eventually(nothing_is_left)


async def test_a_file_that_was_swept_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, is_first = fcntl.flock, True

    def late(file: Any, operation: int) -> None:  # noqa: ANN401
        nonlocal is_first
        if is_first:
            is_first = False
            local_disk.DurableDirectory(tmp_path).sweep()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    await Archive(tmp_path.as_uri()).put(NAME, MANY)
    assert (tmp_path / NAME).read_bytes() == MANY


async def test_where_there_are_no_locks_only_what_is_a_day_old_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    old, young = (tmp_path / local_disk.INCOMPLETE / f"{name}.callfold-tmp" for name in ("old", "young"))
    old.parent.mkdir()
    for path in (old, young):
        path.write_bytes(b"part")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    await Archive(tmp_path.as_uri()).check()

    async def only_the_young_is_left() -> bool:  # a draft that was given up is removed by a thread
        return _left(tmp_path) == [young.name]

    await eventually(only_the_young_is_left)


async def test_a_probe_that_a_killed_process_left_is_swept_a_day_later(tmp_path: Path) -> None:
    old, young = (tmp_path / f".probe-{name}" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"probe")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    await Archive(tmp_path.as_uri()).check()
    assert [path.name for path in tmp_path.glob(".probe-*")] == [young.name]


async def test_an_archive_that_cannot_be_written_is_told_by_its_check_which_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / local_disk.INCOMPLETE).write_text("in the way")
    archive = Archive(tmp_path.as_uri())
    with pytest.raises(ArchiveUnavailableError, match="cannot be written"):
        await archive.check()
    (tmp_path / local_disk.INCOMPLETE).unlink()
    await archive.check()


@pytest.mark.parametrize(
    "url", ["s3://KEY:hunter2@bucket/p", "https://u:hunter2@h/dav", "az://c?sig=hunter2"], ids=["s3", "https", "az"]
)
def test_an_archive_url_with_a_credential_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Archive(url)
    assert "hunter2" not in str(refused.value)


async def test_of_two_new_files_of_one_name_the_second_writes_over_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it looked before the first was there: a process can stand still at any moment."""
    archive = Archive(tmp_path.as_uri())
    await archive.put(NAME, io.BytesIO(b"evidence"), is_new=True)
    monkeypatch.setattr(Path, "exists", lambda path: path.suffix != ".wav" and path.stat() is not None)
    with pytest.raises(TakenError):
        await archive.put(NAME, io.BytesIO(b"another's"), is_new=True)
    assert (tmp_path / NAME).read_bytes() == b"evidence"

    async def gone() -> bool:
        return _left(tmp_path) == []

    await eventually(gone)


@pytest.mark.parametrize(
    "damage",
    [{"recording": {"state": "stored"}}, {"filed_at": 5}, {"others": [None]}, {"recording": {"state": "waiting", "at": "soon"}}],
)
def test_a_damaged_sidecar_is_none(damage: dict[str, Any]) -> None:
    whole = orjson.loads(updated_sidecar(job(), None, "x.json").encode())
    assert Sidecar.decode(orjson.dumps(whole), "x.json").call_id == "7"
    with pytest.raises(ValueError, match="not a sidecar"):
        Sidecar.decode(orjson.dumps(whole | damage), "x.json")
