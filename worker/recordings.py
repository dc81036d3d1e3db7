"""Recording jobs: fetch, check, file, tell, then ack. A try that failed waits in a queue of the broker, not in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import orjson

from shared import metrics
from shared.archive import Archive
from shared.broker import Consumer, Delivery, Message, Publisher
from shared.clock import utc_now
from shared.crash import crash_point
from shared.dead_letters import LetterReason
from shared.guarded import ArchiveUnavailableError
from shared.ids import SourceName
from shared.lock import BusyError, Lock, locked
from shared.log import get_logger
from shared.recording import RECORDING_TOLD, RecordingJob, RecordingState
from shared.records import CLOUDEVENT, recording_event
from shared.settings import Settings
from shared.sidecar import Sidecar, Told, path_of
from shared.sources import Sources
from shared.store import Store, patiently
from shared.topology import CALLS, RECORDINGS_DEAD
from worker.attempt import Attempt, dead_letter, suffix_of
from worker.fetch import Client, Limits, turns_of
from worker.filing import Filing
from worker.handover import Kept, has_ended
from worker.links import recording_link
from worker.partial import forget, make_room, partial
from worker.reasons import FetchError, Reason, Result, next_wait_s, result_of
from worker.storing import event_suffix

log = get_logger(__name__)

# Longer than a message that was not acked can take to come again.
_END_NOTED_S = 2 * 86400.0


class Recordings:
    """Works off the queue `recordings`, so many jobs at a time, each recording by one worker at a time."""

    def __init__(self, publisher: Publisher, store: Store, archive: Archive, sources: Sources, settings: Settings) -> None:
        self._publisher = publisher
        self._store = store
        self._sources = sources
        self._schedule_s = settings.recording_retry_seconds
        self._directory: Path = settings.recording_dir
        self._kept_bytes = settings.recording_kept_bytes
        self._filing = Filing(archive, settings.recording_dir)
        self._limits = Limits.of(settings)
        self._ack_s = settings.recording_ack_seconds
        self._clients: dict[SourceName, Client] = {}
        self._free = asyncio.Semaphore(settings.recording_concurrency)
        self._at_work: set[asyncio.Task[None]] = set()

    async def run(self, consumer: Consumer) -> NoReturn:
        """Work for as long as the process lives. Run it as a task; a job that fails by a bug of ours is a dead letter."""
        async with AsyncExitStack() as closing, asyncio.TaskGroup() as group:
            turns = turns_of(self._sources.values())
            for name, source in self._sources.items():
                if source.recording_origin:
                    self._clients[name] = await closing.enter_async_context(Client(source, self._limits, turns[name]))
            while True:
                await self._free.acquire()
                delivery = await consumer.get()
                task = group.create_task(self._work(delivery))
                self._at_work.add(task)
                task.add_done_callback(self._at_work.discard)

    async def finish(self) -> None:
        """Wait for the jobs at work; what is cut off is not acked and comes again."""
        if self._at_work:
            await asyncio.wait(self._at_work)

    async def _work(self, delivery: Delivery) -> None:
        kept = Kept(delivery)
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._see_through(kept))
                await asyncio.wait([work], timeout=self._ack_s)
                if copy := kept.copy(self._schedule_s[0]):
                    await self._publisher.publish_patiently([copy])
                    await kept.hand_over()
                    self._free.release()
            if not kept.is_handed_over:
                crash_point("recording.before_ack")
                await delivery.ack()
        finally:
            if not kept.is_handed_over:
                self._free.release()

    async def _see_through(self, kept: Kept) -> None:
        try:
            await self._handle(kept)
        except Exception as error:  # a fault of ours in one job must not hold up the others
            log.exception("recording_job_failed")
            detail = f"{type(error).__name__}: see the worker's log"
            await self._bury(dead_letter(kept.delivery.body, LetterReason.JOB_FAILED, detail, first_seen=utc_now()))
        finally:
            kept.close()

    async def _handle(self, kept: Kept) -> None:
        delivery = kept.delivery
        try:
            attempt = kept.attempt = Attempt.of(delivery.body, delivery.headers)
        except ValueError as error:
            await self._bury(dead_letter(delivery.body, LetterReason.UNDECODABLE, str(error), first_seen=utc_now()))
            return
        try:
            async with locked(self._store, path_of(attempt.job, "json")) as lock:
                if not await has_ended(attempt, self._store):
                    await self._try(attempt, lock)
                await kept.end(self._store)
        except* BusyError:
            # A copy of this job is at work, and what comes of it will be seen; or the source has enough to do.
            if kept.close():
                await self._publisher.publish_patiently([attempt.retry(self._schedule_s[0], tried=False)])

    async def _try(self, attempt: Attempt, lock: Lock) -> None:
        sidecar: Sidecar | None = None
        try:
            found = await self._filing.look(attempt.job)
            sidecar = found.sidecar
            if attempt.job.fetch and not await self._is_over(attempt, sidecar):
                attempt.check_redelivered()
                await self._fetch(attempt, lock)
                return
            if sidecar != found.before:
                await lock.confirm()
                await self._filing.put_sidecar(sidecar)
            if attempt.job.fetch:
                await self._repeat(attempt, sidecar)
                forget(self._directory, attempt.job.id)
        except FetchError as error:
            await self._not_had(attempt, sidecar, lock, error)
        except ArchiveUnavailableError as error:
            await self._not_had(attempt, sidecar, lock, FetchError(Reason.ARCHIVE_UNAVAILABLE, str(error)))
        except BusyError:
            raise
        except Exception as error:
            log.exception("recording_try_failed", id=attempt.job.id)
            detail = f"{type(error).__name__}: see the worker's log"
            await self._not_had(attempt, sidecar, lock, FetchError(Reason.INTERNAL_ERROR, detail))

    async def _is_over(self, attempt: Attempt, sidecar: Sidecar) -> bool:
        """Tell whether this asking for the recording, or a later one, has come to its end."""
        if sidecar.state in {RecordingState.EXPIRING, RecordingState.EXPIRED}:
            return True
        if sidecar.state is RecordingState.STORED:
            return not attempt.is_again and await self._filing.is_there(sidecar)
        return sidecar.state in {RecordingState.ABSENT, RecordingState.FAILED} and sidecar.asked >= attempt.asked

    async def _fetch(self, attempt: Attempt, lock: Lock) -> None:
        job = attempt.job
        source = self._sources.get(SourceName(job.source))
        if source is None:
            raise FetchError(Reason.UNKNOWN_SOURCE, f"no source {job.source} is configured")
        link = recording_link(source, job)
        client = self._clients[source.name]
        # A part that stays on the disk is not sealed, so a source whose recordings are has none.
        try:
            with partial(self._directory, job.id, is_kept=source.archive_recipient is None, link=link) as part:
                async with client.fetch(link, part, seen_bytes=attempt.seen_bytes) as recording:
                    filed = await self._filing.store(attempt, recording, source.archive_recipient, lock.confirm)
        except OSError as error:
            raise FetchError(Reason.NO_SPACE, f"CALLFOLD_RECORDING_DIR: {error.strerror or type(error).__name__}") from error
        crash_point("recording.archived")
        await self._tell(job, Result.STORED, filed.words, filed.suffix)
        forget(self._directory, job.id)

    async def _repeat(self, attempt: Attempt, sidecar: Sidecar) -> None:
        """Tell again what became of a recording: who told it first may have died before the broker confirmed."""
        told = sidecar.recording
        if sidecar.state is RecordingState.STORED:
            await self._tell(attempt.job, Result.STORED, told, event_suffix(told))
        elif sidecar.state in {RecordingState.ABSENT, RecordingState.FAILED}:
            await self._tell(attempt.job, Result(sidecar.state), told, suffix_of(sidecar.asked))
            if sidecar.asked == attempt.asked:
                await self._bury(attempt.dead_letter(str(told["reason"]), "told again: see the sidecar"))

    async def _not_had(self, attempt: Attempt, sidecar: Sidecar | None, lock: Lock, error: FetchError) -> None:
        """Put the job where it waits for its next try, or end it."""
        metrics.RECORDING_TRIES.labels(attempt.job.source, error.reason).inc()
        reasons = [*attempt.reasons, error.reason]
        wait_s = next_wait_s(error.reason, attempt.number, self._schedule_s, same=reasons.count(error.reason))
        detail = {"attempt": attempt.number, "reason": error.reason, "detail": error.detail, "next_s": wait_s}
        log.warning("recording_not_had", id=attempt.job.id, **detail)
        if wait_s is not None:
            await asyncio.to_thread(make_room, self._directory, self._kept_bytes)
            if sidecar is not None and sidecar.state is RecordingState.WAITING:
                told = {"state": RecordingState.WAITING, "reason": error.reason, "attempts": attempt.number, "at": utc_now()}
                await self._note(attempt, sidecar, lock, told)
            retry = attempt.retry(wait_s, tried=True, seen_bytes=error.size, reason=error.reason)
            await self._publisher.publish_patiently([retry])
            return
        # A recording that is stored stays so, whatever a second look at it brings.
        if attempt.job.fetch and not (sidecar and sidecar.state is RecordingState.STORED):
            ended = await self._end(attempt, result_of(reasons), error.reason)
            if sidecar is not None:
                await self._note(attempt, sidecar, lock, ended)
            await self._tell(attempt.job, Result(ended["state"]), ended, suffix_of(attempt.asked))
        await self._bury(attempt.dead_letter(error.reason, error.detail))
        forget(self._directory, attempt.job.id)

    async def _end(self, attempt: Attempt, result: Result, reason: str) -> Told:
        """Put an end into words: those of who ended it first, who may have died, and may have had no archive to note them in."""
        told = dict.fromkeys(RECORDING_TOLD) | {
            "attempts": attempt.number,
            "reason": reason,
            "at": utc_now(),
            "state": RecordingState(result),
        }
        name = f"{attempt.job.id}{suffix_of(attempt.asked)}"
        words = await patiently(lambda: self._store.note_first(name, orjson.dumps(told), keep_s=_END_NOTED_S))
        first: dict[str, object] = orjson.loads(words)
        return first | {"state": RecordingState(str(first["state"]))}

    async def _note(self, attempt: Attempt, seen: Sidecar, lock: Lock, told: Told) -> None:
        """Write what became of a try into the sidecar.

        Raises:
            BusyError: another, who had our lock meanwhile, has brought the recording to its end.
        """
        await lock.confirm()
        try:
            now = (await self._filing.look(attempt.job)).sidecar
            if now.state is not RecordingState.WAITING and (now.state, now.asked) != (seen.state, seen.asked):
                raise BusyError(f"{now.path} was written by another")
            asked = now.asked if told["state"] is RecordingState.WAITING else attempt.asked
            await self._filing.put_sidecar(replace(now, recording=told, asked=asked))
        except ArchiveUnavailableError as error:
            # The job itself waits, or goes to the dead letters, with its record.
            log.warning("sidecar_not_written", path=seen.path, detail=str(error))

    async def _tell(self, job: RecordingJob, result: Result, words: Mapping[str, object], suffix: str) -> None:
        data = {name: words[name] for name in RECORDING_TOLD}
        routing_key, event_id, body = recording_event(job, result, str(words["at"]), data, suffix=suffix)
        await self._publisher.publish_patiently([Message(CALLS, routing_key, body, event_id, CLOUDEVENT)])
        metrics.RECORDINGS.labels(job.source, result).inc()
        log.info("recording", id=event_id, attempts=words["attempts"], reason=words["reason"], bytes=words["bytes"])

    async def _bury(self, letter: Message) -> None:
        metrics.DEAD_LETTERS.labels(RECORDINGS_DEAD, str(letter.headers["reason"])).inc()
        await self._publisher.publish_patiently([letter])
