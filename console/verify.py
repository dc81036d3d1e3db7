"""`callfold recordings verify`: every byte of the archive held against what the sidecars say of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass

import orjson

from console.command import wanted_sources
from console.journal import ago
from shared.archive import Archive
from shared.facts import rfc3339
from shared.recording import RecordingState
from shared.settings import Settings
from shared.sidecar import Told, day_of, fingerprint_of, is_overdue, size_of


@dataclass(frozen=True, slots=True)
class Difference:
    """One file that is not as it should be."""

    path: str
    problem: str


@dataclass(slots=True)
class _Tally:
    files: int = 0
    bytes: int = 0
    differences: int = 0


async def verify(settings: Settings, source: str | None, since: str | None, *, as_json: bool) -> int:
    """Print every difference; exit code 1 where there is one."""
    archive, tally = Archive(settings.archive_url), _Tally()
    first = day_of("", rfc3339(ago(since))) if since else ""
    for name in wanted_sources(settings, source):
        for day in await archive.days(name):
            if day.removeprefix(name) < first:
                continue
            async for found in check_day(archive, day, settings.recording_retry_seconds, tally):
                tally.differences += 1
                text = orjson.dumps(asdict(found)).decode() if as_json else f"{found.path}: {found.problem}"
                sys.stdout.write(text + "\n")
            sys.stderr.write(f"{day}: {tally.files} files, {tally.bytes} bytes read, {tally.differences} differences\n")
    return 1 if tally.differences else 0


async def check_day(
    archive: Archive, day: str, schedule_s: Sequence[float], tally: _Tally | None = None
) -> AsyncIterator[Difference]:
    """Check the files of one day; `schedule_s` are the waits between the tries of a recording."""
    tally = tally or _Tally()
    sizes = {entry.path: entry.size async for entry in archive.entries(day)}
    explained: set[str] = set()
    for path in sorted(path for path in sizes if path.endswith(".json")):
        explained.add(path)
        try:
            sidecar = await archive.sidecar(path)
        except ValueError as error:
            yield Difference(path, str(error))
            continue
        if sidecar is None:
            continue
        for words in sidecar.contents:
            file = sidecar.file(words)
            explained.add(file)
            problem = await _problem(archive, file, words, sizes.get(file))
            tally.files, tally.bytes = tally.files + 1, tally.bytes + sizes.get(file, 0)
            if problem:
                yield Difference(file, problem)
        if is_overdue(sidecar, schedule_s):
            yield Difference(path, f"is {sidecar.state} for longer than its job takes: `callfold recordings backfill` asks anew")
        elif sidecar.state in {RecordingState.STORING, RecordingState.EXPIRING}:
            yield Difference(path, f"was cut off while {sidecar.state}: it is finished when its job, or retention, runs again")
    for path in sorted(set(sizes) - explained):
        yield Difference(path, "no sidecar tells of this file")


async def _problem(archive: Archive, path: str, words: Told, size: int | None) -> str | None:
    wanted_bytes, wanted_sha256 = size_of(words), fingerprint_of(words)
    if size is None:
        return "is missing"
    if size != wanted_bytes:
        return f"has {size} bytes, stored were {wanted_bytes}"
    try:
        found = await archive.sha256(path)
    except FileNotFoundError:
        return "is missing"
    return None if found == wanted_sha256 else f"has SHA-256 {found}, stored was {wanted_sha256}"
