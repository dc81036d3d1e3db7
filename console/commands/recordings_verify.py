"""`callfold recordings verify`: compare every file in the archive with its sidecar, by size and checksum."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import orjson

from console.commands.common import select_sources
from console.counts import counted
from console.durations import ago
from shared.archive.sidecar import Sidecar, day_of, is_overdue
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.recording import RecordingState
from shared.domain.recording_flags import Flag
from shared.domain.recording_info import RecordingInfo
from shared.domain.times import rfc3339
from shared.retention.recording_lock import LEASE_S

_ATTEMPTS = 5
_WITHOUT_FILE = set(RecordingState) - {RecordingState.STORING, RecordingState.STORED, RecordingState.EXPIRING}
_SizeAt = Callable[[str], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that differs from its sidecar, is missing, or has no sidecar.

    Attributes:
        flags: the flags of a recording that is as its sidecar describes it, and worth a look. It does not count as a difference.
    """

    path: str
    problem: str
    flags: tuple[str, ...] = ()


@dataclass(slots=True)
class _Tally:
    files: int = 0
    bytes: int = 0
    differences: int = 0


async def verify(settings: Settings, source: str | None, since: str | None, *, as_json: bool) -> int:
    """Print every difference; returns 1 if there is one."""
    archive, tally = Archive(settings.archive_url), _Tally()
    first = day_of("", rfc3339(ago(since))) if since else ""
    for name in select_sources(settings, source):
        for day in await archive.days(name):
            if day.removeprefix(name) < first:
                continue
            async for difference in check_day(archive, day, settings.recording_retry_seconds, tally):
                tally.differences += not difference.flags
                text = orjson.dumps(asdict(difference)).decode() if as_json else f"{difference.path}: {difference.problem}"
                sys.stdout.write(text + "\n")
            read = f"{counted(tally.files, 'file')}, {counted(tally.bytes, 'byte')} read"
            sys.stderr.write(f"{day}: {read}, {counted(tally.differences, 'difference')}\n")
    return 1 if tally.differences else 0


async def check_day(
    archive: Archive, day: str, schedule_s: Sequence[float], tally: _Tally | None = None
) -> AsyncIterator[Difference]:
    """Check the files of one day; `schedule_s` are the backoff times between the attempts of a recording.

    Recordings may be stored and deleted during the check, so a difference is reported only after a second read.
    """
    tally = tally or _Tally()
    sizes = {entry.path: entry.size async for entry in archive.entries(day)}
    explained: set[str] = set()

    async def listed(path: str) -> int | None:
        return sizes.get(path)

    for path in sorted(path for path in sizes if path.endswith(".json")):
        check = await _check_sidecar(archive, path, schedule_s, listed)
        tally.files += len(check.stored)
        tally.bytes += sum(sizes.get(file, 0) for file in check.stored)
        explained |= {path, *check.files}
        if check.differences:
            check = await _check_again(archive, path, schedule_s)
            explained |= check.files
        for difference in (*check.differences, *check.notes):
            yield difference
    for path in sorted(set(sizes) - explained):
        if not await _is_explained(archive, path):
            yield Difference(path, "has no sidecar")


@dataclass(frozen=True, slots=True)
class _Check:
    """The result of checking one sidecar; `files` includes those about to be stored or deleted."""

    sidecar: Sidecar | None = None
    stored: Sequence[str] = ()
    files: frozenset[str] = frozenset()
    differences: Sequence[Difference] = ()
    notes: Sequence[Difference] = ()


async def _check_sidecar(archive: Archive, path: str, schedule_s: Sequence[float], size_at: _SizeAt) -> _Check:
    """Compare the files of a sidecar with it. Files of a recording in progress may be absent."""
    try:
        sidecar = await archive.sidecar(path)
    except ValueError as error:
        return _Check(differences=[Difference(path, str(error))])
    if sidecar is None:
        return _Check()
    differences = []
    is_expiring = sidecar.state is RecordingState.EXPIRING
    stored = [] if is_expiring else sidecar.contents
    for info in stored:
        file = sidecar.file(info)
        problem = await _problem(archive, file, info, await size_at(file))
        if problem:
            differences.append(Difference(file, problem))
    if is_overdue(sidecar, schedule_s):
        problem = f"has been {sidecar.state} for longer than its job takes; `callfold recordings backfill` requests it again"
        differences.append(Difference(path, problem))
    elif is_expiring and (begun_at := sidecar.recording.expired_at) and begun_at < _lease_ago():
        differences.append(Difference(path, "was interrupted while expiring; the next run of retention completes it"))
    return _Check(sidecar, [sidecar.file(info) for info in stored], _files(sidecar), differences, _notes(sidecar, stored))


def _notes(sidecar: Sidecar, stored: Sequence[RecordingInfo]) -> list[Difference]:
    """Return a note if all recordings of a leg are much shorter than its call."""
    if not stored or not all(Flag.SHORTER_THAN_CALL in (info.flags or ()) for info in stored):
        return []
    problem = f"is much shorter than its call ({Flag.SHORTER_THAN_CALL})"
    return [Difference(sidecar.file(sidecar.recording), problem, (Flag.SHORTER_THAN_CALL,))]


def _lease_ago() -> str:
    """Return the time since which a worker in progress must have renewed its lock."""
    return rfc3339(datetime.now(UTC) - timedelta(seconds=LEASE_S))


async def _check_again(archive: Archive, path: str, schedule_s: Sequence[float]) -> _Check:
    """Check the files as they are now; repeat if their sidecar changed while they were read."""
    check = _Check()
    for _ in range(_ATTEMPTS):
        check = await _check_sidecar(archive, path, schedule_s, archive.size)
        if not check.differences or await _is_unchanged(archive, path, check.sidecar):
            break
    return check


async def _is_unchanged(archive: Archive, path: str, sidecar: Sidecar | None) -> bool:
    try:
        return await archive.sidecar(path) == sidecar
    except ValueError:
        return sidecar is None


def _files(sidecar: Sidecar) -> frozenset[str]:
    """Return every file that a sidecar names, including those about to be stored or deleted."""
    infos = [] if sidecar.state is RecordingState.EXPIRED else [sidecar.recording, *sidecar.others]
    return frozenset(sidecar.file(info) for info in infos if info.uri and info.state not in _WITHOUT_FILE)


async def _is_explained(archive: Archive, path: str) -> bool:
    """Return whether a file without sidecar is gone by now, or has one that was written after the first read."""
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
        return f"has {size} bytes instead of {info.file_bytes}"
    try:
        sha256, sha512 = await archive.checksums(path)
    except FileNotFoundError:
        return "is missing"
    if sha256 != info.file_sha256:
        return f"has SHA-256 {sha256} instead of {info.file_sha256}"
    is_sha512_as_noted = info.file_sha512 in {None, sha512}  # a previous release noted none
    return None if is_sha512_as_noted else f"has SHA-512 {sha512} instead of {info.file_sha512}"
