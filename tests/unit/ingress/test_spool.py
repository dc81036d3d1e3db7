"""The spool is a fallback: whatever happens to its file, its directory or its rows, it works again or says why not."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio

from ingress.outgoing_message import OutgoingMessage
from ingress.spool import Spool
from ingress.spool_rows import DamagedRow
from shared.errors import SpoolUnavailableError
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import ROOT

MAX_BYTES = 1 << 30


def _message(text: str = "x") -> OutgoingMessage:
    return OutgoingMessage("callbacks", "", {}, f'["{text}"]'.encode())


@pytest_asyncio.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    async with Spool(tmp_path / "spool", max_bytes=MAX_BYTES) as opened:
        yield opened


async def _bodies(spool: Spool) -> list[bytes]:
    return [row.body for _, row in await spool.oldest(1000, max_bytes=MAX_BYTES)]


def _overwrite(path: Path) -> None:
    """As a failing disk or a stray program would."""
    with path.open("r+b") as file:
        file.write(b"\xff" * max(4096, path.stat().st_size))


def _set_aside(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if ".damaged-" in path.name and path.suffix != ".lock")


async def test_a_file_that_is_no_database_when_it_is_opened_is_set_aside_whole(tmp_path: Path) -> None:
    (tmp_path / "spool.sqlite").write_bytes(b"no database" * 1000)
    async with Spool(tmp_path, max_bytes=MAX_BYTES) as spool:
        await spool.add([_message()])
        assert await spool.count() == 1
        assert not spool.problem
    (aside,) = _set_aside(tmp_path)
    assert aside.read_bytes() == b"no database" * 1000


async def test_a_table_with_other_columns_is_set_aside(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "spool.sqlite")) as other:
        other.execute("create table messages (something text)")
    async with Spool(tmp_path, max_bytes=MAX_BYTES) as spool:
        await spool.add([_message()])
    assert [path.name.endswith("Z") for path in _set_aside(tmp_path)].count(True) == 1


@pytest.mark.parametrize("use", ["add", "count", "oldest", "remove", "check"])
async def test_a_file_that_is_damaged_while_it_is_open_is_set_aside_with_its_log_and_a_new_one_begun(
    tmp_path: Path, use: str
) -> None:
    async with Spool(tmp_path, max_bytes=MAX_BYTES) as spool:
        await spool.add([_message("before")])
        ids = [row_id for row_id, _ in await spool.oldest(10, max_bytes=MAX_BYTES)]
        name = spool.name
        for part in ("", "-wal"):
            _overwrite(tmp_path / f"spool.sqlite{part}")
        spool._file.run(lambda db: db.execute("pragma shrink_memory"))  # else SQLite would answer from its cache
        uses: dict[str, Callable[[], object]] = {
            "add": lambda: spool.add([_message("after")]),
            "count": spool.count,
            "oldest": lambda: spool.oldest(10, max_bytes=MAX_BYTES),
            "remove": lambda: spool.remove(ids),
            "check": spool.check,
        }
        await uses[use]()  # type: ignore[misc]
        await spool.add([_message("later")])
        assert (await _bodies(spool))[-1] == b'["later"]'
        assert (spool.problem, spool.name) == ("", name)
    names = [path.name for path in _set_aside(tmp_path)]
    assert len(names) >= 2, names
    assert any(name.endswith("-wal") for name in names)


async def test_of_two_processes_both_go_on_in_the_new_file(tmp_path: Path) -> None:
    async with Spool(tmp_path, max_bytes=MAX_BYTES) as one, Spool(tmp_path, max_bytes=MAX_BYTES) as two:
        await two.add([_message("old")])
        for part in ("", "-wal"):
            _overwrite(tmp_path / f"spool.sqlite{part}")
        for each in (one, two):
            each._file.run(lambda db: db.execute("pragma shrink_memory"))  # else SQLite would write from its cache
        await asyncio.gather(*(each.add([_message(str(number))]) for number in range(10) for each in (one, two)))
        assert await one.count() == await two.count() >= 20
    assert len([path for path in _set_aside(tmp_path) if path.name.endswith("Z")]) <= 1


async def test_what_was_read_in_one_file_is_not_removed_in_the_next(tmp_path: Path) -> None:
    async with Spool(tmp_path, max_bytes=MAX_BYTES) as spool, Spool(tmp_path, max_bytes=MAX_BYTES) as other:
        await spool.add([_message("old")])
        ids = [row_id for row_id, _ in await spool.oldest(10, max_bytes=MAX_BYTES)]
        with other._file._paths.locked():
            other._file._set_aside(OSError("a test"))
        await other.add([_message("new")])
        await spool.remove(ids)
        assert await _bodies(spool) == [b'["new"]']
        assert not spool.has_undeleted


async def test_a_directory_that_vanished_is_made_again_with_what_was_in_it(spool: Spool, tmp_path: Path) -> None:
    await spool.add([_message("before")])
    shutil.rmtree(tmp_path / "spool")
    await spool.add([_message("after")])
    assert await _bodies(spool) == [b'["before"]', b'["after"]']
    async with spool.drain_lock() as is_ours:
        assert is_ours
    assert (tmp_path / "spool" / "spool.sqlite").exists()


async def test_a_log_that_vanished_is_made_again(spool: Spool, tmp_path: Path) -> None:
    await spool.add([_message("before")])
    (tmp_path / "spool" / "spool.sqlite-wal").unlink()
    await spool.add([_message("after")])
    assert await _bodies(spool) == [b'["before"]', b'["after"]']


@pytest.mark.parametrize("parts", [("-wal",), ("-wal", "-shm"), ("-shm",), ("",)])
async def test_of_two_processes_none_loses_rows_to_the_deletion_of_a_part(tmp_path: Path, parts: tuple[str, ...]) -> None:
    async with _other_process(tmp_path) as add, Spool(tmp_path, max_bytes=MAX_BYTES) as spool:
        for number in range(2):
            await spool.add([_message(f"here {number}")])
            await add(f"there {number}")
        for part in parts:
            (tmp_path / f"spool.sqlite{part}").unlink()
        for number in range(2, 4):
            await spool.add([_message(f"here {number}")])
            await add(f"there {number}")
        expected = {_message(f"{where} {number}").body for where in ("here", "there") for number in range(4)}
        assert set(await _bodies(spool)) == expected
        assert not spool.problem


_OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from ingress.outgoing_message import OutgoingMessage
from ingress.spool import Spool

async def main() -> None:
    async with Spool(Path(sys.argv[1]), max_bytes=1 << 30) as spool:
        for line in sys.stdin:
            await spool.add([OutgoingMessage("callbacks", "", {}, line.strip().encode())])
            print("added", flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def _other_process(directory: Path) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Another process with the same spool; the function adds a message there."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OTHER_PROCESS, str(directory), cwd=ROOT, stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    given, said = process.stdin, process.stdout

    async def add(text: str) -> None:
        given.write(_message(text).body + b"\n")
        async with asyncio.timeout(LIMIT_S):
            while (line := await said.readline()) != b"added\n":
                assert line, "the other process ended"

    try:
        yield add
    finally:
        given.close()
        async with asyncio.timeout(LIMIT_S):
            assert await process.wait() == 0


@pytest.mark.parametrize("pages", [2, 8])
async def test_a_deleted_file_is_restored_once_the_disk_has_space(spool: Spool, tmp_path: Path, pages: int) -> None:
    """An operator may delete it because the disk is full."""
    messages = [_message(f"{number} {'x' * 10_000}") for number in range(20)]
    await spool.add(messages)
    limit = spool._file._max_pages
    spool._file._max_pages = pages
    shutil.rmtree(tmp_path / "spool")
    for _ in range(3):
        with pytest.raises(SpoolUnavailableError, match="full"):
            await spool.add([_message()])
    assert "full" in spool.problem
    spool._file._max_pages = limit
    await spool.add([_message("last")])
    assert await _bodies(spool) == [*(message.body for message in messages), b'["last"]']
    assert not spool.problem


async def test_a_damaged_name_is_replaced(tmp_path: Path) -> None:
    names = ["cast(x'ff41' as text)", "''", "'x/acme'", f"'{'a' * 40}'"]
    for name in names:
        async with Spool(tmp_path, max_bytes=MAX_BYTES) as spool:
            await spool.add([_message()])
        with closing(sqlite3.connect(tmp_path / "spool.sqlite")) as file, file:
            file.execute(f"update identity set name = {name}")  # noqa: S608 - a constant
    async with Spool(tmp_path, max_bytes=MAX_BYTES) as spool:
        assert re.fullmatch("[0-9a-f]{32}", spool.name)
        assert await spool.count() == len(names)


async def test_a_file_system_without_locks_is_a_problem(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would ever be drained there."""

    def refused(*_: object) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refused)
        async with spool.drain_lock() as is_ours:
            assert not is_ours
        assert os.strerror(errno.ENOLCK) in spool.problem
    async with spool.drain_lock() as is_ours:
        assert is_ours
    assert not spool.problem


async def test_a_directory_that_cannot_be_made_is_a_problem_until_it_can(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    async with Spool(tmp_path / "spool", max_bytes=MAX_BYTES) as spool:
        assert "cannot be used" in spool.problem
        for _ in range(2):
            with pytest.raises(SpoolUnavailableError, match="cannot be used"):
                await spool.add([_message()])
        async with spool.drain_lock() as is_ours:
            assert not is_ours
        (tmp_path / "spool").unlink()
        await spool.add([_message()])
        assert await spool.count() == 1
        async with spool.drain_lock() as is_ours:
            assert is_ours
        assert not spool.problem


async def test_a_lock_that_cannot_be_opened_ends_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)
        async with spool.drain_lock() as is_ours:
            assert not is_ours
        assert "Too many open files" in spool.problem
        await spool.add([_message()])
    async with spool.drain_lock() as is_ours:
        assert is_ours
    assert not spool.problem


async def _insert(spool: Spool, columns: tuple[object, ...]) -> None:
    with closing(sqlite3.connect(spool._file.path, isolation_level=None)) as other:
        other.execute("insert into messages (exchange, routing_key, headers, body) values (?, ?, ?, ?)", columns)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (("callbacks", "", b"{no json", b"[1]"), "the headers are not JSON"),
        (("callbacks", "", b"[]", b"[1]"), "not an object"),
        (("callbacks", "", b'{"a": [1]}', b"[1]"), "neither text nor a whole number"),
        (("callbacks", "", b'{"a": 9223372036854775808}', b"[1]"), "neither text nor a whole number"),
        (("callbacks", "", b'{"a": "' + b"x" * 70_000 + b'"}', b"[1]"), "at most 64 KiB"),
        (("callbacks", "", b'{"CC": "calls"}', b"[1]"), "the header CC is not one of ingress"),
        (("callbacks", "", b"{}", b"[1"), "the body is not JSON"),
        (("callbacks", "", b"{}", b"{}"), "not a JSON array of events"),
        (("callbacks", "", b"{}", b"[]"), "not a JSON array of events"),
        (("nobody", "", b"{}", b"[1]"), "no message of ingress goes to exchange 'nobody'"),
        (("", "nowhere", b"{}", b"[1]"), "with routing key 'nowhere'"),
    ],
)
async def test_a_row_that_callfold_did_not_write_is_a_dead_letter_with_its_reason(
    spool: Spool, columns: tuple[object, ...], problem: str
) -> None:
    await _insert(spool, columns)
    ((_, row),) = await spool.oldest(10, max_bytes=MAX_BYTES)
    assert isinstance(row, DamagedRow)
    letter = row.dead_letter()
    assert (letter.exchange, letter.routing_key, letter.body) == ("", "callbacks.dead", columns[3])
    assert letter.headers["reason"] == "damaged_in_spool"
    assert problem in str(letter.headers["detail"])


async def test_a_text_that_is_not_utf_8_spoils_its_own_row_only(spool: Spool) -> None:
    with closing(sqlite3.connect(spool._file.path, isolation_level=None)) as other:
        other.execute(
            "insert into messages (exchange, routing_key, headers, body) values (cast(x'ff41' as text), '', x'7b7d', x'5b315d')"
        )
    await spool.add([_message("good")])
    damaged, good = [row for _, row in await spool.oldest(10, max_bytes=MAX_BYTES)]
    assert isinstance(damaged, DamagedRow)
    assert good == _message("good")


async def test_on_a_full_disk_a_published_message_is_not_read_again_and_the_file_is_begun_anew(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In SQLite's log even a deletion takes space."""
    await spool.add([_message("1"), _message("2")])
    rows = await spool.oldest(1, max_bytes=MAX_BYTES)
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    run = spool._file.run

    def on_a_full_disk(work: Callable[[sqlite3.Connection], object], *, generation: int | None = None) -> object:
        if work.__name__ == "delete":
            raise full
        return run(work, generation=generation)

    monkeypatch.setattr(spool._file, "run", on_a_full_disk)
    await spool.remove([rows[0][0]])
    assert spool.has_undeleted
    assert "full" in spool.problem
    assert await _bodies(spool) == [b'["2"]']
    assert await spool.count() == 1
    rows = await spool.oldest(10, max_bytes=MAX_BYTES)
    await spool.remove([rows[0][0]])  # the last one: nothing in the file is needed any more
    assert (spool.has_undeleted, spool.problem, await spool.count()) == (False, "", 0)
    await spool.add([_message("3")])
    assert await _bodies(spool) == [b'["3"]']


async def test_two_spools_share_a_directory_and_nothing_else(tmp_path: Path) -> None:
    other_file = Spool(tmp_path, max_bytes=MAX_BYTES, file_name="waiting.sqlite")
    async with Spool(tmp_path, max_bytes=MAX_BYTES) as one, other_file as two:
        await one.add([_message("one")])
        assert await two.count() == 0
        async with one.drain_lock() as first, two.drain_lock() as second:
            assert first
            assert second
        assert one.name != two.name
