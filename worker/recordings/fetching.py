"""Fetches one recording: downloads it, stores it or keeps the refused file, and publishes what is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shared.archive.sidecar import Sidecar
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.config.sources import Source
from shared.crash_points import crash_point
from shared.domain.expected_talk import expected_seconds, is_much_shorter
from shared.domain.ids import SourceName
from shared.domain.recording_flags import Flag
from shared.domain.recording_info import RecordingInfo
from shared.domain.recording_reasons import Reason
from shared.retention.recording_lock import Lock
from shared.tracing.conventions import BYTES
from worker.download.clients import Clients
from worker.download.failures import FetchError, Result, next_wait_s
from worker.download.inspection import Recording, RefusedError
from worker.download.limits import Limits
from worker.download.targets import recording_links
from worker.recordings.attempt import Attempt
from worker.recordings.job_outcome import End, outcome_of
from worker.recordings.link_choice import downloaded, forget_parts
from worker.recordings.outcomes import OutcomePublisher
from worker.recordings.refused_recordings import KEPT_REASONS, RefusedRecordings
from worker.recordings.sidecars import Sidecars
from worker.recordings.traces import storing


class Fetcher:
    """Fetches recordings of all sources. The caller must have locked the recording."""

    def __init__(
        self,
        sources: LiveSources,
        sidecars: Sidecars,
        outcomes: OutcomePublisher,
        refused: RefusedRecordings,
        settings: Settings,
    ) -> None:
        self._sources = sources
        self._sidecars = sidecars
        self._outcomes = outcomes
        self._refused = refused
        self._directory: Path = settings.recording_dir
        self._schedule_s = settings.recording_retry_seconds
        self.clients = Clients(Limits.of(settings))

    async def fetch(self, attempt: Attempt, sidecar: Sidecar, lock: Lock) -> None:
        """Fetch and store a recording, and publish its event.

        Raises:
            FetchError: the attempt failed.
            ArchiveUnavailableError: the archive could not be read or written.
            BusyError: the lock was lost, or the host has no free download slot.
        """
        job = attempt.job
        source = await self._source(SourceName(job.source))
        links = recording_links(source, job)
        kept: list[RefusedError] = []

        async def keep(error: RefusedError) -> None:
            is_last = isinstance(outcome_of(error, attempt, self._schedule_s), End)
            is_due = error.reason in KEPT_REASONS and (is_last or error.reason is not Reason.GROWING)
            if is_due and await self._refused.keep(attempt, sidecar.path, error, source.archive_recipient):
                kept.append(error)

        # A part that is kept on disk is not encrypted, so a source that encrypts its recordings keeps none.
        try:
            is_kept = source.archive_recipient is None
            async with (
                self.clients.of(source, self._sources.current) as client,
                downloaded(client, links, attempt, self._directory, is_kept=is_kept, on_refused=keep) as recording,
            ):
                with storing() as span:
                    info = await self._store(attempt, sidecar, recording, source, lock)
                    if span is not None:
                        span.set(BYTES, info.bytes or 0)
        except OSError as error:
            raise FetchError(Reason.NO_SPACE, f"CALLFOLD_RECORDING_DIR: {error.strerror or type(error).__name__}") from error
        crash_point("recording.archived")
        await self._outcomes.publish(job, Result.STORED, info, info.event_suffix)
        if attempt.may_have_stored:  # with other content than this attempt has fetched
            await self._outcomes.republish_stored(job, (await self._sidecars.read(job)).after, but=info.event_suffix)
        await self._refused.forget_kept(attempt, is_kept=bool(kept))
        forget_parts(self._directory, job.id)

    async def _source(self, name: SourceName) -> Source:
        """Return a source, also one that was just added, or that was removed while it has calls.

        Raises:
            FetchError: it is not configured.
        """
        if name not in self._sources.known:
            await self._sources.refresh()
        source = self._sources.known.get(name)
        if source is None:
            raise FetchError(Reason.UNKNOWN_SOURCE, f"no source {name} is configured")
        return source

    async def _store(self, attempt: Attempt, sidecar: Sidecar, recording: Recording, source: Source, lock: Lock) -> RecordingInfo:
        """Store a recording. One that is much shorter than the call is kept, and requested again once; the longer one is stored.

        If it cannot be kept, it is stored at once.

        Raises:
            FetchError: it is to be requested again.
        """
        expected_s = expected_seconds(attempt.job.record, attempt.job.call_id)
        if is_much_shorter(recording.audio.seconds, expected_s):
            seconds = recording.audio.seconds or 0
            error = RefusedError(Reason.SHORTER_THAN_CALL, f"{seconds:.0f} s of a call with {expected_s:.0f} s", recording)
            is_worth_another = self._is_worth_another(attempt, sidecar, recording)
            if is_worth_another and await self._refused.keep(attempt, sidecar.path, error, source.archive_recipient):
                raise error
            earlier = await self._refused.earlier(attempt)
            if earlier is not None and (earlier.seconds or 0) > seconds:
                return await self._refused.store(attempt, earlier, Flag.SHORTER_THAN_CALL, lock.confirm)
            audio = replace(recording.audio, flags=recording.audio.flags | {Flag.SHORTER_THAN_CALL})
            recording = replace(recording, audio=audio)
        return await self._sidecars.store(attempt, recording, source.archive_recipient, lock.confirm)

    def _is_worth_another(self, attempt: Attempt, sidecar: Sidecar, recording: Recording) -> bool:
        """Return whether a recording that is too short is requested again: once, and not if it is stored already."""
        is_stored = any(info.sha256 == recording.sha256 for info in sidecar.contents)
        wait_s = next_wait_s(Reason.SHORTER_THAN_CALL, attempt.number, self._schedule_s, same_reason=1)
        return Reason.SHORTER_THAN_CALL not in attempt.reasons and not is_stored and wait_s is not None
