"""Reads and writes the sidecar of a job's leg, and finishes what a worker that died left undone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.local_disk import Confirm
from shared.archive.sidecar import Sidecar, updated_sidecar
from shared.archive.storage import Archive
from shared.domain.recording import RecordingJob, RecordingState
from shared.domain.recording_info import RecordingInfo
from shared.errors import BusyError
from shared.retention.recording_lock import confirm_unchanged
from worker.download.inspection import Recording
from worker.recordings.attempt import Attempt
from worker.recordings.store_recording import RecordingWriter
from worker.recordings.stored_form import StoredForm


@dataclass(frozen=True, slots=True)
class SidecarUpdate:
    """A sidecar as the archive has it (`before`), and as a job changes it (`after`)."""

    before: Sidecar | None
    after: Sidecar


class Sidecars:
    """Puts recordings and sidecars into the archive. The caller must have locked the recording."""

    def __init__(self, archive: Archive, directory: Path) -> None:
        """`directory`: place of an encrypted copy until it is stored."""
        self._archive = archive
        self._directory = directory

    async def read(self, job: RecordingJob) -> SidecarUpdate:
        """Read the sidecar of a job's leg, and apply the job's call record and what a dead worker left undone.

        Raises:
            ArchiveUnavailableError: the sidecar could not be read, or the file is no sidecar and must not be overwritten.
        """
        try:
            before, path = await self._archive.sidecar_of(job)
        except ValueError as error:
            raise ArchiveUnavailableError(f"the sidecar of {job.id} is {error}") from error
        return SidecarUpdate(before, await self._recovered(updated_sidecar(job, before, path)))

    async def _recovered(self, sidecar: Sidecar) -> Sidecar:
        recording = sidecar.recording
        if sidecar.state is RecordingState.STORING:
            is_stored = await self._is_stored(sidecar, recording)
            recording = replace(recording, state=RecordingState.STORED if is_stored else RecordingState.WAITING)
        others = []
        for other in sidecar.others:
            if other.state is not RecordingState.STORING:
                others.append(other)
            elif await self._is_stored(sidecar, other):
                others.append(replace(other, state=RecordingState.STORED))
        return replace(sidecar, recording=recording, others=tuple(others))

    async def _is_stored(self, sidecar: Sidecar, info: RecordingInfo) -> bool:
        """Return whether the file of a recording is there: all of it, and not another file of that name."""
        try:
            return (await self._archive.checksums(sidecar.file(info))).sha256 == info.file_sha256
        except FileNotFoundError:
            return False

    async def has_file(self, sidecar: Sidecar, info: RecordingInfo) -> bool:
        return await self._archive.has_file(sidecar, info)

    async def rewrite(self, sidecar: Sidecar, seen: Sidecar | None, confirm: Confirm) -> None:
        """Replace a sidecar, if the archive still has the one that was seen.

        Raises:
            ArchiveUnavailableError: it could not be read or written.
            BusyError: the lock was lost, or another worker wrote the sidecar.
        """
        try:
            await confirm_unchanged(confirm, self._archive, sidecar.path, seen)
        except ValueError as error:
            raise ArchiveUnavailableError(f"{sidecar.path} is {error}") from error
        await self.put(sidecar)

    async def put(self, sidecar: Sidecar) -> None:
        await self._archive.put(sidecar.path, sidecar.encode())

    async def store(
        self, attempt: Attempt, recording: Recording, recipient: str | None, confirm: Confirm, form: StoredForm | None = None
    ) -> RecordingInfo:
        """Store a recording, and return its description. The same content changes nothing; other content is kept as well.

        `form` is the content of its file if it need not be encrypted any more.

        The sidecar is read again: during the download the lock may have been lost, and another worker may have had it.

        Raises:
            ArchiveUnavailableError: it could not be stored.
            BusyError: the lock was lost, or the recording has expired.
        """
        await confirm()
        update = await self.read(attempt.job)
        sidecar = update.after
        if sidecar.state in {RecordingState.EXPIRING, RecordingState.EXPIRED}:
            raise BusyError(f"{sidecar.path} has expired during the download")
        writer = RecordingWriter(self._archive, self._directory, attempt, recording, recipient, confirm, update.before, form)
        return await writer.write(sidecar)
