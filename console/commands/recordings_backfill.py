"""`callfold recordings backfill`: queue a job for each recording that call records list but the archive lacks."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

import orjson

from console.commands.common import select_sources
from console.durations import ago
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLS_JOURNAL, RECORDINGS
from shared.archive.sidecar import Sidecar, day_of, is_overdue, path_of
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.call import derive
from shared.domain.call_event import SIDES, call_record
from shared.domain.file_names import file_names
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_types import Side
from shared.domain.recording import RecordingJob, RecordingState
from shared.domain.recording_plan import recording_jobs
from shared.domain.times import rfc3339
from shared.rebuild.published_calls import PublishedCall, Revisions, add_revision, read_published
from shared.rebuild.published_summary import ids_of, requested_place
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.runtime.store import open_store
from shared.streams.connections import wait_until_connected
from shared.streams.events import Event, read_event
from shared.streams.journal import journal_until_now

_PROGRESS_EVERY = 100


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    since: str
    source: str | None
    again: bool
    is_dry_run: bool


class _Result(StrEnum):
    """The result for one recording. The values are names in the JSON output."""

    REQUESTED = "asked_for"
    IN_PROGRESS = "on_their_way"
    EXPIRED = "expired"
    STORED = "stored"
    UNREADABLE = "with_a_sidecar_that_cannot_be_read"


_TEXTS = {
    _Result.REQUESTED: "requested",
    _Result.IN_PROGRESS: "in progress",
    _Result.EXPIRED: "expired",
    _Result.STORED: "stored",
    _Result.UNREADABLE: "with an unreadable sidecar",
}


@dataclass(slots=True)
class _Run:
    """The inputs of a run, and its results so far.

    Attributes:
        jobs: ids of the jobs that were checked.
        seen: paths of the sidecars that were checked.
    """

    settings: Settings
    request: BackfillRequest
    archive: Archive
    sources: Sources
    jobs: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    results: Counter[_Result] = field(default_factory=Counter)


async def backfill(settings: Settings, request: BackfillRequest, *, as_json: bool) -> int:
    """Queue a job for each missing recording of the published calls and of the archive's sidecars; returns the exit code."""
    run = _Run(settings, request, Archive(settings.archive_url), select_sources(settings, request.source))
    since = ago(request.since)
    publisher = create_publisher(settings, "backfill")
    async with AsyncExitStack() as closing:
        await closing.enter_async_context(background(publisher.run()))
        await wait_until_connected(publisher)
        for candidates in (_published(run, since), _archived(run, since)):
            async for job in candidates:
                message = await _message(run, job)
                if message is not None and not request.is_dry_run:
                    await publisher.publish_until_confirmed([message])
                if run.results.total() % _PROGRESS_EVERY == 0:
                    requested = run.results[_Result.REQUESTED]
                    sys.stderr.write(f"{run.results.total()} recordings checked, {requested} requested\n")
    sys.stdout.write(
        (orjson.dumps({str(result): count for result, count in run.results.items()}).decode() if as_json else _text(run)) + "\n"
    )
    return 0


def _text(run: _Run) -> str:
    text = ", ".join(f"{count} {_TEXTS[result]}" for result, count in sorted(run.results.items())) or "no recorded call"
    return f"{text} (dry run: no job was queued)" if run.request.is_dry_run else text


async def _message(run: _Run, job: RecordingJob) -> Message | None:
    """Build the message that requests a recording, or return None if the archive has it or its job is in progress."""
    if job.id in run.jobs:
        return None
    run.jobs.add(job.id)
    try:
        sidecar, path = await run.archive.sidecar_of(job)
    except ValueError:
        run.seen.add(path_of(job, "json"))
        run.results[_Result.UNREADABLE] += 1
        return None
    run.seen.add(path)
    existing = await _existing(run, sidecar) if sidecar else None
    if existing is not None:
        run.results[existing] += 1
        return None
    run.results[_Result.REQUESTED] += 1
    revision, last_round = sidecar.asked if sidecar else (0, 0)
    headers = {"round": last_round + 1 if revision >= job.revision else 1, "again": int(run.request.again)}
    return Message(RECORDINGS, RECORDINGS, job.encode(), uuid.uuid4().hex, headers=headers)


async def _existing(run: _Run, sidecar: Sidecar) -> _Result | None:
    """Return why a recording needs no job, or None if it is missing, its job was lost, or `--again` was given."""
    match sidecar.state:
        case RecordingState.WAITING | RecordingState.STORING:
            is_in_progress = not run.request.again and not is_overdue(sidecar, run.settings.recording_retry_seconds)
            return _Result.IN_PROGRESS if is_in_progress else None
        case RecordingState.EXPIRING | RecordingState.EXPIRED:
            return _Result.EXPIRED
        case RecordingState.STORED if not run.request.again and await run.archive.has_file(sidecar, sidecar.recording):
            return _Result.STORED
        case _:
            return None


async def _published(run: _Run, since: datetime) -> AsyncIterator[RecordingJob]:
    """Yield the jobs of the published calls. While Redis keeps a call, its RecordingURL is known as well."""
    published: dict[CallKey, PublishedCall] = {}
    async with journal_until_now(run.settings, since, stream=CALLS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            event = read_event(delivery) if delivery.routing_key.startswith("call.") else None
            if event is not None and (key := _key_of(event)).source in run.sources:
                add_revision(published, key, event["data"])
    expired: dict[CallKey, PublishedCall] = {}
    async with open_store(run.settings) as store:
        for key, known in published.items():
            state = await store.read(key)
            call = derive(key, state.facts, run.settings.policy) if state else None
            if state and call and call.closing:
                source = run.sources[key.source]
                record = call_record(call, state.revision or 1, source.country)
                for job in recording_jobs(call, record, source.record_legs, state.summary):
                    if job.state == RecordingState.WAITING:
                        yield replace(job, fetch=True)
            else:
                expired[key] = known
    for key, known in (await _with_first_revisions(run, expired)).items():
        for job in jobs_of(key, known, run.sources):
            yield job


async def _with_first_revisions(run: _Run, calls: dict[CallKey, PublishedCall]) -> dict[CallKey, PublishedCall]:
    """Read calls again from the start of the journal if their first revision, which settled the file names, was not read."""
    late = {key for key, known in calls.items() if known.first_revision > 1}
    if not late:
        return calls

    async def others(_: Revisions) -> None:
        return

    return calls | await read_published(run.settings, late, run.request.source, others)


def _key_of(event: Event) -> CallKey:
    return CallKey(SourceName(event["data"]["source"]), CallRef(event["subject"]))


def jobs_of(key: CallKey, known: PublishedCall, sources: Sources) -> list[RecordingJob]:
    """Build the jobs of a call from its published record alone: the download links come from the source's template."""
    record = known.record
    record_legs = sources[key.source].record_legs
    requested = {call_id: requested_place(places, record_legs) for call_id, places in known.places.items()}
    legs: list[tuple[Side, Event]] = [(side, record[side]) for side in SIDES if record[side]]
    legs += [("other", leg) for leg in record["other_legs"]]
    ids = ids_of(record)
    return [
        RecordingJob(
            source=key.source,
            call=key.call,
            request_id=record["request_id"],
            call_id=leg_ids.call_id,
            guid=leg_ids.guid,
            name=name,
            leg=side,
            fetch=True,
            state=RecordingState.WAITING,
            recording_url=None,
            started_at=known.filed_at,
            record=record,
        )
        for (side, leg), leg_ids, name in zip(legs, ids, file_names(ids, known.owners), strict=True)
        if leg["recorded"] and (place := requested.get(leg_ids.call_id)) is not None and place[1] == leg_ids.guid
    ]


async def _archived(run: _Run, since: datetime) -> AsyncIterator[RecordingJob]:
    """Yield the jobs of the archive's sidecars, for calls that are no longer in the journal."""
    first = day_of("", rfc3339(since))
    for source in run.sources:
        for day in await run.archive.days(source):
            if day.removeprefix(source) < first:
                continue
            async for entry in run.archive.entries(day):
                if entry.path.endswith(".json") and entry.path not in run.seen:
                    sidecar = await _readable(run, entry.path)
                    if sidecar is not None and sidecar.state not in {RecordingState.NOT_RECORDED, RecordingState.NOT_WANTED}:
                        yield sidecar.job


async def _readable(run: _Run, path: str) -> Sidecar | None:
    try:
        return await run.archive.sidecar(path)
    except ValueError:
        run.results[_Result.UNREADABLE] += 1
        return None
