"""Sidecars: which one belongs to a job, what a worker that died left undone, and what is to be told of what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shared.archive.archive import Archive
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.local_disk import Last
from shared.archive.sidecar import Sidecar, Told, fingerprint_of, sidecar_of
from shared.domain.recording import RecordingJob, RecordingState
from shared.retention.recording_lock import BusyError, confirm_unchanged
from worker.download.inspection import Recording
from worker.recordings.attempt import Attempt
from worker.recordings.store_recording import RecordingWriter, event_suffix


@dataclass(frozen=True, slots=True)
class Filed:
    """What is to be told of a recording that was stored: its words, and what tells its event from others of the kind."""

    words: Mapping[str, object]

    @property
    def suffix(self) -> str:
        return event_suffix(self.words)


@dataclass(frozen=True, slots=True)
class Found:
    """A sidecar as it was read, and as a job makes it."""

    before: Sidecar | None
    sidecar: Sidecar


class Sidecars:
    """Puts recordings and sidecars into the archive. Who calls must have locked the recording."""

    def __init__(self, archive: Archive, directory: Path) -> None:
        """`directory` is where a sealed copy lies until it is stored."""
        self._archive = archive
        self._directory = directory

    async def look(self, job: RecordingJob) -> Found:
        """Read the sidecar of a job's leg, finish what a worker began that died, and bring the record up to date.

        Raises:
            ArchiveUnavailableError: it could not be read, or is none of ours and must not be written over.
        """
        try:
            before, path = await self._archive.sidecar_of(job)
        except ValueError as error:
            raise ArchiveUnavailableError(f"the sidecar of {job.id} is {error}") from error
        return Found(before, await self._recovered(sidecar_of(job, before, path)))

    async def _recovered(self, sidecar: Sidecar) -> Sidecar:
        recording = sidecar.recording
        if sidecar.state is RecordingState.STORING:
            is_there = await self._is_stored(sidecar, recording)
            recording = {**recording, "state": RecordingState.STORED if is_there else RecordingState.WAITING}
        others = []
        for other in sidecar.others:
            if other.get("state") != RecordingState.STORING:
                others.append(other)
            elif await self._is_stored(sidecar, other):
                others.append({**other, "state": RecordingState.STORED})
        return replace(sidecar, recording=recording, others=tuple(others))

    async def _is_stored(self, sidecar: Sidecar, told: Told) -> bool:
        """Tell whether what was about to be stored is there: all of it, and not another's file of that name."""
        try:
            return await self._archive.sha256(sidecar.file(told)) == fingerprint_of(told)
        except FileNotFoundError:
            return False

    async def is_there(self, sidecar: Sidecar, told: Told) -> bool:
        """Tell whether a recording, which the sidecar says is stored, can be found."""
        return await self._archive.has(sidecar, told)

    async def rewrite(self, sidecar: Sidecar, seen: Sidecar | None, confirm: Last) -> None:
        """Put a sidecar in the place of the one that was seen.

        Raises:
            ArchiveUnavailableError: it could not be read or written.
            BusyError: another is at work on it, or wrote it meanwhile.
        """
        try:
            await confirm_unchanged(confirm, self._archive, sidecar.path, seen)
        except ValueError as error:
            raise ArchiveUnavailableError(f"{sidecar.path} is {error}") from error
        await self.put_sidecar(sidecar)

    async def put_sidecar(self, sidecar: Sidecar) -> None:
        await self._archive.put(sidecar.path, sidecar.encode())

    async def store(self, attempt: Attempt, recording: Recording, recipient: str | None, confirm: Last) -> Filed:
        """Store a recording; what is equal to what is there changes nothing, what differs is kept beside it.

        The sidecar is read anew: while the recording came, the lock may have been lost, another's, and ours again. `confirm`
        makes sure that it is ours.

        Raises:
            ArchiveUnavailableError: it could not be stored.
            BusyError: another is at work on it.
        """
        await confirm()
        found = await self.look(attempt.job)
        sidecar = found.sidecar
        if sidecar.state in {RecordingState.EXPIRING, RecordingState.EXPIRED}:
            raise BusyError(f"{sidecar.path} expired meanwhile")
        storing = RecordingWriter(self._archive, self._directory, attempt, recording, recipient, confirm, found.before)
        return Filed(await storing.into(sidecar))
