"""Recording jobs: fetch, check, archive, tell, then ack. A try that failed waits in a queue of the broker, not in memory."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import aiohttp

from shared import metrics
from shared.broker import Consumer, Delivery, HeaderValue, Message, Publisher
from shared.clock import utc_now
from shared.crash import crash_point
from shared.ids import SourceName
from shared.log import get_logger
from shared.records import CLOUDEVENT, RecordingJob, recording_event
from shared.settings import Settings
from shared.sources import Sources
from shared.topology import CALLS, DETAIL_CHARACTERS, RECORDINGS_DEAD, retry_queue
from worker.archive import Archive, ArchiveUnavailableError, path_of
from worker.fetch import FINAL, FetchError, Reason, client, fetch, recording_link

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Try:
    """One try of a job: which it is (from 1), and when the job was first seen."""

    job: RecordingJob
    number: int
    first_seen: str
    body: bytes


class Recordings:
    """Works off the queue `recordings`, so many jobs at a time."""

    def __init__(self, publisher: Publisher, archive: Archive, sources: Sources, settings: Settings) -> None:
        self._publisher = publisher
        self._archive = archive
        self._sources = sources
        self._schedule_s = settings.recording_retry_seconds
        self._max_bytes = settings.recording_max_bytes
        self._free = asyncio.Semaphore(settings.recording_concurrency)
        self._at_work: set[asyncio.Task[None]] = set()

    async def run(self, consumer: Consumer) -> NoReturn:
        """Work for as long as the process lives. Run it as a task; a job that fails by a bug of ours ends it."""
        async with client() as session, asyncio.TaskGroup() as group:
            while True:
                await self._free.acquire()
                delivery = await consumer.get()
                task = group.create_task(self._work(session, delivery))
                self._at_work.add(task)
                task.add_done_callback(self._at_work.discard)

    async def finish(self) -> None:
        """Wait for the jobs at work; what is cut off is not acked and comes again."""
        if self._at_work:
            await asyncio.wait(self._at_work)

    async def _work(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        try:
            await self._handle(session, delivery)
            crash_point("recording.before_ack")
            await delivery.ack()
        finally:
            self._free.release()

    async def _handle(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        first_seen = str(delivery.headers.get("first_seen") or utc_now())
        try:
            job = RecordingJob.decode(delivery.body)
        except ValueError as error:
            await self._bury(delivery.body, "undecodable", str(error), first_seen)
            return
        number = int(str(delivery.headers.get("attempts", 0))) + 1
        attempt = _Try(job, number, first_seen, delivery.body)
        try:
            await self._try(session, attempt)
        except FetchError as error:
            await self._failed(attempt, error.reason, error.detail)
        except ArchiveUnavailableError as error:
            await self._failed(attempt, Reason.ARCHIVE_UNAVAILABLE, str(error))

    async def _try(self, session: aiohttp.ClientSession, attempt: _Try) -> None:
        job = attempt.job
        if not job.fetch:
            await self._archive.put_sidecar(job, {"state": "not_recorded"})
            return
        source = self._sources.get(SourceName(job.source))
        if source is None:
            raise FetchError(Reason.UNKNOWN_SOURCE, f"no source {job.source} is configured")
        kept = await self._archive.stored(job)
        if kept is not None:  # this job comes again: what was told of it once stays true
            await self._tell(job, "stored", kept)
            return
        async with fetch(session, recording_link(source, job), max_bytes=self._max_bytes) as recording:
            uri = await self._archive.put(path_of(job, "wav"), recording.file)
            told: dict[str, object] = {
                "uri": uri,
                "bytes": recording.bytes,
                "sha256": recording.sha256,
                "seconds": recording.audio.seconds,
                "attempts": attempt.number,
                "reason": None,
            }
        told["at"] = utc_now()
        await self._archive.put_sidecar(job, told | {"state": "stored"})
        crash_point("recording.archived")
        await self._tell(job, "stored", told)

    async def _failed(self, attempt: _Try, reason: Reason, detail: str) -> None:
        """Put the job where it waits for its next try, or end it."""
        is_last = reason in FINAL or attempt.number > len(self._schedule_s)
        log.warning("recording_not_had", id=attempt.job.id, attempt=attempt.number, reason=reason, detail=detail, last=is_last)
        if not is_last:
            headers: dict[str, HeaderValue] = {"attempts": attempt.number, "first_seen": attempt.first_seen}
            queue = retry_queue(self._schedule_s[attempt.number - 1])
            await self._publisher.publish_patiently([Message("", queue, attempt.body, uuid.uuid4().hex, headers=headers)])
            return
        told: dict[str, object] = {
            "uri": None,
            "bytes": None,
            "sha256": None,
            "seconds": None,
            "attempts": attempt.number,
            "reason": reason,
            "at": utc_now(),
        }
        if attempt.job.fetch:
            await self._last_sidecar(attempt.job, told)
            await self._tell(attempt.job, "failed", told)
        await self._bury(attempt.body, reason, detail, attempt.first_seen)

    async def _last_sidecar(self, job: RecordingJob, told: Mapping[str, object]) -> None:
        try:
            await self._archive.put_sidecar(job, {**told, "state": "failed"})
        except ArchiveUnavailableError as error:
            # The job itself goes to the dead letters with its record, from where it can be redriven.
            log.warning("sidecar_not_written", id=job.id, detail=str(error))

    async def _tell(self, job: RecordingJob, result: str, told: Mapping[str, object]) -> None:
        data = {name: value for name, value in told.items() if name not in {"at", "state"}}
        routing_key, event_id, body = recording_event(job, result, str(told["at"]), data)
        await self._publisher.publish_patiently([Message(CALLS, routing_key, body, event_id, CLOUDEVENT)])
        metrics.RECORDINGS.labels(job.source, result).inc()
        log.info("recording", id=event_id, attempts=told["attempts"], reason=told["reason"], bytes=told["bytes"])

    async def _bury(self, body: bytes, reason: str, detail: str, first_seen: str) -> None:
        headers = {"reason": reason, "detail": detail[:DETAIL_CHARACTERS], "first_seen": first_seen}
        metrics.DEAD_LETTERS.labels(RECORDINGS_DEAD, reason).inc()
        await self._publisher.publish_patiently([Message("", RECORDINGS_DEAD, body, uuid.uuid4().hex, headers=headers)])
