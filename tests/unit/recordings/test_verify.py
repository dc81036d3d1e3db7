"""`recordings verify` beside workers and retention at work: what only changes is no difference."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from console.commands.recordings_verify import check_day
from shared.archive.sidecar import path_of
from shared.archive.storage import Archive, Entry
from shared.domain.recording_info import RecordingInfo
from shared.domain.times import rfc3339
from tests.helpers.recordings import GUID, WAV
from tests.helpers.shelf import DAY, JOB, OTHER, Shelf

Act = Callable[[Shelf], Awaitable[object]]


class _Listed(Archive):
    """An archive in which something happens as soon as a day was listed."""

    def __init__(self, url: str, then: Callable[[], Awaitable[object]]) -> None:
        super().__init__(url)
        self._then = then

    async def entries(self, directory: str) -> AsyncIterator[Entry]:
        found = [entry async for entry in super().entries(directory)]
        await self._then()
        for entry in found:
            yield entry


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def _differences(shelf: Shelf, meanwhile: Act) -> list[tuple[str, str]]:
    archive = _Listed(shelf.root.as_uri(), lambda: meanwhile(shelf))
    return [(found.path.removeprefix(f"{DAY}/"), found.problem) async for found in check_day(archive, DAY, (1,))]


async def _store_again(shelf: Shelf) -> None:
    await shelf.store(WAV, round=2, is_again=True)


async def _store_other(shelf: Shelf) -> None:
    await shelf.store(OTHER, round=2)


async def _delete(shelf: Shelf) -> None:
    for suffix in ("json", "wav"):
        shelf.file(suffix).unlink()


@pytest.mark.parametrize(
    ("lost", "meanwhile"),
    [("wav", _store_again), ("json", _store_again), ("json", _store_other), (None, _store_other), (None, _delete)],
)
async def test_what_is_put_right_after_the_day_was_listed_is_no_difference(
    shelf: Shelf, lost: str | None, meanwhile: Act
) -> None:
    await shelf.store(WAV)
    if lost:
        shelf.file(lost).unlink()
    assert await _differences(shelf, meanwhile) == []


async def test_a_store_in_progress_is_no_difference_at_any_moment_of_it(shelf: Shelf) -> None:
    seen: list[tuple[str, str]] = []
    moments: set[tuple[str, ...]] = set()

    async def look() -> None:
        if shelf.file("json").exists():
            moments.add(tuple(name for name in shelf.files() if name in {"json", "wav"}))
        seen.extend(await shelf.differences())

    for content in (WAV, OTHER):
        await shelf.store(content, look)
    assert {("json",), ("json", "wav")} <= moments
    assert seen == []


async def _nothing(_: Shelf) -> None:
    """Change nothing."""


async def _say(shelf: Shelf, **changed: Any) -> None:  # noqa: ANN401
    sidecar = await shelf.sidecar()
    info = RecordingInfo.from_json(sidecar.recording.to_json() | changed)
    await shelf.archive.put(path_of(JOB, "json"), replace(sidecar, recording=info).encode())


async def test_a_store_that_is_overdue_is_told(shelf: Shelf) -> None:
    await shelf.store(WAV)
    await _say(shelf, state="storing", at=rfc3339(datetime.now(UTC) - timedelta(minutes=5)))
    assert await _differences(shelf, _nothing) == []
    await _say(shelf, at=rfc3339(datetime.now(UTC) - timedelta(days=1)))
    ((name, problem),) = await _differences(shelf, _nothing)
    assert (name, "has been storing for longer than its job takes" in problem) == (f"{GUID}.json", True)


async def test_a_deletion_is_told_once_nobody_can_be_at_it_any_more(shelf: Shelf) -> None:
    await shelf.store(WAV)
    await shelf.store(OTHER, round=2)
    await _say(shelf, state="expiring", expired_at=rfc3339(datetime.now(UTC)))
    shelf.file("wav").unlink()
    assert await _differences(shelf, _nothing) == []
    await _say(shelf, expired_at=rfc3339(datetime.now(UTC) - timedelta(minutes=5)))
    ((name, problem),) = await _differences(shelf, _nothing)
    assert (name, "was interrupted while expiring" in problem) == (f"{GUID}.json", True)


async def test_a_file_of_what_has_expired_is_told(shelf: Shelf) -> None:
    await shelf.store(WAV)
    await _say(shelf, state="expired")
    assert json.loads(shelf.file("json").read_text())["recording"]["uri"]
    assert await _differences(shelf, _nothing) == [(f"{GUID}.wav", "has no sidecar")]
