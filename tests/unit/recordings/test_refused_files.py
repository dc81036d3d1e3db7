"""Refused files: one of a leg, the oldest go beyond a limit, and nothing else in the archive knows them."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import orjson
import pytest

from console.commands.recordings_refused import _names, _only, list_refused
from shared.amqp.publisher import Publisher
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.refused import decode_refused, delete_refused, delete_undescribed, keep_refused, refused_files, refused_json
from shared.archive.storage import Archive, Entry
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.retention.holds import holds
from shared.retention.retention import Retention
from shared.state.store import Store
from tests.helpers.refused_files import check_limits, keep, kept, refused_file


async def test_refused_files_are_limited(tmp_path: Path) -> None:
    archive = Archive(tmp_path.as_uri())
    await check_limits(archive)
    assert await archive.days("acme") == []


async def test_the_oldest_are_dropped_first_with_what_nothing_describes(tmp_path: Path) -> None:
    archive = Archive(tmp_path.as_uri())
    files = [await keep(archive, str(number), b"x" * 100) for number in range(6)]
    for number, refused in enumerate(files):
        for path in (refused.file, refused.path):
            await asyncio.to_thread(os.utime, tmp_path / path, (number, number))
    orphan = tmp_path / "acme" / "refused" / "call-9.9.01234567.wav"
    await asyncio.to_thread(orphan.write_bytes, b"x" * 100)
    await asyncio.to_thread(os.utime, orphan, (2, 2))
    size = (tmp_path / files[0].path).stat().st_size + 100
    last = refused_file("6", b"x" * 100)
    dropped = await keep_refused(archive, last, io.BytesIO(b"x" * 100), 3 * size + 100)
    assert sorted(dropped) == ["call-0.0", "call-1.1", "call-2.2", "call-9.9"]
    assert (await kept(archive))[0] == ["3", "4", "5", "6"]


async def test_what_a_killed_worker_left_goes_with_the_file_of_its_leg_or_by_its_age(tmp_path: Path) -> None:
    archive = Archive(tmp_path.as_uri())
    for call_id in ("7", "8", "9"):
        await archive.put(f"acme/refused/call-{call_id}.{call_id}.01234567.wav.age", b"x")
    first = await keep(archive, "7", b"y")
    assert len((await kept(archive))[1]) == 4
    second = await keep(archive, "8", b"y")
    await archive.put("acme/refused/call-8.8.01234567.wav", b"x")
    await delete_refused(archive, second)
    now = datetime.now(UTC)
    await delete_undescribed(archive, "acme", now - timedelta(days=1))
    assert len((await kept(archive))[1]) == 3
    await delete_undescribed(archive, "acme", now + timedelta(days=1))
    assert (await kept(archive))[1] == [first.file.rpartition("/")[2], "call-7.7.json"]


async def test_a_call_id_used_again_does_not_replace_the_file_of_another_call(tmp_path: Path) -> None:
    archive = Archive(tmp_path.as_uri())
    calls = ("call-7", "call-7.2", "513")
    files = [await keep(archive, "7", call.encode(), call=call) for call in calls]
    assert [await archive.read(refused.file) for refused in files] == [call.encode() for call in calls]
    with pytest.raises(CallfoldError, match="Several legs") as several:
        _only(files, "acme", "call-7")
    names = [name.strip(" .") for name in str(several.value).partition("Accept one of acme/")[2].split(", acme/")]
    assert [[refused for refused in files if name in _names(refused)] for name in names] == [[refused] for refused in files]
    await delete_refused(archive, files[1])
    assert [await archive.read(refused.file) for refused in files] == [b"call-7", None, b"513"]


async def test_a_damaged_description_hides_no_other_and_is_dropped_in_its_turn(tmp_path: Path) -> None:
    archive = Archive(tmp_path.as_uri())
    refused = await keep(archive, "7", b"x")
    await keep(archive, "8", b"y")
    for damage in (b"{", b"[]", b'{"v": 2}', b'{"v": 1}'):
        await archive.put(refused.path, damage)
        assert (await kept(archive))[0] == ["8"]
    await delete_refused(archive, refused)
    assert len((await kept(archive))[1]) == 2


async def test_an_empty_list_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await list_refused(Settings(archive_url=tmp_path.as_uri()), None, as_json=False) == 0
    assert capsys.readouterr() == ("", "0 refused files\n")


@pytest.mark.parametrize(
    "changed",
    [
        {"sha256": None}, {"sha256": "x"}, {"source": "../../x"}, {"source": "other"}, {"call": "../8"}, {"call": "call-8"}, {"call_id": 7},
        {"call_id": "8"}, {"name": "a/b"}, {"name": ".."}, {"sidecar": "acme/monitor/../../../x.json"}, {"sidecar": "other/monitor/2026-UTC/11/23/7.json"},
        {"started_at": None}, {"started_at": "9"}, {"started_at": "2026-13-23T07:44:00.000000Z"}, {"bytes": "9"}, {"bytes": True}, {"attempts": None},
        {"flags": None}, {"flags": "x"}, {"encryption": "age"}, {"seconds": "1"}, {"stored_sha256": 7}, {"detail": None}, {"guid": 7}, {"leg": []},
    ],
)  # fmt: skip
async def test_an_edited_description_is_no_description(tmp_path: Path, changed: dict[str, object]) -> None:
    archive = Archive(tmp_path.as_uri())
    refused = await keep(archive, "7", b"x")
    fields = orjson.loads(refused_json(refused))
    assert decode_refused(orjson.dumps(fields), refused.path) == refused
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        decode_refused(orjson.dumps(fields | changed), refused.path)
    await archive.put(refused.path, orjson.dumps(fields | changed))
    assert (await kept(archive))[0] == []
    await list_refused(Settings(archive_url=tmp_path.as_uri()), None, as_json=False)


class _Unreadable(Archive):
    """An archive with files and directories that cannot be read."""

    unreadable: frozenset[str] = frozenset()

    async def read(self, path: str) -> bytes | None:
        self._check(path)
        return await super().read(path)

    async def entries(self, prefix: str) -> AsyncIterator[Entry]:
        self._check(prefix)
        async for entry in super().entries(prefix):
            yield entry

    def _check(self, path: str) -> None:
        if path in self.unreadable:
            raise ArchiveUnavailableError(f"{path} could not be read: Permission denied")


def _retention(archive: Archive) -> Retention:
    locks = AsyncMock(acquire=AsyncMock(return_value=True), renew=AsyncMock(return_value=True))
    now = datetime.now(UTC)
    store = Mock(spec=Store, locks=locks, now=AsyncMock(return_value=now))
    return Retention(archive, Mock(spec=Publisher), store, now + timedelta(days=365))


@pytest.mark.parametrize("is_damaged", [True, False])
async def test_a_bad_description_stops_no_retention(tmp_path: Path, *, is_damaged: bool) -> None:
    archive = _Unreadable(tmp_path.as_uri())
    bad = await keep(archive, "7", b"x", source="a")
    await keep(archive, "8", b"x", source="a")
    await keep(archive, "9", b"x", source="b")
    if is_damaged:
        await archive.put(bad.path, b"{}")
    else:
        archive.unreadable = frozenset({bad.path})
    done = await _retention(archive).run(["a", "b"], lambda _: None)
    assert done.refused == 2
    assert [problem.partition(":")[0] for problem in done.problems] == [bad.path]
    assert [refused async for refused in refused_files(archive, "a")] == []
    assert [refused async for refused in refused_files(archive, "b")] == []


async def test_a_source_that_cannot_be_listed_stops_no_retention_of_others(tmp_path: Path) -> None:
    archive = _Unreadable(tmp_path.as_uri())
    for source in ("a", "b"):
        await keep(archive, "7", b"x", source=source, sidecar=f"{source}/monitor/2026-UTC/11/23/call-7.json")
    archive.unreadable = frozenset({"a/refused"})
    retention = _retention(archive)
    with pytest.raises(ArchiveUnavailableError, match="a/refused"):
        await retention.run(["a", "b"], lambda _: None)
    assert retention.done.refused == 1


async def test_a_damaged_hold_is_still_listed(tmp_path: Path) -> None:
    archive = Archive(tmp_path.as_uri())
    for call, body in (("7", b"{"), ("8", b"[]"), ("9", b"\xff")):
        await archive.put(f"acme/holds/{call}.json", body)
    assert sorted([held.key.call async for held in holds(archive, "acme")]) == ["7", "8", "9"]
