"""What operators see of a spool, and what is read of a damaged file. Nothing of it changes a file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from console.commands.spool import status
from ingress import spool_use
from ingress.outgoing_message import OutgoingMessage
from ingress.spool import SPOOL_FILE, Spool
from ingress.spool_contents import SpoolContents, read_contents, set_aside_files
from ingress.spool_reader import SpoolReader
from ingress.spool_rows import DamagedRow, read_row
from ingress.spool_use import SpoolUse, is_drain_locked, is_used
from shared.amqp.topology import CALLBACKS
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.errors import ConfigError, SpoolUnavailableError
from shared.file_lock import try_lock

MIB = 1 << 20
_AT = "2026-11-23T07:44:0{}.000000Z"


def message(number: int, source: str = "acme", *, padding: int = 0) -> OutgoingMessage:
    query = f"CallType=API&Event=pickup&CallID={number}&RequestID={number}&Note={'9' * padding}"
    return OutgoingMessage(CALLBACKS, "", {}, join([encode(CallbackEvent(SourceName(source), _AT.format(number % 10), query))]))


async def fill(directory: Path, messages: list[OutgoingMessage], *, file_name: str = SPOOL_FILE) -> None:
    async with Spool(directory, max_bytes=64 * MIB, file_name=file_name) as spool:
        await spool.add(messages)


async def test_all_files_are_counted_by_source_and_stay_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await fill(tmp_path, [message(3), message(2), message(4, "other")])
    await fill(tmp_path, [message(1)], file_name="waiting-acme.sqlite")
    (tmp_path / "notes.sqlite").write_text("of another program", "ascii")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert status(tmp_path, as_json=True) == 0
    shown = orjson.loads(capsys.readouterr().out)
    assert (shown["callbacks"], shown["messages"], shown["oldest"]) == (4, 4, _AT.format(1))
    assert shown["sources"] == {"acme": 3, "other": 1}
    assert (shown["in_use"], shown["drain_lock_held"]) == (False, False)
    assert [file["name"] for file in shown["files"]] == [SPOOL_FILE, "waiting-acme.sqlite"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert status(tmp_path, as_json=False) == 0
    assert "Total: 4 callbacks" in capsys.readouterr().out


async def test_a_use_and_a_drain_are_seen_from_another_process(tmp_path: Path) -> None:
    assert not is_used(tmp_path)
    use = SpoolUse(tmp_path)
    assert is_used(tmp_path)
    assert use.is_alone()
    other = SpoolUse(tmp_path)
    assert not use.is_alone()
    assert not use.try_exclude()
    other.close()
    use.close()
    assert not is_used(tmp_path)
    async with Spool(tmp_path, max_bytes=MIB) as spool, spool.drain_lock() as is_ours:
        assert is_ours
        assert is_drain_locked(tmp_path)
    assert not is_drain_locked(tmp_path)


def test_a_look_at_a_use_is_not_taken_for_a_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ingress that stops would leave its spool to a process that only looks."""
    use = SpoolUse(tmp_path)
    left: list[bool] = []

    def lock_and_leave(file: int, *, is_shared: bool = False) -> bool:
        is_locked = try_lock(file, is_shared=is_shared)
        monkeypatch.setattr(spool_use, "try_lock", try_lock)
        left.append(use.leave_to_others())
        monkeypatch.setattr(spool_use, "try_lock", lock_and_leave)
        return is_locked

    monkeypatch.setattr(spool_use, "try_lock", lock_and_leave)
    assert is_used(tmp_path)
    assert left
    assert not any(left)
    monkeypatch.setattr(spool_use, "try_lock", try_lock)
    use.close()


def test_of_all_processes_that_leave_a_directory_at_once_one_stays(tmp_path: Path) -> None:
    uses = [SpoolUse(tmp_path) for _ in range(3)]
    assert [use.leave_to_others() for use in uses] == [True, True, False]
    assert uses[2].is_alone()
    uses[2].close()


async def test_of_a_file_with_a_broken_page_all_other_rows_are_read(tmp_path: Path) -> None:
    """Rows fill several pages. One leaf of the table is overwritten, as by a failing disk."""
    await fill(tmp_path, [message(number, padding=500) for number in range(100)])
    path = tmp_path / SPOOL_FILE
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma wal_checkpoint(truncate)")
    content = bytearray(path.read_bytes())
    page = next(
        at for at in range(4096 * 3, len(content), 4096) if content[at] == 0x0D and b"CallID=50&" in content[at : at + 4096]
    )
    content[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    reader = SpoolReader(path)
    rows = list(reader.rows())
    lost = 100 - len(rows)
    assert 0 < lost < 12
    assert (reader.unreadable, bool(reader.problem)) == (lost, True)
    assert rows[-1].body == message(99, padding=500).body
    assert not read_contents(tmp_path).is_empty


def test_a_file_that_vanishes_before_it_is_read_is_not_made_again(tmp_path: Path) -> None:
    """An ingress deletes its empty file at its end. A file that a command makes can belong to another user."""
    assert list(SpoolReader(tmp_path / SPOOL_FILE).rows()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_a_problem_and_no_directory_an_error(tmp_path: Path) -> None:
    (tmp_path / "spool.sqlite.damaged-20261123T074400.000000Z").write_bytes(b"no database" * 1000)
    contents: SpoolContents = read_contents(tmp_path)
    assert (contents.messages, contents.is_empty, len(contents.problems)) == (0, False, 1)
    assert status(tmp_path, as_json=False) == 1
    with pytest.raises(ConfigError, match="is no directory"):
        status(tmp_path / "nowhere", as_json=False)
    assert not (tmp_path / "nowhere").exists()


async def test_rows_behind_one_that_the_disk_cannot_read_are_drained_and_its_file_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(tmp_path, [message(1), message(2), message(3)])

    def fail(*columns: bytes) -> OutgoingMessage | DamagedRow:
        if b"CallID=2&" in columns[3]:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
            raise error
        return read_row(*columns)

    monkeypatch.setattr("ingress.spool.read_row", fail)
    monkeypatch.setattr("ingress.spool_reader.read_row", fail)
    async with Spool(tmp_path, max_bytes=64 * MIB) as spool:
        with pytest.raises(SpoolUnavailableError):  # it may pass
            await spool.oldest(10, max_bytes=MIB)
        assert not set_aside_files(tmp_path)
        monkeypatch.setattr("ingress.spool._SALVAGE_S", 0)
        with pytest.raises(SpoolUnavailableError):
            await spool.oldest(10, max_bytes=MIB)
        assert [row.body for _, row in await spool.oldest(10, max_bytes=MIB)] == [message(1).body, message(3).body]
        assert len(set_aside_files(tmp_path)) == 1
        await spool.remove([id_ for id_, _ in await spool.oldest(10, max_bytes=MIB)])
    monkeypatch.undo()
    assert read_contents(tmp_path).callbacks == 3


async def test_a_disk_that_reads_nothing_costs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(tmp_path, [message(1)])

    def fail(*_: bytes) -> OutgoingMessage | DamagedRow:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    for module in ("spool", "spool_reader"):
        monkeypatch.setattr(f"ingress.{module}.read_row", fail)
    monkeypatch.setattr("ingress.spool._SALVAGE_S", 0)
    async with Spool(tmp_path, max_bytes=64 * MIB) as spool:
        for _ in range(2):
            with pytest.raises(SpoolUnavailableError):
                await spool.oldest(10, max_bytes=MIB)
    assert not set_aside_files(tmp_path)
