"""Recording jobs: fetch, check, file, tell, then ack. A try that failed waits in a queue of the broker, not in memory."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NoReturn

from shared import metrics
from shared.amqp.consumer import Consumer, Delivery
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.publisher import Message, Publisher
from shared.archive.archive import Archive
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.sidecar import Sidecar, path_of
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.crash_points import crash_point
from shared.domain.ids import SourceName
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RecordingInfo
from shared.log import get_logger
from shared.retention.recording_lock import BusyError, Lock, NotBegunError, locked
from shared.state.store import Store
from worker.download.client import Client, Limits, turns_of
from worker.download.failures import FetchError, Reason, Result, next_wait_s, result_of
from worker.download.partial_file import forget, make_room, partial
from worker.download.targets import recording_link
from worker.recordings.attempt import Attempt, dead_letter, suffix_of
from worker.recordings.early_ack import HeldDelivery, has_ended
from worker.recordings.outcomes import OutcomePublisher
from worker.recordings.sidecars import Sidecars

log = get_logger(__name__)

_HAD = frozenset({RecordingState.STORED, RecordingState.EXPIRING, RecordingState.EXPIRED})
# What a try that stores something can fail by.
_STORING = frozenset({Reason.ARCHIVE_UNAVAILABLE, Reason.NO_SPACE, Reason.INTERNAL_ERROR})


class Recordings:
    """Works off the queue `recordings`, so many jobs at a time, each recording by one worker at a time."""

    def __init__(self, publisher: Publisher, store: Store, archive: Archive, sources: Sources, settings: Settings) -> None:
        self._publisher = publisher
        self._store = store
        self._sources = sources
        self._schedule_s = settings.recording_retry_seconds
        self._directory: Path = settings.recording_dir
        self._kept_bytes = settings.recording_kept_bytes
        self._sidecars = Sidecars(archive, settings.recording_dir)
        self._outcomes = OutcomePublisher(publisher, store, self._sidecars)
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
        kept = HeldDelivery(delivery)
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._see_through(kept))
                await asyncio.wait([work], timeout=self._ack_s)
                if copy := kept.copy(self._schedule_s[0]):
                    await self._publisher.publish_until_confirmed([copy])
                    await kept.hand_over()
                    self._free.release()
            if not kept.is_handed_over:
                crash_point("recording.before_ack")
                await delivery.ack()
        finally:
            if not kept.is_handed_over:
                self._free.release()

    async def _see_through(self, kept: HeldDelivery) -> None:
        try:
            await self._handle(kept)
        except Exception as error:  # a fault of ours in one job must not hold up the others
            log.exception("recording_job_failed")
            await self._rescue(kept, _detail_of(error))
        finally:
            kept.close()

    async def _rescue(self, kept: HeldDelivery, detail: str) -> None:
        """See that nothing is lost of a job that failed where no failure was foreseen."""
        try:
            if kept.attempt is not None:
                if kept.close():  # otherwise its copy is the job now
                    await self._give_up(kept.attempt, None, detail)
                return
        except Exception:
            log.exception("recording_end_not_told")
        await self._outcomes.dead_letter(
            dead_letter(kept.delivery.body, DeadLetterReason.JOB_FAILED, detail, first_seen=utc_now())
        )

    async def _handle(self, kept: HeldDelivery) -> None:
        delivery = kept.delivery
        try:
            attempt = kept.attempt = Attempt.of(delivery.body, delivery.headers)
        except ValueError as error:
            await self._outcomes.dead_letter(
                dead_letter(delivery.body, DeadLetterReason.UNDECODABLE, str(error), first_seen=utc_now())
            )
            return
        try:
            async with locked(self._store, path_of(attempt.job, "json")) as lock:
                if not await has_ended(attempt, self._store):
                    await self._try(attempt, lock)
                await kept.end(self._store)
        except* NotBegunError:
            # A copy of this job is at work, and what comes of it will be seen; or the source has enough to do.
            await self._let_wait(kept, attempt.retry(self._schedule_s[0], tried=False))
        except* BusyError:
            await self._let_wait(kept, attempt.retry(self._schedule_s[0], tried=False, may_have_stored=True))

    async def _let_wait(self, kept: HeldDelivery, retry: Message) -> None:
        if kept.close():  # otherwise its copy is the job now
            await self._publisher.publish_until_confirmed([retry])

    async def _try(self, attempt: Attempt, lock: Lock) -> None:
        try:
            await self._look_and_fetch(attempt, lock)
        except BusyError:
            raise
        except Exception as error:  # where it was to be told what came of the try
            log.exception("recording_try_not_told", id=attempt.job.id)
            await self._give_up(attempt, lock, _detail_of(error))

    async def _look_and_fetch(self, attempt: Attempt, lock: Lock) -> None:
        sidecar: Sidecar | None = None
        try:
            found = await self._sidecars.read(attempt.job)
            sidecar = found.after
            if attempt.job.fetch and not await self._is_over(attempt, sidecar):
                attempt.check_redelivered()
                await self._fetch(attempt, lock)
                return
            if sidecar != found.before:
                await self._sidecars.rewrite(sidecar, found.before, lock.confirm)
            if attempt.job.fetch:
                await self._outcomes.republish(attempt, sidecar)
                forget(self._directory, attempt.job.id)
        except FetchError as error:
            await self._not_had(attempt, sidecar, lock, error)
        except ArchiveUnavailableError as error:
            await self._not_had(attempt, sidecar, lock, FetchError(Reason.ARCHIVE_UNAVAILABLE, str(error)))
        except BusyError:
            raise
        except Exception as error:
            log.exception("recording_try_failed", id=attempt.job.id)
            await self._not_had(attempt, sidecar, lock, FetchError(Reason.INTERNAL_ERROR, _detail_of(error)))

    async def _is_over(self, attempt: Attempt, sidecar: Sidecar) -> bool:
        """Tell whether this asking for the recording, or a later one, has come to its end."""
        if sidecar.state in {RecordingState.EXPIRING, RecordingState.EXPIRED}:
            return True
        if sidecar.state is RecordingState.STORED:
            return not attempt.is_again and await self._sidecars.has_file(sidecar, sidecar.recording)
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
                    info = await self._sidecars.store(attempt, recording, source.archive_recipient, lock.confirm)
        except OSError as error:
            raise FetchError(Reason.NO_SPACE, f"CALLFOLD_RECORDING_DIR: {error.strerror or type(error).__name__}") from error
        crash_point("recording.archived")
        await self._outcomes.publish(job, Result.STORED, info, info.event_suffix)
        if attempt.may_have_stored:  # and what it stored then can differ from what came now
            await self._outcomes.republish_stored(job, (await self._sidecars.read(job)).after, but=info.event_suffix)
        forget(self._directory, job.id)

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
                info = RecordingInfo(RecordingState.WAITING, utc_now(), attempts=attempt.number, reason=error.reason)
                await self._outcomes.note(attempt, sidecar, lock, info)
            retry = attempt.retry(
                wait_s, tried=True, seen_bytes=error.size, reason=error.reason, may_have_stored=error.reason in _STORING
            )
            await self._publisher.publish_until_confirmed([retry])
            return
        # A recording that is stored stays so, whatever a second look at it brings.
        if attempt.job.fetch and not (sidecar and sidecar.state is RecordingState.STORED):
            ended = await self._outcomes.end(attempt, result_of(reasons), error.reason)
            if sidecar is not None:
                await self._outcomes.note(attempt, sidecar, lock, ended)
            await self._outcomes.publish(attempt.job, Result(str(ended.state)), ended, suffix_of(attempt.asked))
        elif attempt.may_have_stored or error.reason in _STORING:
            await self._repeat_if_possible(attempt)
        await self._outcomes.dead_letter(attempt.dead_letter(error.reason, error.detail))
        forget(self._directory, attempt.job.id)

    async def _repeat_if_possible(self, attempt: Attempt) -> None:
        try:
            await self._outcomes.republish_stored(attempt.job, (await self._sidecars.read(attempt.job)).after)
        except Exception:  # the job ends as a dead letter, whatever is at fault
            log.exception("stored_events_not_republished", id=attempt.job.id)

    async def _give_up(self, attempt: Attempt, lock: Lock | None, detail: str) -> None:
        """Have a job tried again, or end it, where a fault of ours kept what came of a try from being told.

        With as little as can do it, since nobody knows what is at fault; without the lock, no sidecar is written.
        """
        wait_s = next_wait_s(Reason.INTERNAL_ERROR, attempt.number, self._schedule_s)
        if wait_s is not None:
            retry = attempt.retry(wait_s, tried=True, reason=Reason.INTERNAL_ERROR, may_have_stored=True)
            await self._publisher.publish_until_confirmed([retry])
            return
        if attempt.job.fetch:
            sidecar = await self._seen(attempt)
            if sidecar is not None and sidecar.state in _HAD:
                await self._outcomes.republish(attempt, sidecar)
            else:
                ended = await self._outcomes.end_after_fault(attempt)
                if sidecar is not None and lock is not None:
                    await self._outcomes.note(attempt, sidecar, lock, ended)
                await self._outcomes.publish(attempt.job, Result(str(ended.state)), ended, suffix_of(attempt.asked))
        await self._outcomes.dead_letter(attempt.dead_letter(Reason.INTERNAL_ERROR, detail))
        forget(self._directory, attempt.job.id)

    async def _seen(self, attempt: Attempt) -> Sidecar | None:
        try:
            return (await self._sidecars.read(attempt.job)).after
        except Exception:  # it may be what is at fault
            log.exception("sidecar_not_read", id=attempt.job.id)
            return None


def _detail_of(error: Exception) -> str:
    return f"{type(error).__name__}: see the worker's log"
