"""A spool whose file cannot be opened now is opened as soon as it can be: no message is refused for a failure that is over."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from ingress.outgoing_message import OutgoingMessage
from ingress.spool import Spool
from ingress.spool_paths import LockHeldError
from shared.errors import SpoolUnavailableError

MAX_BYTES = 1 << 30


def _message(text: str) -> OutgoingMessage:
    return OutgoingMessage("callbacks", "", {}, f'["{text}"]'.encode())


async def _bodies(spool: Spool) -> list[bytes]:
    return [row.body for _, row in await spool.oldest(1000, max_bytes=MAX_BYTES)]


def _in_the_middle(spool: Spool, monkeypatch: pytest.MonkeyPatch, disturb: Callable[[], object]) -> None:
    """Disturb the next attempt to open the file, once its lock is held."""
    connect = spool._file._connect
    attempts = itertools.count()

    def disturbed() -> None:
        if next(attempts) == 0:
            disturb()
        connect()

    monkeypatch.setattr(spool._file, "_connect", disturbed)


async def test_a_directory_that_vanishes_while_its_file_is_opened_costs_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "spool"
    async with Spool(directory, max_bytes=MAX_BYTES) as spool:
        await spool.add([_message("before")])
        shutil.rmtree(directory)
        _in_the_middle(spool, monkeypatch, lambda: shutil.rmtree(directory))
        await spool.add([_message("after")])
        assert await _bodies(spool) == [b'["before"]', b'["after"]']
        assert not spool.problem


async def test_a_directory_that_becomes_a_file_while_its_file_is_opened_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "spool"

    def replace() -> None:
        shutil.rmtree(directory)
        directory.write_text("no directory")

    async with Spool(directory, max_bytes=MAX_BYTES) as spool:
        await spool.add([_message("before")])
        shutil.rmtree(directory)
        _in_the_middle(spool, monkeypatch, replace)
        with pytest.raises(SpoolUnavailableError):
            await spool.add([_message("refused")])
        directory.unlink()
        await spool.add([_message("after")])
        assert await _bodies(spool) == [b'["before"]', b'["after"]']


def _clock(monkeypatch: pytest.MonkeyPatch, *, step_s: float, begin_s: float = 1000) -> None:
    """A clock of which each look takes so long, as on a slow disk."""
    looks = itertools.count()
    monkeypatch.setattr("ingress.spool_file.time", SimpleNamespace(monotonic=lambda: begin_s + step_s * next(looks)))


async def test_a_slow_failure_to_open_is_attempted_again_by_the_next_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "spool"
    directory.write_text("no directory")
    _clock(monkeypatch, step_s=0.2)
    async with Spool(directory, max_bytes=MAX_BYTES) as spool:
        assert "cannot be used" in spool.problem
        directory.unlink()
        await spool.add([_message("after")])
        assert await _bodies(spool) == [b'["after"]']


async def test_a_failure_that_takes_a_second_does_not_cost_each_message_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _clock(monkeypatch, step_s=1.5)
    spool, attempts = Spool(tmp_path, max_bytes=MAX_BYTES), itertools.count(1)

    def fail() -> NoReturn:
        next(attempts)
        raise OSError("the disk fails slowly")

    monkeypatch.setattr(spool._file, "_connect", fail)
    async with spool:
        with pytest.raises(SpoolUnavailableError, match="slowly"):
            await spool.add([_message("refused")])
        assert next(attempts) == 2, "the first attempt was the only one"


def _busy() -> sqlite3.Error:
    error = sqlite3.OperationalError("the lock of the database is held")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


@pytest.mark.parametrize("error", [LockHeldError("another process holds the lock"), _busy()])
async def test_a_lock_that_is_held_is_waited_for_by_one_message_and_not_by_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    _clock(monkeypatch, step_s=0.2)
    spool, attempts = Spool(tmp_path, max_bytes=MAX_BYTES), itertools.count(1)

    def held() -> NoReturn:
        next(attempts)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(spool._file, "_connect", held)
        async with spool:
            for _ in range(3):
                with pytest.raises(SpoolUnavailableError, match="lock"):
                    await spool.add([_message("refused")])
            assert next(attempts) == 2, "the first attempt was the only one"
            patched.undo()
            _clock(monkeypatch, step_s=0.2, begin_s=2000)
            await spool.add([_message("after")])
            assert await _bodies(spool) == [b'["after"]']
