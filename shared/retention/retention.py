"""Retention: deletes recordings older than the retention time unless they are held, and publishes `recording.expired`.

A run goes day by day. Most sidecars of old days have no recording left, and are not read. While a day is in progress, a mark in
the archive says so. After a crash, the next run reads all sidecars of a marked day.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.amqp.publisher import Publisher
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.refused import (
    RefusedFile,
    decode_refused,
    delete_refused,
    delete_undescribed,
    directory_of,
    paths_of_refused,
)
from shared.archive.sidecar import ENCRYPTED_SUFFIX, day_of
from shared.archive.storage import Archive
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.times import rfc3339
from shared.errors import BusyError, UnavailableError, leaf_errors
from shared.log import get_logger
from shared.retention.expiry import Expired, Expiry, try_to_expire
from shared.retention.holds import is_held
from shared.retention.recording_lock import Lock, locked
from shared.runtime.audit import Action, Audit
from shared.state.store import Store

log = get_logger(__name__)

_AUDIO = ".wav"
_MAX_CLOCK_DIFFERENCE_S = 3600
# After as many failures in a row, the archive counts as unavailable.
_GIVE_UP_AFTER = 10
_YIELD_EVERY = 200


class ClockError(UnavailableError):
    """The clocks of this machine and of Redis differ, so the age of a recording is uncertain."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Deletes recordings of calls that started before a time.

    Attributes:
        with_records: delete the sidecars too; otherwise they stay and say `expired`.
        done: what this run did, even if it is interrupted.
    """

    archive: Archive
    publisher: Publisher
    store: Store
    before: datetime
    with_records: bool = False
    is_dry_run: bool = False
    done: Expired = field(default_factory=Expired)

    async def run(self, sources: Iterable[str], progress: Callable[[str], object]) -> Expired:
        """Process each day of the given sources; `progress` is called after each day. A source that fails stops no other.

        Raises:
            ArchiveUnavailableError: a source cannot be listed, or many of its deletions failed in a row.
            ClockError: the clocks differ.
        """
        await self._compare_clocks()
        before = rfc3339(self.before)
        expiry = Expiry(self.archive, self.publisher, self.store, before, self.with_records, self.is_dry_run, self.done)
        failures: list[ArchiveUnavailableError] = []
        for source in sources:
            try:
                await self._source(source, expiry, progress)
            except ArchiveUnavailableError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return self.done

    async def _source(self, source: str, expiry: Expiry, progress: Callable[[str], object]) -> None:
        marks = await self._marks(source)
        for day in await self.archive.days(source):
            if day.removeprefix(source) <= day_of("", expiry.before):
                await self._day(source, day, expiry, marks.get(_mark(source, day), []))
                progress(day)
        await self._expire_refused(source, expiry.before)

    async def _expire_refused(self, source: str, before: str) -> None:
        """Delete the refused files of calls that started before a time. They have no event, because none was stored."""
        async for path in paths_of_refused(self.archive, source):
            try:
                await self._expire_description(path, before)
            except* BusyError:
                self.done.waiting += 1
            except* (ArchiveUnavailableError, ValueError) as group:
                self.done.problems += [f"{path}: {error}" for error in leaf_errors(group)]
        if not self.is_dry_run:
            try:
                await delete_undescribed(self.archive, source, self.before)
            except ArchiveUnavailableError as error:
                self.done.problems.append(f"{directory_of(source)}: {error}")

    async def _expire_description(self, path: str, before: str) -> None:
        """Delete the refused file of a description.

        Raises:
            ArchiveUnavailableError: something could not be read or deleted.
            BusyError: its recording is locked.
            ValueError: the description is damaged.
        """
        body = await self.archive.read(path)
        refused = None if body is None else decode_refused(body, path)
        if refused is not None and refused.started_at < before:
            async with locked(self.store, refused.lock) as lock:
                await self._expire_one_refused(refused, lock)

    async def _expire_one_refused(self, refused: RefusedFile, lock: Lock) -> None:
        if await is_held(self.archive, CallKey(SourceName(refused.source), CallRef(refused.call))):
            self.done.held += 1
            return
        if not self.is_dry_run:
            await lock.confirm()
            await delete_refused(self.archive, refused)
            log.info("refused_file_expired", call=f"{refused.source}/{refused.call}", leg=refused.leg, file=refused.file)
        self.done.refused += 1

    async def _compare_clocks(self) -> None:
        theirs, ours = await self.store.now(), datetime.now(UTC)
        if abs((theirs - ours).total_seconds()) > _MAX_CLOCK_DIFFERENCE_S:
            clocks = f"This machine's clock says {ours:%Y-%m-%d %H:%M}, that of Redis {theirs:%Y-%m-%d %H:%M}"
            raise ClockError(f"{clocks}: nothing is deleted. Synchronize the clocks.")

    async def _marks(self, source: str) -> dict[str, list[str]]:
        marks: dict[str, list[str]] = {}
        async for entry in self.archive.entries(f"{source}/retention"):
            marks.setdefault(entry.path.partition(".")[0], []).append(entry.path)
        return marks

    async def _day(self, source: str, day: str, expiry: Expiry, marks: list[str]) -> None:
        paths = await self._candidates(day, is_whole=self.with_records or bool(marks))
        if not paths:
            return
        mark = f"{_mark(source, day)}.{uuid.uuid4().hex}.json"
        if not self.is_dry_run:
            await self.archive.put(mark, b"{}")
        is_done = await self._expire_all(paths, expiry)
        if not self.is_dry_run:
            # After a failure one mark stays, so that the next run reads the whole day again.
            for path in [mark, *marks] if is_done else [mark] if marks else []:
                await self.archive.delete(path)

    async def _candidates(self, day: str, *, is_whole: bool) -> list[str]:
        """List the sidecars of a day that must be read: those that still have a recording, or all."""
        sidecars, stems = [], set()
        count = 0
        async for entry in self.archive.entries(day):
            count += 1
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            if entry.path.endswith(".json"):
                sidecars.append(entry.path)
                continue
            stem = entry.path.removesuffix(ENCRYPTED_SUFFIX).removesuffix(_AUDIO)
            stems |= {stem, stem.rpartition(".")[0]}  # of <guid>.wav, or of <guid>.<digits>.wav
        return sorted(path for path in sidecars if is_whole or path.removesuffix(".json") in stems)

    async def _expire_all(self, paths: list[str], expiry: Expiry) -> bool:
        """Expire recordings; return False if the next run must read their sidecars again."""
        before, failures = len(expiry.done.problems), 0
        for path in paths:
            failures = 0 if await try_to_expire(expiry, path) else failures + 1
            if failures == _GIVE_UP_AFTER:
                raise ArchiveUnavailableError(expiry.done.problems[-1])
        return len(expiry.done.problems) == before


@asynccontextmanager
async def audited(
    audit: Audit, who: str, done: Expired, request: Mapping[str, object], *, source: str | None = None
) -> AsyncIterator[None]:
    """Audit a run before it begins, and what it did when it ends, even if it is interrupted.

    Raises:
        BrokerUnavailableError: the run cannot be audited, so nothing may be deleted.
    """

    def deleted() -> Mapping[str, object]:
        refused = {"refused": done.refused} if done.refused else {}
        return {"deleted": {"recordings": done.recordings, "records": done.records, "problems": len(done.problems)} | refused}

    async with audit.record_run(Action.DELETION, who, deleted, source=source, wanted=dict(request)):
        yield


def _mark(source: str, day: str) -> str:
    return f"{source}/retention/" + day.removeprefix(f"{source}/monitor/").replace("/", "-")
