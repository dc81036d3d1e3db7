"""Refused files: one of a leg, the oldest go beyond a limit, and nothing else in the archive knows them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from shared.archive.refused import delete_refused, drop_oldest
from shared.archive.storage import Archive
from tests.helpers.refused_files import check_limits, keep, kept


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
    orphan = tmp_path / "acme" / "quarantine" / "call-9.9.01234567.wav"
    await asyncio.to_thread(orphan.write_bytes, b"x" * 100)
    await asyncio.to_thread(os.utime, orphan, (2, 2))
    size = (tmp_path / files[0].path).stat().st_size + 100
    assert sorted(await drop_oldest(archive, "acme", 3 * size)) == ["call-0.0", "call-1.1", "call-2.2", "call-9.9"]
    assert (await kept(archive))[0] == ["3", "4", "5"]


async def test_a_damaged_description_hides_no_other_and_is_dropped_in_its_turn(tmp_path: Path) -> None:
    archive = Archive(tmp_path.as_uri())
    refused = await keep(archive, "7", b"x")
    await keep(archive, "8", b"y")
    for damage in (b"{", b"[]", b'{"v": 2}', b'{"v": 1}'):
        await archive.put(refused.path, damage)
        assert (await kept(archive))[0] == ["8"]
    await delete_refused(archive, refused)
    assert len((await kept(archive))[1]) == 2
