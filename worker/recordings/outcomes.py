"""Publishes what became of a recording: as an event, in its sidecar, and as a dead letter. One event id never has two bodies."""

from __future__ import annotations

from dataclasses import replace

import orjson

from shared import metrics
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLS, RECORDINGS_DEAD
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.sidecar import Sidecar
from shared.clock import utc_now
from shared.domain.call_event import recording_event
from shared.domain.cloud_event import CLOUDEVENT
from shared.domain.recording import RecordingJob, RecordingState
from shared.domain.recording_info import OTHER_CONTENT, SCHEMA, UNLISTED, RecordingInfo
from shared.domain.recording_reasons import Reason
from shared.errors import BusyError
from shared.log import get_logger
from shared.retention.recording_lock import Lock
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from worker.download.failures import Result
from worker.recordings.attempt import Attempt, suffix_of
from worker.recordings.sidecars import Sidecars
from worker.recordings.traces import headers_of, publishing

log = get_logger(__name__)

# Longer than a message that was not acked can take to be redelivered.
_END_KEPT_S = 2 * 86400.0


class OutcomePublisher:
    """Publishes outcomes of recordings; each publication lasts until RabbitMQ has confirmed it."""

    def __init__(self, publisher: Publisher, store: Store, sidecars: Sidecars) -> None:
        self._publisher = publisher
        self._store = store
        self._sidecars = sidecars

    async def publish(self, job: RecordingJob, result: Result, info: RecordingInfo, suffix: str) -> None:
        """Publish the event of a recording.

        Raises:
            ValueError: the sidecar does not have all fields of the event.
        """
        if info.at is None or not info.is_complete:
            raise ValueError(f"the sidecar of {job.id} lacks fields of its event")
        state, has_schema = RecordingState(result), info.schema is not None
        routing_key, event_id, body = recording_event(
            job, state, info.at, info.event_data(), suffix=suffix, names_schema=has_schema
        )
        with publishing(routing_key, event_id) as span:
            message = Message(CALLS, routing_key, body, event_id, CLOUDEVENT, headers=headers_of(span))
            await self._publisher.publish_until_confirmed([message])
        metrics.RECORDINGS.labels(job.source, result).inc()
        log.info("recording_published", id=event_id, attempts=info.attempts, reason=info.reason, bytes=info.bytes)

    async def dead_letter(self, message: Message) -> None:
        metrics.DEAD_LETTERS.labels(RECORDINGS_DEAD, str(message.headers["reason"])).inc()
        await self._publisher.publish_until_confirmed([message])

    async def republish(self, attempt: Attempt, sidecar: Sidecar) -> None:
        """Publish again what became of a recording: the worker that did so first may have died before the confirm."""
        info = sidecar.recording
        if sidecar.state is RecordingState.STORED:
            await self.publish(attempt.job, Result.STORED, info, info.event_suffix)
            await self.republish_stored(attempt.job, sidecar, but=info.event_suffix)
        elif sidecar.state in {RecordingState.ABSENT, RecordingState.FAILED}:
            await self.publish(attempt.job, Result(sidecar.state), info, suffix_of(sidecar.asked))
            if sidecar.asked == attempt.asked:
                detail = "published again; the sidecar has the details"
                await self.dead_letter(attempt.dead_letter(str(info.reason), detail))

    async def republish_stored(self, job: RecordingJob, sidecar: Sidecar, *, but: str | None = None) -> None:
        """Publish the event of every stored content whose file exists, except the one with the suffix `but`."""
        published = {but}
        for info in sidecar.contents:
            suffix = _suffix_due(sidecar, info)
            if suffix is not None and suffix not in published and await self._sidecars.has_file(sidecar, info):
                published.add(suffix)
                await self.publish(job, Result.STORED, info, suffix)

    async def end(self, attempt: Attempt, result: Result, reason: Reason, kept: str | None = None) -> RecordingInfo:
        """Return how a job ended: as the first worker that ended it decided, which may have died, or had no archive.

        `kept` is the URI of the file that was refused.

        An internal error is the last resort: it ends the job even if Redis cannot record that. Other reasons raise what failed.
        """
        try:
            return await self._first_end(attempt, result, reason, kept)
        except Exception:
            if reason is not Reason.INTERNAL_ERROR:
                raise
            log.exception("outcome_not_recorded", id=attempt.job.id)
        # Not the current time: if the job is redelivered, its event must have the same body.
        return _end_of(attempt, Result.FAILED, Reason.INTERNAL_ERROR, attempt.first_seen)

    async def _first_end(self, attempt: Attempt, result: Result, reason: Reason, kept: str | None) -> RecordingInfo:
        name = f"{attempt.job.id}{suffix_of(attempt.asked)}"
        mine = orjson.dumps(_end_of(attempt, result, reason, utc_now(), kept).to_json())
        first = await until_redis_answers(lambda: self._store.flags.set_first(name, mine, expires_in_s=_END_KEPT_S))
        info = RecordingInfo.from_json(orjson.loads(first))
        if info.at is None or info.state is None or not info.is_complete:
            raise ValueError(f"the end of {name} in Redis is damaged")
        return info

    async def note(self, attempt: Attempt, seen: Sidecar, lock: Lock, info: RecordingInfo) -> None:
        """Write how an attempt ended into the sidecar. If that fails, the job goes on without it.

        Raises:
            BusyError: the lock was lost, and another worker has ended the job.
        """
        await lock.confirm()
        try:
            await self._write(attempt, seen, lock, info)
        except BusyError:
            raise
        except ArchiveUnavailableError as error:
            log.warning("sidecar_not_written", path=seen.path, detail=str(error))
        except Exception:  # a bug must not prevent the publication of the outcome
            log.exception("sidecar_not_written", path=seen.path)

    async def _write(self, attempt: Attempt, seen: Sidecar, lock: Lock, info: RecordingInfo) -> None:
        update = await self._sidecars.read(attempt.job)
        now = update.after
        if now.state is not RecordingState.WAITING and (now.state, now.asked) != (seen.state, seen.asked):
            raise BusyError(f"{now.path} was written by another worker")
        asked = now.asked if info.state is RecordingState.WAITING else attempt.asked
        await self._sidecars.rewrite(replace(now, recording=info, asked=asked), update.before, lock.confirm)


def _suffix_due(sidecar: Sidecar, info: RecordingInfo) -> str | None:
    """Return the suffix of a content's event; None if it has no event, or its entry in the sidecar is damaged."""
    is_other = info is not sidecar.recording
    if is_other and info.reason == UNLISTED and info.suffix is None:
        return None
    is_whole = info.at is not None and info.is_complete and info.sha256 is not None
    if not is_whole or (is_other and info.reason != OTHER_CONTENT and info.suffix is None):
        log.warning("sidecar_entry_damaged", path=sidecar.path, uri=info.uri)
        return None
    return info.event_suffix


def _end_of(attempt: Attempt, result: Result, reason: Reason, at: str, kept: str | None = None) -> RecordingInfo:
    state = RecordingState(result)
    return RecordingInfo(state, at, attempts=attempt.number, reason=reason, flags=(), kept=kept, schema=SCHEMA, is_complete=True)
