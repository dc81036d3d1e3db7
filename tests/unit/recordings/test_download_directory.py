"""Parts of downloads on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from worker.download.download_directory import make_room
from worker.download.partial_file import partial


def _leave(directory: Path, name: str, size: int, *, age_s: int) -> None:
    before = set(directory.glob("*"))
    with partial(directory, name, is_kept=True) as part:
        part.restart('"etag"')
        part.append(b"x" * size)
    for path in set(directory.glob("*")) - before:
        touched = path.stat().st_mtime - age_s
        os.utime(path, (touched, touched))


def _sizes(directory: Path) -> list[int]:
    return sorted(path.stat().st_size for path in directory.glob("*.part"))


def test_the_oldest_part_that_nobody_works_on_goes_first(tmp_path: Path) -> None:
    for number, size in enumerate((1000, 200, 30, 4)):
        _leave(tmp_path, f"part-{number}", size, age_s=1000 - number)
    with partial(tmp_path, "part-0", is_kept=True) as in_work:
        make_room(tmp_path, 1234)
        assert _sizes(tmp_path) == [4, 30, 200, 1000]
        make_room(tmp_path, 1100)
        assert _sizes(tmp_path) == [4, 30, 1000]
        make_room(tmp_path, 0)
        assert _sizes(tmp_path) == [1000]
        assert in_work.size == 1000
    assert len(list(tmp_path.iterdir())) == 2, "a part and its note"
    make_room(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_was_removed_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _leave(tmp_path, "part", 1000, age_s=0)
    open_, is_first = os.open, True

    def late(path: Path, *more: int) -> int:
        nonlocal is_first
        file = open_(path, *more)
        if is_first and path.suffix == ".part":
            is_first = False
            make_room(tmp_path, 0)
        return file

    monkeypatch.setattr("worker.download.partial_file.os.open", late)
    with partial(tmp_path, "part", is_kept=True) as part:
        assert part.size == 0
        part.restart('"etag"')
        part.append(b"x")
    assert _sizes(tmp_path) == [1]


def test_a_part_that_cannot_be_removed_is_logged_and_fails_no_job(tmp_path: Path) -> None:
    (tmp_path / "a.part").mkdir()
    with capture_logs() as logs:
        make_room(tmp_path, 0)
    assert [entry["event"] for entry in logs] == ["partial_downloads_not_removed"]
