"""Consumes recording jobs: downloads, archives, publishes, then acks. A failed attempt waits in a retry queue, not in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

from structlog.contextvars import bound_contextvars

from shared import metrics
from shared.amqp.consumer import Consumer
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Publisher
from shared.archive.sidecar import Sidecar, path_of
from shared.archive.storage import Archive
from shared.clock import utc_now
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.crash_points import crash_point
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RecordingInfo
from shared.domain.recording_reasons import Reason
from shared.errors import BusyError
from shared.log import get_logger
from shared.retention.recording_lock import Lock, locked
from shared.state.store import Store
from worker.download.download_directory import make_room
from worker.download.failures import Result
from worker.recordings.attempt import Attempt, dead_letter, suffix_of
from worker.recordings.early_ack import HeldDelivery, is_noted_done
from worker.recordings.fetching import Fetcher
from worker.recordings.job_outcome import Done, End, JobOutcome, Retry, Wait, detail_of, is_expected, outcome_of
from worker.recordings.link_choice import forget_parts
from worker.recordings.outcomes import OutcomePublisher
from worker.recordings.progress import Progress
from worker.recordings.refused_recordings import RefusedRecordings
from worker.recordings.sidecars import Sidecars, SidecarUpdate
from worker.recordings.traces import describe_failure, describe_job, processing, settling

log = get_logger(__name__)

_WAS_STORED = frozenset({RecordingState.STORED, RecordingState.EXPIRING, RecordingState.EXPIRED})


class RecordingConsumer:
    """Processes jobs of the queue `recordings`, several at a time. Each recording is processed by one worker at a time."""

    def __init__(self, publisher: Publisher, store: Store, archive: Archive, sources: LiveSources, settings: Settings) -> None:
        self._publisher = publisher
        self._store = store
        self._schedule_s = settings.recording_retry_seconds
        self._directory: Path = settings.recording_dir
        self._kept_bytes = settings.recording_kept_bytes
        self._sidecars = Sidecars(archive, settings.recording_dir)
        self._outcomes = OutcomePublisher(publisher, store, self._sidecars)
        self._refused = RefusedRecordings(archive, self._sidecars, settings.recording_dir, settings.recording_refused_bytes)
        self._fetcher = Fetcher(sources, self._sidecars, self._outcomes, self._refused, settings)
        self._progress = Progress(store, sum(self._schedule_s))
        self._ack_s = settings.recording_ack_seconds
        self._free = asyncio.Semaphore(settings.recording_concurrency)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, consumer: Consumer) -> NoReturn:
        """Process jobs as long as the process lives. Run it as a task."""
        async with self._fetcher.clients, asyncio.TaskGroup() as group:
            while True:
                await self._free.acquire()
                delivery = await consumer.get()
                task = group.create_task(self._work(delivery))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for the jobs in progress. One that is cut off is not acked, so RabbitMQ redelivers it."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _work(self, delivery: Delivery) -> None:
        """Process a delivery and ack it; early, if the job takes long."""
        with processing(delivery):
            await self._process_and_ack(delivery)

    async def _process_and_ack(self, delivery: Delivery) -> None:
        held = HeldDelivery(delivery)
        try:
            async with asyncio.TaskGroup() as group:
                job = group.create_task(self._process(held))
                await asyncio.wait([job], timeout=self._ack_s)
                if copy := held.hand_over(self._schedule_s[0]):
                    await self._publisher.publish_until_confirmed([copy])
                    await held.ack_early()
                    self._free.release()
            if not held.is_handed_over:
                crash_point("recording.before_ack")
                with settling():
                    await delivery.ack()
        finally:
            if not held.is_handed_over:
                self._free.release()

    async def _process(self, held: HeldDelivery) -> None:
        """Process a delivery. Whatever fails, its job is then done, waits for its next attempt, or is a dead letter."""
        try:
            attempt = await self._read_job(held)
            if attempt is not None:
                with bound_contextvars(**_named(attempt)):
                    await self._process_job(held, attempt)
        except Exception as fault:  # a bug met by one job must not stop the others
            log.exception("recording_job_failed", **(_named(held.attempt) if held.attempt else {}))
            await self._dead_letter_body(held.delivery, DeadLetterReason.JOB_FAILED, detail_of(fault))
        finally:
            held.close()

    async def _read_job(self, held: HeldDelivery) -> Attempt | None:
        try:
            held.attempt = Attempt.of(held.delivery.body, held.delivery.headers)
            describe_job(held.attempt.job)
        except ValueError as error:
            await self._dead_letter_body(held.delivery, DeadLetterReason.UNDECODABLE, str(error))
        return held.attempt

    async def _dead_letter_body(self, delivery: Delivery, reason: DeadLetterReason, detail: str) -> None:
        await self._outcomes.dead_letter(dead_letter(delivery.body, reason, detail, first_seen=utc_now()))

    async def _process_job(self, held: HeldDelivery, attempt: Attempt) -> None:
        """Make an attempt under the lock of the recording, and act on its outcome; also if the lock was busy, or code failed."""
        outcome: JobOutcome = Done()
        try:
            async with locked(self._store, path_of(attempt.job, "json")) as lock:
                if not await is_noted_done(attempt, self._store):
                    await self._progress.begin(attempt)
                    await self._attempt(attempt, lock)
                await held.note_done(self._store)
        except Exception as error:  # noqa: BLE001 - logged
            outcome = self._failed(error, attempt)
        if held.close():  # otherwise the copy is the job now
            sidecar = await self._read_if_possible(attempt) if isinstance(outcome, End) else None
            await self._act(outcome, attempt, sidecar, lock=None)

    async def _attempt(self, attempt: Attempt, lock: Lock) -> None:
        """Make one attempt, and act on its outcome.

        Raises:
            BusyError: the lock was lost, or the host has no free download slot.
        """
        outcome: JobOutcome = Done()
        sidecar: Sidecar | None = None
        try:
            update = await self._sidecars.read(attempt.job)
            sidecar = update.after
            await self._archive(attempt, update, lock)
        except BusyError:
            raise
        except Exception as error:  # noqa: BLE001 - logged
            outcome = self._failed(error, attempt)
        try:
            await self._act(outcome, attempt, sidecar, lock)
        except BusyError:
            raise
        except Exception as error:  # noqa: BLE001 - logged; the lock is still held, so the sidecar can say how it ends
            outcome = self._failed(error, attempt)
            sidecar = await self._read_if_possible(attempt) if isinstance(outcome, End) else None
            await self._act(outcome, attempt, sidecar, lock)

    def _failed(self, error: Exception, attempt: Attempt) -> JobOutcome:
        """Decide what a failure leads to, and log it."""
        outcome = outcome_of(error, attempt, self._schedule_s)
        if isinstance(outcome, Retry | End):
            describe_failure(outcome.reason)
            metrics.RECORDING_ATTEMPTS_FAILED.labels(attempt.job.source, outcome.reason).inc()
            facts = {"id": attempt.job.id, "attempt": attempt.number, "reason": outcome.reason, "detail": outcome.detail}
            next_s = outcome.wait_s if isinstance(outcome, Retry) else None
            if outcome.reason is Reason.INTERNAL_ERROR:
                log.error("recording_attempt_failed", **facts, next_s=next_s, exc_info=error)
            elif is_expected(outcome, attempt.number, self._schedule_s):
                log.info("recording_attempt_failed", **facts, next_s=next_s)
            else:
                log.warning("recording_attempt_failed", **facts, next_s=next_s)
        return outcome

    async def _archive(self, attempt: Attempt, update: SidecarUpdate, lock: Lock) -> None:
        """Bring the recording and its sidecar into the archive; publish the event, again if that was done before."""
        sidecar = update.after
        if attempt.job.fetch and not await self._is_over(attempt, sidecar):
            attempt.check_redelivered()
            await self._fetcher.fetch(attempt, sidecar, lock)
            return
        if sidecar != update.before:
            await self._sidecars.rewrite(sidecar, update.before, lock.confirm)
        if attempt.job.fetch:
            await self._outcomes.republish(attempt, sidecar)
            if sidecar.state is RecordingState.STORED:
                await self._refused.forget_kept(attempt)
            forget_parts(self._directory, attempt.job.id)

    async def _is_over(self, attempt: Attempt, sidecar: Sidecar) -> bool:
        """Return whether this request for the recording, or a later one, has come to its end."""
        if sidecar.state in {RecordingState.EXPIRING, RecordingState.EXPIRED}:
            return True
        if sidecar.state is RecordingState.STORED:
            return not attempt.is_again and await self._sidecars.has_file(sidecar, sidecar.recording)
        return sidecar.state in {RecordingState.ABSENT, RecordingState.FAILED} and sidecar.asked >= attempt.asked

    async def _act(self, outcome: JobOutcome, attempt: Attempt, sidecar: Sidecar | None, lock: Lock | None) -> None:
        """Do what follows from an outcome. Without the lock, the sidecar is not written.

        Raises:
            BusyError: the lock was lost.
        """
        match outcome:
            case Wait(wait_s=wait_s, at_least_s=at_least_s, may_have_stored=may_have_stored):
                retry = attempt.retry(wait_s, at_least_s=at_least_s, counts=False, may_have_stored=may_have_stored)
                await self._publisher.publish_until_confirmed([retry])
            case Retry():
                await self._retry(outcome, attempt, sidecar, lock)
            case End():
                await self._end(outcome, attempt, sidecar, lock)
                await self._progress.finish(attempt)
            case Done():
                if lock is not None:  # otherwise something else was already done about the attempt
                    await self._progress.finish(attempt)

    async def _retry(self, outcome: Retry, attempt: Attempt, sidecar: Sidecar | None, lock: Lock | None) -> None:
        if lock is not None:
            await asyncio.to_thread(make_room, self._directory, self._kept_bytes)
            if sidecar is not None and sidecar.state is RecordingState.WAITING:
                info = RecordingInfo(RecordingState.WAITING, utc_now(), attempts=attempt.number, reason=outcome.reason)
                await self._outcomes.note(attempt, sidecar, lock, info)
        retry = attempt.retry(
            outcome.wait_s,
            at_least_s=outcome.at_least_s,
            counts=True,
            seen_bytes=outcome.seen_bytes,
            seen_audio_bytes=outcome.seen_audio_bytes,
            reason=outcome.reason,
            may_have_stored=outcome.may_have_stored,
        )
        await self._publisher.publish_until_confirmed([retry])

    async def _end(self, outcome: End, attempt: Attempt, sidecar: Sidecar | None, lock: Lock | None) -> None:
        """Publish the end of a job, and dead-letter it. A recording that was stored stays so, whatever a later attempt brings."""
        reason: str = outcome.reason
        if attempt.job.fetch and not (sidecar and sidecar.state in _WAS_STORED):
            if lock is not None and await self._refused.store_earlier(attempt, lock.confirm, self._outcomes):
                return
            kept = await self._refused.kept_uri(attempt, outcome.reason)
            ended = await self._outcomes.end(attempt, outcome.result, outcome.reason, kept)
            if sidecar is not None and lock is not None:
                await self._outcomes.note(attempt, sidecar, lock, ended)
            await self._outcomes.publish(attempt.job, Result(str(ended.state)), ended, suffix_of(attempt.asked))
            reason = str(ended.reason)
        elif attempt.may_have_stored or outcome.may_have_stored:
            await self._republish_if_possible(attempt)
        # An earlier delivery may have ended the job with another reason; the detail is of this attempt.
        detail = outcome.detail if reason == outcome.reason else f"this attempt: {outcome.reason}, {outcome.detail}"
        await self._outcomes.dead_letter(attempt.dead_letter(reason, detail))
        forget_parts(self._directory, attempt.job.id)

    async def _republish_if_possible(self, attempt: Attempt) -> None:
        try:
            await self._outcomes.republish_stored(attempt.job, (await self._sidecars.read(attempt.job)).after)
        except Exception:  # the job is dead-lettered, whatever is at fault
            log.exception("stored_events_not_republished", id=attempt.job.id)

    async def _read_if_possible(self, attempt: Attempt) -> Sidecar | None:
        try:
            return (await self._sidecars.read(attempt.job)).after
        except Exception:  # the sidecar may be what is at fault
            log.exception("sidecar_not_read", id=attempt.job.id)
            return None


def _named(attempt: Attempt) -> dict[str, object]:
    """Return the call of a job as every log line about the job names it."""
    return {"source": attempt.job.source, "call": attempt.job.call, "request_id": attempt.job.request_id}
