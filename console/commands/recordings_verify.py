"""`callfold recordings verify`: every byte of the archive held against what the sidecars say of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import orjson

from console.commands.common import wanted_sources
from console.durations import ago
from shared.archive.sidecar import Sidecar, day_of, is_overdue
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.facts import rfc3339
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RecordingInfo
from shared.retention.recording_lock import LEASE_S

_LOOKS = 5
_WITHOUT_FILE = set(RecordingState) - {RecordingState.STORING, RecordingState.STORED, RecordingState.EXPIRING}
_SizeAt = Callable[[str], Awaitable[int | None]]


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
    """Check the files of one day; `schedule_s` are the waits between the tries of a recording.

    Recordings are stored and deleted meanwhile, so nothing that was read once is told before it was read again.
    """
    tally = tally or _Tally()
    sizes = {entry.path: entry.size async for entry in archive.entries(day)}
    explained: set[str] = set()

    async def listed(path: str) -> int | None:
        return sizes.get(path)

    for path in sorted(path for path in sizes if path.endswith(".json")):
        look = await _look(archive, path, schedule_s, listed)
        tally.files += len(look.stored)
        tally.bytes += sum(sizes.get(file, 0) for file in look.stored)
        explained |= {path, *look.files}
        if look.differences:
            look = await _look_again(archive, path, schedule_s)
            explained |= look.files
        for found in look.differences:
            yield found
    for path in sorted(set(sizes) - explained):
        if not await _is_explained(archive, path):
            yield Difference(path, "no sidecar tells of this file")


@dataclass(frozen=True, slots=True)
class _Look:
    """What a sidecar says, and what is not so. `files`: also those that are about to be stored, or deleted."""

    sidecar: Sidecar | None = None
    stored: Sequence[str] = ()
    files: frozenset[str] = frozenset()
    differences: Sequence[Difference] = ()


async def _look(archive: Archive, path: str, schedule_s: Sequence[float], size_at: _SizeAt) -> _Look:
    """Hold the files of a sidecar against it; those of a recording on its way are not there yet, or no longer."""
    try:
        sidecar = await archive.sidecar(path)
    except ValueError as error:
        return _Look(differences=[Difference(path, str(error))])
    if sidecar is None:
        return _Look()
    differences = []
    is_expiring = sidecar.state is RecordingState.EXPIRING
    stored = [] if is_expiring else sidecar.contents
    for info in stored:
        file = sidecar.file(info)
        problem = await _problem(archive, file, info, await size_at(file))
        if problem:
            differences.append(Difference(file, problem))
    if is_overdue(sidecar, schedule_s):
        problem = f"is {sidecar.state} for longer than its job takes: `callfold recordings backfill` asks anew"
        differences.append(Difference(path, problem))
    elif is_expiring and (begun_at := sidecar.recording.expired_at) and begun_at < _lease_ago():
        differences.append(Difference(path, "was cut off while expiring: it is finished when retention runs again"))
    return _Look(sidecar, [sidecar.file(info) for info in stored], _files(sidecar), differences)


def _lease_ago() -> str:
    """Tell since when who works on a recording must have renewed the lock on it."""
    return rfc3339(datetime.now(UTC) - timedelta(seconds=LEASE_S))


async def _look_again(archive: Archive, path: str, schedule_s: Sequence[float]) -> _Look:
    """Look at files as they are now; and once more where their sidecar was written while they were read."""
    look = _Look()
    for _ in range(_LOOKS):
        look = await _look(archive, path, schedule_s, archive.size)
        if not look.differences or await _says_the_same(archive, path, look.sidecar):
            break
    return look


async def _says_the_same(archive: Archive, path: str, sidecar: Sidecar | None) -> bool:
    try:
        return await archive.sidecar(path) == sidecar
    except ValueError:
        return sidecar is None


def _files(sidecar: Sidecar) -> frozenset[str]:
    """Name every file that a sidecar tells of, also where it is about to be stored or deleted."""
    infos = [] if sidecar.state is RecordingState.EXPIRED else [sidecar.recording, *sidecar.others]
    return frozenset(sidecar.file(info) for info in infos if info.uri and info.state not in _WITHOUT_FILE)


async def _is_explained(archive: Archive, path: str) -> bool:
    """Tell whether a file that no sidecar told of is gone by now, or told of: stored after its sidecar was read."""
    if await archive.size(path) is None:
        return True
    directory, _, name = path.rpartition("/")
    parts = name.split(".")
    for count in range(1, len(parts)):
        with suppress(ValueError):
            sidecar = await archive.sidecar(f"{directory}/{'.'.join(parts[:count])}.json")
            if sidecar is not None and path in _files(sidecar):
                return True
    return False


async def _problem(archive: Archive, path: str, info: RecordingInfo, size: int | None) -> str | None:
    if size is None:
        return "is missing"
    if size != info.file_bytes:
        return f"has {size} bytes, stored were {info.file_bytes}"
    try:
        found = await archive.sha256(path)
    except FileNotFoundError:
        return "is missing"
    return None if found == info.file_sha256 else f"has SHA-256 {found}, stored was {info.file_sha256}"
