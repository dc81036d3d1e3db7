"""Keeps the files that a worker refuses to store. One is stored after all if a person accepts it, or nothing better comes."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from shared.archive.checksum import Checksums, checksums_of
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.local_disk import Confirm
from shared.archive.refused import RefusedFile, delete_refused, delete_refused_of, keep_refused, path_of_refused, read_refused
from shared.archive.storage import Archive
from shared.clock import utc_now
from shared.domain.file_names import LegIds, file_names
from shared.domain.recording import RecordingJob
from shared.domain.recording_flags import Flag
from shared.domain.recording_info import RecordingInfo
from shared.domain.recording_reasons import Reason
from shared.log import get_logger
from worker.download.failures import Result
from worker.download.inspection import Recording, RefusedError
from worker.download.sniffing import is_text_file
from worker.download.wav_check import Audio
from worker.recordings.attempt import Attempt
from worker.recordings.link_choice import forget_parts
from worker.recordings.outcomes import OutcomePublisher
from worker.recordings.sidecars import Sidecars
from worker.recordings.stored_form import StoredForm, stored_form

log = get_logger(__name__)

# A growing file is kept only when its job ends.
KEPT_REASONS = frozenset(
    {Reason.NOT_A_RECORDING, Reason.TRUNCATED, Reason.NO_AUDIO, Reason.GROWING, Reason.SHORTER_THAN_CALL, Reason.COMPRESSED}
)
# A smaller file without audio is a header and its chunks.
_MIN_BYTES_WITHOUT_AUDIO = 8192


class RefusedRecordings:
    """The refused files of the archive. The caller must have locked the recording."""

    def __init__(self, archive: Archive, sidecars: Sidecars, directory: Path, max_bytes: int) -> None:
        """`directory`: place of copies while they are stored. `max_bytes`: limit of a source's refused files, 0 to keep none."""
        self._archive = archive
        self._sidecars = sidecars
        self._directory = directory
        self._max_bytes = max_bytes

    async def keep(self, attempt: Attempt, sidecar_path: str, error: RefusedError, recipient: str | None) -> bool:
        """Keep a refused file, unless it is no audio of any kind or a better one is kept. Return whether one is kept.

        If that fails, the attempt goes on: its result counts more than the file.
        """
        if not self._max_bytes or await asyncio.to_thread(_is_worthless, error):
            return False
        try:
            return await self._keep(attempt, sidecar_path, error, recipient)
        except (ArchiveUnavailableError, OSError) as failure:
            detail = f"{error.reason}, {error.detail}. Not kept: {failure}"
            log.warning("refused_file_not_kept", id=attempt.job.id, reason=error.reason, detail=detail)
            return False

    async def _keep(self, attempt: Attempt, sidecar_path: str, error: RefusedError, recipient: str | None) -> bool:
        before = await self.of(attempt.job)
        if before is not None and not _is_better(error, before):
            return True
        with ExitStack() as closing:
            form = await stored_form(closing, error.content.file, self._directory, recipient)
            refused = _describe(attempt, sidecar_path, error, form)
            dropped = await keep_refused(self._archive, refused, form.content, self._max_bytes)
        log.warning("recording_refused", id=attempt.job.id, reason=error.reason, detail=error.detail, file=refused.file)
        for leg in dropped:
            log.warning("refused_file_dropped", source=attempt.job.source, leg=leg)
        return True

    async def earlier(self, attempt: Attempt) -> RefusedFile | None:
        """Return the recording that an earlier attempt found too short, if it is kept.

        Raises:
            ArchiveUnavailableError: it could not be read.
        """
        if Reason.SHORTER_THAN_CALL not in attempt.reasons:
            return None
        refused = await self.of(attempt.job)
        return refused if refused is not None and refused.reason == Reason.SHORTER_THAN_CALL else None

    async def store_earlier(self, attempt: Attempt, confirm: Confirm, outcomes: OutcomePublisher) -> bool:
        """Store and publish what an earlier attempt found too short, because the job ends without a better recording.

        Returns:
            False if there is nothing to store.

        Raises:
            ArchiveUnavailableError, BusyError: see `store`.
        """
        refused = await self.earlier(attempt)
        if refused is None:
            return False
        info = await self.store(attempt, refused, Flag.SHORTER_THAN_CALL, confirm)
        await outcomes.publish(attempt.job, Result.STORED, info, info.event_suffix)
        await self.forget(refused)
        forget_parts(self._directory, attempt.job.id)
        return True

    async def kept_uri(self, attempt: Attempt, reason: Reason) -> str | None:
        """Return the URI of the refused file of a job that ends, if one is kept."""
        if not KEPT_REASONS & {*attempt.reasons, reason}:
            return None
        try:
            refused = await self.of(attempt.job)
        except ArchiveUnavailableError as error:
            log.warning("refused_file_unknown", id=attempt.job.id, detail=str(error))
            return None
        return None if refused is None else self.uri(refused)

    async def forget_kept(self, attempt: Attempt, *, is_kept: bool = False) -> None:
        """Delete what this attempt (`is_kept`), an earlier one or an earlier job of the leg kept, because it is stored now.

        If that fails, the file stays until it expires. Of the first job and its first attempt nothing else is read.
        """
        is_first = attempt.asked == (1, 1) and not attempt.may_have_stored
        if is_first and not is_kept and not KEPT_REASONS & set(attempt.reasons):
            return
        job = attempt.job
        # An earlier revision may not have had the GUID yet.
        names = {job.name, *file_names([LegIds(None, job.call_id)], {})} if job.revision > 1 else {job.name}
        paths = [path_of_refused(job.source, job.call, name, job.call_id) for name in sorted(names)]
        try:
            await delete_refused_of(self._archive, job.source, paths)
        except ArchiveUnavailableError as error:
            log.warning("refused_file_not_deleted", id=attempt.job.id, detail=str(error))

    async def of(self, job: RecordingJob) -> RefusedFile | None:
        """Return the refused file that is kept for a leg."""
        refused = await read_refused(self._archive, path_of_refused(job.source, job.call, job.name, job.call_id))
        return refused if refused is not None and refused.call == job.call else None

    def uri(self, refused: RefusedFile) -> str:
        return self._archive.uri(refused.file)

    async def store(self, attempt: Attempt, refused: RefusedFile, flag: Flag, confirm: Confirm) -> RecordingInfo:
        """Store a refused file as a recording of its leg, with a flag. Its event is still to be published.

        Raises:
            ArchiveUnavailableError: it could not be read or stored, or is damaged.
            BusyError: the lock was lost, or the recording has expired.
            OSError: the copy on this machine could not be written.
        """
        with ExitStack() as closing:
            file, sums = await self._open(closing, refused)
            form = StoredForm(file, refused.encryption, refused.stored_bytes, *sums) if refused.encryption else StoredForm(file)
            # None if a previous release encrypted the file: only its owner can read it.
            sha512 = refused.sha512 if refused.encryption else sums.sha512
            flags = frozenset({*(Flag(name) for name in refused.flags if name in set(Flag)), flag})
            audio = Audio(refused.seconds, refused.channels, refused.sample_rate, flags)
            recording = Recording(file, refused.bytes, refused.sha256, sha512, audio)
            recipient = str(refused.encryption.get("recipient")) if refused.encryption else None
            attempt = replace(attempt, number=refused.attempts)
            return await self._sidecars.store(attempt, recording, recipient, confirm, form)

    async def _open(self, closing: ExitStack, refused: RefusedFile) -> tuple[BinaryIO, Checksums]:
        await asyncio.to_thread(self._directory.mkdir, parents=True, exist_ok=True)
        file: BinaryIO = closing.enter_context(tempfile.TemporaryFile(dir=self._directory))  # noqa: SIM115 - entered
        try:
            async for piece in self._archive.stream(refused.file):
                await asyncio.to_thread(file.write, piece)
        except FileNotFoundError:
            raise ArchiveUnavailableError(f"{refused.file} is missing") from None
        file.flush()
        expected = refused.stored_sha256 or refused.sha256
        sums = await asyncio.to_thread(checksums_of, file)
        if sums.sha256 != expected:
            raise ArchiveUnavailableError(f"{refused.file} is damaged: its SHA-256 is not {expected}")
        return file, sums

    async def forget(self, refused: RefusedFile) -> None:
        """Delete a refused file, because its leg has a recording now."""
        await delete_refused(self._archive, refused)


def _is_worthless(error: RefusedError) -> bool:
    is_header = error.reason is Reason.NO_AUDIO and error.content.bytes < _MIN_BYTES_WITHOUT_AUDIO
    return is_header or is_text_file(error.content.file)


def _is_better(error: RefusedError, before: RefusedFile) -> bool:
    """Return whether a file is worth more than the one that is kept: it is whole, or larger."""
    content, reason = error.content, error.reason
    if content.sha256 == before.sha256:
        return False
    is_whole, was_whole = reason is Reason.SHORTER_THAN_CALL, before.reason == Reason.SHORTER_THAN_CALL
    return (is_whole, content.bytes) > (was_whole, before.bytes)


def _describe(attempt: Attempt, sidecar_path: str, error: RefusedError, form: StoredForm) -> RefusedFile:
    job, content = attempt.job, error.content
    audio = content.audio
    return RefusedFile(
        source=job.source,
        call=job.call,
        call_id=job.call_id,
        guid=job.guid,
        name=job.name,
        leg=job.leg,
        started_at=job.started_at,
        sidecar=sidecar_path,
        at=utc_now(),
        reason=error.reason,
        detail=error.detail,
        attempts=attempt.number,
        bytes=content.bytes,
        sha256=content.sha256,
        sha512=content.sha512,
        seconds=audio.seconds,
        channels=audio.channels,
        sample_rate=audio.sample_rate,
        flags=tuple(sorted(audio.flags)),
        encryption=form.encryption,
        stored_bytes=form.stored_bytes,
        stored_sha256=form.stored_sha256,
    )
