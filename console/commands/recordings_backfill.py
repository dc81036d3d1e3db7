"""`callfold recordings backfill`: what the call records say was recorded, and the archive does not have, is asked for anew."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime

import orjson

from console.commands.common import wanted_sources
from console.durations import ago
from console.repair.published_calls import Published, Revisions, note, read_published
from console.repair.published_summary import ids_of
from console.streams.connections import wait_until_connected
from console.streams.events import Event, read_event
from console.streams.journal import journal_until_now
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLS_JOURNAL, RECORDINGS
from shared.archive.sidecar import Sidecar, day_of, is_overdue, path_of
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.call import derive
from shared.domain.call_event import SIDES, call_record
from shared.domain.facts import rfc3339
from shared.domain.file_names import file_names
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.recording import RecordingJob, RecordingState
from shared.domain.recording_plan import recording_jobs
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.runtime.store import open_store

_PROGRESS_EVERY = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be looked for."""

    since: str
    source: str | None
    again: bool
    is_dry_run: bool


@dataclass(slots=True)
class _Run:
    """What a run goes by, and what it has found."""

    settings: Settings
    wanted: Wanted
    archive: Archive
    sources: Sources
    jobs: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    found: Counter[str] = field(default_factory=Counter)


async def backfill(settings: Settings, wanted: Wanted, *, as_json: bool) -> int:
    """Look through the published calls and the archive, and put a job for each missing recording into the queue."""
    run = _Run(settings, wanted, Archive(settings.archive_url), wanted_sources(settings, wanted.source))
    since = ago(wanted.since)
    publisher = create_publisher(settings, "backfill")
    async with AsyncExitStack() as closing:
        await closing.enter_async_context(background(publisher.run()))
        await wait_until_connected(publisher)
        for candidates in (_published(run, since), _archived(run, since)):
            async for job in candidates:
                message = await _message(run, job)
                if message is not None and not wanted.is_dry_run:
                    await publisher.publish_until_confirmed([message])
                if run.found.total() % _PROGRESS_EVERY == 0:
                    sys.stderr.write(f"{run.found.total()} recordings looked at, {run.found['asked for']} asked for\n")
    text = ", ".join(f"{count} {what}" for what, count in sorted(run.found.items())) or "no recorded call"
    told = orjson.dumps({what.replace(" ", "_"): count for what, count in run.found.items()}).decode()
    sys.stdout.write((told if as_json else text + (" (dry run: nothing was done)" if wanted.is_dry_run else "")) + "\n")
    return 0


async def _message(run: _Run, job: RecordingJob) -> Message | None:
    """Write the message that asks for a recording, unless the archive has it or it is on its way."""
    if job.id in run.jobs:
        return None
    run.jobs.add(job.id)
    try:
        sidecar, path = await run.archive.sidecar_of(job)
    except ValueError:
        run.seen.add(path_of(job, "json"))
        run.found["with a sidecar that cannot be read"] += 1
        return None
    run.seen.add(path)
    has_it = await _what_of(run, sidecar) if sidecar else None
    if has_it is not None:
        run.found[has_it] += 1
        return None
    run.found["asked for"] += 1
    asked = sidecar.asked if sidecar else (0, 0)
    headers = {"round": asked[1] + 1 if asked[0] >= job.revision else 1, "again": int(run.wanted.again)}
    return Message(RECORDINGS, RECORDINGS, job.encode(), uuid.uuid4().hex, headers=headers)


async def _what_of(run: _Run, sidecar: Sidecar) -> str | None:
    """Say why a recording need not be asked for, or None: it is missing, or its job was lost, or it is to be compared."""
    match sidecar.state:
        case RecordingState.WAITING | RecordingState.STORING:
            is_coming = not run.wanted.again and not is_overdue(sidecar, run.settings.recording_retry_seconds)
            return "on their way" if is_coming else None
        case RecordingState.EXPIRING | RecordingState.EXPIRED:
            return "expired"
        case RecordingState.STORED if not run.wanted.again and await run.archive.has_file(sidecar, sidecar.recording):
            return "stored"
        case _:
            return None


async def _published(run: _Run, since: datetime) -> AsyncIterator[RecordingJob]:
    """Find what the published calls say was recorded. While Redis keeps a call, its RecordingURL is known as well."""
    found: dict[CallKey, Published] = {}
    async with journal_until_now(run.settings, since, stream=CALLS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            event = read_event(delivery) if delivery.routing_key.startswith("call.") else None
            if event is not None and (key := _key_of(event)).source in run.sources:
                note(found, key, event["data"])
    forgotten: dict[CallKey, Published] = {}
    async with open_store(run.settings) as store:
        for key, known in found.items():
            state = await store.read(key)
            call = derive(key, state.facts, run.settings.policy) if state else None
            if state and call and call.closing:
                told = call_record(call, state.revision or 1)
                for job in recording_jobs(call, told, run.sources[key.source].record_legs, state.summary):
                    if job.state == RecordingState.WAITING:
                        yield replace(job, fetch=True)
            else:
                forgotten[key] = known
    for key, known in (await _from_their_first(run, forgotten)).items():
        for job in jobs_of(key, known, run.sources):
            yield job


async def _from_their_first(run: _Run, calls: dict[CallKey, Published]) -> dict[CallKey, Published]:
    """Read calls whose first revision is older than what was read again: it settled how their files are named."""
    late = {key for key, known in calls.items() if known.filed_by > 1}
    if not late:
        return calls

    async def others(_: Revisions) -> None:
        return

    return calls | await read_published(run.settings, late, run.wanted.source, others)


def _key_of(event: Event) -> CallKey:
    return CallKey(SourceName(event["data"]["source"]), CallRef(event["subject"]))


def jobs_of(key: CallKey, known: Published, sources: Sources) -> list[RecordingJob]:
    """Write the jobs of a call of which only the published record is left: their links come from the source's template."""
    record = known.record
    wanted = {*sources[key.source].record_legs, "other"}
    told: list[tuple[str, Event]] = [(side, record[side]) for side in SIDES if record[side]]
    told += [("other", leg) for leg in record["other_legs"]]
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
        for (side, leg), leg_ids, name in zip(told, ids, file_names(ids, known.owners), strict=True)
        if leg["recorded"] and side in wanted
    ]


async def _archived(run: _Run, since: datetime) -> AsyncIterator[RecordingJob]:
    """Find what the archive itself knows it does not have: older than the journal, or lost from it."""
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
        run.found["with a sidecar that cannot be read"] += 1
        return None
