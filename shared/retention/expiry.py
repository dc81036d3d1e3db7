"""The end of one leg's recording: deleted, told as `recording.expired`, noted in its sidecar; or kept, and why.

Nobody else works on it meanwhile (`lock.py`), and it is safe to be cut off anywhere: the sidecar says `expiring` before
anything is deleted, and `expired` once the event is confirmed. A repeat repeats the event's id and body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shared import metrics
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLS
from shared.archive.archive import Archive
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.sidecar import HASH_DIGITS, Sidecar, Told, fingerprint_of, path_of
from shared.clock import utc_now
from shared.domain.call_event import CLOUDEVENT, recording_event
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.recording import RECORDING_FIELDS, RecordingState
from shared.log import get_logger
from shared.retention.holds import is_held
from shared.retention.recording_lock import BusyError, Lock, confirm_unchanged, locked
from shared.runtime.process import leaves
from shared.state.store import Store

log = get_logger(__name__)

Sizes = Mapping[str, int | None]
"""Files of recordings, None where one is missing."""


@dataclass(slots=True)
class Expired:
    """What a run did, or would do.

    Attributes:
        held: legs, not recordings, that a hold keeps; `waiting`: whose recording is on its way, or in work, left to a later run.
        problems: what could not be done, in sentences.
    """

    recordings: int = 0
    records: int = 0
    bytes: int = 0
    held: int = 0
    waiting: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Expiry:
    """Deletes recordings of calls that started before a time (RFC 3339); `done` counts.

    Attributes:
        with_records: delete the sidecars as well; otherwise they stay, and say `expired`.
    """

    archive: Archive
    publisher: Publisher
    store: Store
    before: str
    with_records: bool
    is_dry_run: bool
    done: Expired

    async def of(self, path: str) -> None:
        """Bring the recording of a sidecar to its end, if it is old enough.

        Raises:
            ArchiveUnavailableError: something could not be read, written or deleted; the next run goes on with it.
        """
        sidecar = await self._read(path)
        if sidecar is None:
            return
        try:
            async with locked(self.store, path_of(sidecar.job, "json")) as lock:
                # As it is now that nobody else writes it.
                sidecar = await self._read(path)
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
        is_begun = sidecar.state is RecordingState.EXPIRING and sidecar.recording.get("uri")
        told = [*([sidecar.recording] if is_begun else []), *sidecar.contents]
        sizes = {sidecar.file(words): await self.archive.size(sidecar.file(words)) for words in told}
        there = [words for words in told if sizes[sidecar.file(words)] is not None]
        if there or sidecar.state is RecordingState.EXPIRING:
            expired = self._would_delete(sidecar, sizes) if self.is_dry_run else await self._delete(sidecar, told, sizes, lock)
            if expired is None:
                return
            sidecar = expired
        elif told:
            self.done.problems.append(f"{sidecar.path}: its recording is missing, see `callfold recordings verify`")
            return
        if self.with_records:
            await self._delete_record(sidecar, lock)

    def _would_delete(self, sidecar: Sidecar, sizes: Sizes) -> Sidecar:
        for size in sizes.values():
            self._count(size)
        return sidecar

    def _count(self, size: int | None) -> None:
        self.done.recordings += size is not None
        self.done.bytes += size or 0

    async def _delete(self, sidecar: Sidecar, told: list[Told], sizes: Sizes, lock: Lock) -> Sidecar | None:
        """Delete the files of recordings, and tell it; None where a hold was placed meanwhile."""
        begun = sidecar
        if sidecar.state is not RecordingState.EXPIRING:
            note: dict[str, object] = {"state": RecordingState.EXPIRING, "was": sidecar.state, "expired_at": utc_now()}
            if missing := [path.rpartition("/")[2] for path, size in sizes.items() if size is None]:
                note["missing"] = missing
            begun = replace(sidecar, recording={**sidecar.recording, **note})
            await self._put(begun, sidecar, lock)
        for path, size in sizes.items():
            # A hold placed from now on finds this sidecar expiring, and says so; one placed before is found here.
            if await self._is_held_now(begun, lock):
                await self._spare(begun, lock)
                self.done.held += 1
                return None
            await lock.confirm()  # had another run spared it since we looked, its hold would not have been told of this
            await self.archive.delete(path)
            self._count(size)
        at = str(begun.recording["expired_at"])
        for words in told:
            is_first = words["uri"] == begun.recording.get("uri")
            await self._tell(begun, words, at, "" if is_first else f"/{fingerprint_of(words)[:HASH_DIGITS]}")
        expired = replace(begun, recording={**begun.recording, "state": RecordingState.EXPIRED})
        await self._put(expired, begun, lock)
        log.info("expired", call=f"{sidecar.source}/{sidecar.call}", leg=sidecar.leg, files=list(sizes))
        return expired

    async def _delete_record(self, sidecar: Sidecar, lock: Lock) -> None:
        """Delete a sidecar, the call record in it included, unless its recording could not be found."""
        if sidecar.recording.get("missing"):
            self.done.problems.append(f"{sidecar.path}: kept, since {sidecar.recording['missing']} could not be found")
            return
        if self.is_dry_run:
            self.done.records += 1
            return
        if "record_expired_at" not in sidecar.recording:
            noted = replace(sidecar, recording={**sidecar.recording, "record_expired_at": utc_now()})
            await self._put(noted, sidecar, lock)
            sidecar = noted
        if await self._is_held(sidecar):
            self.done.held += 1
            return
        # The last trace: told before it goes, since nothing would be left to tell it by.
        await self._tell(sidecar, sidecar.recording, str(sidecar.recording["record_expired_at"]), "/record")
        if await self._is_held_now(sidecar, lock):  # the broker can have been away for long
            self.done.held += 1
            return
        await self.archive.delete(sidecar.path)
        self.done.records += 1
        log.info("record_expired", call=f"{sidecar.source}/{sidecar.call}", leg=sidecar.leg, file=sidecar.path)

    async def _spare(self, sidecar: Sidecar, lock: Lock) -> None:
        """Let a recording be that was about to be deleted when a hold came, if all of it is still there."""
        if sidecar.state is not RecordingState.EXPIRING or self.is_dry_run or "was" not in sidecar.recording:
            return
        added = {"was", "expired_at", "missing"}
        before = {name: value for name, value in sidecar.recording.items() if name not in added}
        spared = replace(sidecar, recording=before | {"state": sidecar.recording["was"]})
        missing = sidecar.recording.get("missing", ())  # it was before anything was deleted
        kept = [words for words in spared.contents if spared.file(words).rpartition("/")[2] not in missing]
        if all([await self.archive.has(spared, words) for words in kept]):
            await self._put(spared, sidecar, lock)

    async def _tell(self, sidecar: Sidecar, words: Told, at: str, suffix: str) -> None:
        data: Mapping[str, object] = {name: words.get(name) for name in RECORDING_FIELDS} | {"reason": "retention"}
        routing_key, event_id, body = recording_event(sidecar.job, RecordingState.EXPIRED, at, data, suffix=suffix)
        await self.publisher.publish_until_confirmed([Message(CALLS, routing_key, body, event_id, CLOUDEVENT)])
        metrics.RECORDINGS.labels(sidecar.source, RecordingState.EXPIRED).inc()

    async def _is_held(self, sidecar: Sidecar) -> bool:
        return await is_held(self.archive, CallKey(SourceName(sidecar.source), CallRef(sidecar.call)))

    async def _is_held_now(self, seen: Sidecar, lock: Lock) -> bool:
        """Look once more before a deletion.

        Raises:
            BusyError: another has had the lock, and may have decided otherwise.
        """
        await confirm_unchanged(lock.confirm, self.archive, seen.path, seen)
        return await self._is_held(seen)

    async def _put(self, sidecar: Sidecar, seen: Sidecar, lock: Lock) -> None:
        await confirm_unchanged(lock.confirm, self.archive, sidecar.path, seen)
        await self.archive.put(sidecar.path, sidecar.encode())


async def attempted(expiry: Expiry, path: str) -> bool:
    """Bring the recording of a sidecar to its end; what cannot be done is noted, and does not keep others from theirs."""
    problems = []
    try:
        await expiry.of(path)
    except* ArchiveUnavailableError as group:
        problems = [f"{path}: {error}" for error in leaves(group)]
    except* (LookupError, TypeError, ValueError, AttributeError):  # a sidecar that somebody has damaged
        log.exception("sidecar_not_understood", path=path)
        problems = [f"{path}: the sidecar cannot be understood"]
    expiry.done.problems += problems
    return not problems
