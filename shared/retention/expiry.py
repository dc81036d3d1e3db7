"""Ends the retention of one leg's recording: deletes its files, publishes `recording.expired`, and updates its sidecar.

The work holds the lock of the recording, and may be interrupted anywhere. The sidecar says `expiring`
before a file is deleted, and `expired` after RabbitMQ has confirmed the event. A repetition publishes the same id and body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shared import metrics
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLS
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.sidecar import Sidecar, path_of
from shared.archive.storage import Archive
from shared.clock import utc_now
from shared.domain.call_event import recording_event
from shared.domain.cloud_event import CLOUDEVENT
from shared.domain.event_types import RecordingOutcome
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.recording import RecordingState
from shared.domain.recording_info import HASH_DIGITS, RecordingInfo
from shared.errors import BusyError, leaf_errors
from shared.log import get_logger
from shared.retention.holds import is_held
from shared.retention.recording_lock import Lock, confirm_unchanged, locked
from shared.state.store import Store

log = get_logger(__name__)

Sizes = Mapping[str, int | None]
"""Sizes of files by path; None if a file is missing."""


@dataclass(slots=True)
class Expired:
    """Counts of a run, or of what a dry run would do.

    Attributes:
        held: legs that a hold keeps.
        waiting: legs left to a later run, because their recording is on its way or locked.
        refused: refused files that were kept.
        problems: sentences about what could not be done.
    """

    recordings: int = 0
    records: int = 0
    bytes: int = 0
    held: int = 0
    waiting: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Expiry:
    """Deletes recordings of calls that started before a time (RFC 3339), and counts them in `done`.

    Attributes:
        with_records: delete the sidecars too; otherwise they stay and say `expired`.
    """

    archive: Archive
    publisher: Publisher
    store: Store
    before: str
    with_records: bool
    is_dry_run: bool
    done: Expired

    async def expire(self, path: str) -> None:
        """Delete the recordings of a sidecar if they are old enough and not held.

        Raises:
            ArchiveUnavailableError: something could not be read, written or deleted. The next run continues.
        """
        sidecar = await self._read(path)
        if sidecar is None:
            return
        try:
            async with locked(self.store, path_of(sidecar.job, "json")) as lock:
                sidecar = await self._read(path)  # again, now that no other process writes it
                if sidecar is not None:
                    await self._expire(sidecar, lock)
        except* BusyError:
            self.done.waiting += 1

    async def _read(self, path: str) -> Sidecar | None:
        try:
            sidecar = await self.archive.sidecar(path)
        except ValueError as error:
            self.done.problems.append(f"{path}: {error}")
            return None
        return sidecar if sidecar is not None and sidecar.started_at < self.before else None

    async def _expire(self, sidecar: Sidecar, lock: Lock) -> None:
        if await self._is_held(sidecar):
            await self._spare(sidecar, lock)
            self.done.held += 1
            return
        if sidecar.state in {RecordingState.WAITING, RecordingState.STORING}:
            self.done.waiting += 1
            return
        is_begun = sidecar.state is RecordingState.EXPIRING
        infos = [*([sidecar.recording] if is_begun and sidecar.recording.uri else []), *sidecar.contents]
        sizes = {sidecar.file(info): await self.archive.size(sidecar.file(info)) for info in infos}
        if is_begun or any(size is not None for size in sizes.values()):
            expired = self._count_all(sidecar, sizes) if self.is_dry_run else await self._delete(sidecar, infos, sizes, lock)
            if expired is None:
                return
            sidecar = expired
        elif infos:
            self.done.problems.append(f"{sidecar.path}: its recording is missing, see `callfold recordings verify`")
            return
        if self.with_records:
            await self._delete_record(sidecar, lock)

    def _count_all(self, sidecar: Sidecar, sizes: Sizes) -> Sidecar:
        for size in sizes.values():
            self._count(size)
        return sidecar

    def _count(self, size: int | None) -> None:
        self.done.recordings += size is not None
        self.done.bytes += size or 0

    async def _delete(self, sidecar: Sidecar, infos: list[RecordingInfo], sizes: Sizes, lock: Lock) -> Sidecar | None:
        """Delete the files of recordings and publish that; return None if a hold was placed in between."""
        begun = sidecar
        if sidecar.state is not RecordingState.EXPIRING:
            missing = tuple(path.rpartition("/")[2] for path, size in sizes.items() if size is None) or None
            state, was = RecordingState.EXPIRING, sidecar.state
            begun_info = replace(sidecar.recording, state=state, was=was, expired_at=utc_now(), missing=missing)
            begun = replace(sidecar, recording=begun_info)
            await self._put(begun, sidecar, lock)
        for path, size in sizes.items():
            # A hold placed earlier is found here. One placed later finds the sidecar `expiring`, and reports that.
            if await self._is_held_now(begun, lock):
                await self._spare(begun, lock)
                self.done.held += 1
                return None
            await lock.confirm()  # without the lock, another run may have spared the recording since the sidecar was read
            await self.archive.delete(path)
            self._count(size)
        expired_at = begun.recording.expired_at
        if expired_at is None:
            raise ValueError(f"{begun.path} is expiring, but has no expired_at")
        for info in infos:
            is_first = info.uri == begun.recording.uri
            suffix = "" if is_first else f"/{info.file_sha256}"[: 1 + HASH_DIGITS]
            await self._publish(begun, info, expired_at, suffix)
        expired = replace(begun, recording=replace(begun.recording, state=RecordingState.EXPIRED))
        await self._put(expired, begun, lock)
        log.info("recording_expired", call=f"{sidecar.source}/{sidecar.call}", leg=sidecar.leg, files=list(sizes))
        return expired

    async def _delete_record(self, sidecar: Sidecar, lock: Lock) -> None:
        """Delete a sidecar, including its call record, unless its recording could not be found."""
        if sidecar.recording.missing:
            missing = ", ".join(sidecar.recording.missing)
            self.done.problems.append(f"{sidecar.path}: kept, because its recording lacks the files {missing}")
            return
        if self.is_dry_run:
            self.done.records += 1
            return
        expired_at = sidecar.recording.record_expired_at
        if expired_at is None:
            expired_at = utc_now()
            noted = replace(sidecar, recording=replace(sidecar.recording, record_expired_at=expired_at))
            await self._put(noted, sidecar, lock)
            sidecar = noted
        if await self._is_held(sidecar):
            self.done.held += 1
            return
        # The event is published first: after the deletion, nothing would be left to publish it from.
        await self._publish(sidecar, sidecar.recording, expired_at, "/record")
        if await self._is_held_now(sidecar, lock):  # RabbitMQ may have been away for long
            self.done.held += 1
            return
        await self.archive.delete(sidecar.path)
        self.done.records += 1
        log.info("record_expired", call=f"{sidecar.source}/{sidecar.call}", leg=sidecar.leg, file=sidecar.path)

    async def _spare(self, sidecar: Sidecar, lock: Lock) -> None:
        """Undo `expiring` for a recording that is held now, if all of its files are still there."""
        was = sidecar.recording.was
        if sidecar.state is not RecordingState.EXPIRING or self.is_dry_run or was is None:
            return
        spared = replace(sidecar, recording=replace(sidecar.recording, state=was, was=None, expired_at=None, missing=None))
        missing = sidecar.recording.missing or ()  # before anything was deleted
        kept = [info for info in spared.contents if spared.file(info).rpartition("/")[2] not in missing]
        if all([await self.archive.has_file(spared, info) for info in kept]):
            await self._put(spared, sidecar, lock)

    async def _publish(self, sidecar: Sidecar, info: RecordingInfo, at: str, suffix: str) -> None:
        data: RecordingOutcome = {**info.event_data(), "reason": "retention"}
        has_schema = info.schema is not None  # an earlier release may have begun the deletion
        routing_key, event_id, body = recording_event(
            sidecar.job, RecordingState.EXPIRED, at, data, suffix=suffix, names_schema=has_schema
        )
        await self.publisher.publish_until_confirmed([Message(CALLS, routing_key, body, event_id, CLOUDEVENT)])
        metrics.RECORDINGS.labels(sidecar.source, RecordingState.EXPIRED).inc()

    async def _is_held(self, sidecar: Sidecar) -> bool:
        return await is_held(self.archive, CallKey(SourceName(sidecar.source), CallRef(sidecar.call)))

    async def _is_held_now(self, seen: Sidecar, lock: Lock) -> bool:
        """Check for a hold again before a deletion.

        Raises:
            BusyError: the lock was lost, so another run may have decided otherwise.
        """
        await confirm_unchanged(lock.confirm, self.archive, seen.path, seen)
        return await self._is_held(seen)

    async def _put(self, sidecar: Sidecar, seen: Sidecar, lock: Lock) -> None:
        await confirm_unchanged(lock.confirm, self.archive, sidecar.path, seen)
        await self.archive.put(sidecar.path, sidecar.encode())


async def try_to_expire(expiry: Expiry, path: str) -> bool:
    """Expire the recordings of a sidecar. A failure is added to the problems, and does not stop the run."""
    problems = []
    try:
        await expiry.expire(path)
    except* ArchiveUnavailableError as group:
        problems = [f"{path}: {error}" for error in leaf_errors(group)]
    except* (LookupError, TypeError, ValueError, AttributeError):  # the sidecar was edited
        log.exception("sidecar_damaged", path=path)
        problems = [f"{path}: the sidecar is damaged, see the log"]
    expiry.done.problems += problems
    return not problems
