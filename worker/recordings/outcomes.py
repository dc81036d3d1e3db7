"""What became of a recording, told: in its sidecar, in an event, in a dead letter. One event id never has two bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import orjson

from shared import metrics
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLS, RECORDINGS_DEAD
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.sidecar import Sidecar, Told
from shared.clock import utc_now
from shared.domain.call_event import CLOUDEVENT, recording_event
from shared.domain.recording import RECORDING_FIELDS, RecordingJob, RecordingState
from shared.log import get_logger
from shared.retention.recording_lock import BusyError, Lock
from shared.state.store import Store, until_redis_answers
from worker.download.failures import Reason, Result
from worker.recordings.attempt import Attempt, suffix_of
from worker.recordings.sidecars import Sidecars
from worker.recordings.store_recording import FOUND, OTHER_CONTENT, event_suffix

log = get_logger(__name__)

# Longer than a message that was not acked can take to come again.
_END_NOTED_S = 2 * 86400.0


class OutcomePublisher:
    """Tells of recordings, each as often as it takes until the broker has confirmed."""

    def __init__(self, publisher: Publisher, store: Store, filing: Sidecars) -> None:
        self._publisher = publisher
        self._store = store
        self._filing = filing

    async def tell(self, job: RecordingJob, result: Result, words: Mapping[str, object], suffix: str) -> None:
        data = {name: words[name] for name in RECORDING_FIELDS}
        routing_key, event_id, body = recording_event(job, result, str(words["at"]), data, suffix=suffix)
        await self._publisher.publish_until_confirmed([Message(CALLS, routing_key, body, event_id, CLOUDEVENT)])
        metrics.RECORDINGS.labels(job.source, result).inc()
        log.info("recording", id=event_id, attempts=words["attempts"], reason=words["reason"], bytes=words["bytes"])

    async def bury(self, letter: Message) -> None:
        metrics.DEAD_LETTERS.labels(RECORDINGS_DEAD, str(letter.headers["reason"])).inc()
        await self._publisher.publish_until_confirmed([letter])

    async def repeat(self, attempt: Attempt, sidecar: Sidecar) -> None:
        """Tell again what became of a recording: who told it first may have died before the broker confirmed."""
        told = sidecar.recording
        if sidecar.state is RecordingState.STORED:
            await self.tell(attempt.job, Result.STORED, told, event_suffix(told))
            await self.repeat_stored(attempt.job, sidecar, but=event_suffix(told))
        elif sidecar.state in {RecordingState.ABSENT, RecordingState.FAILED}:
            await self.tell(attempt.job, Result(sidecar.state), told, suffix_of(sidecar.asked))
            if sidecar.asked == attempt.asked:
                await self.bury(attempt.dead_letter(str(told["reason"]), "told again: see the sidecar"))

    async def repeat_stored(self, job: RecordingJob, sidecar: Sidecar, *, but: str | None = None) -> None:
        """Publish the event of every stored content whose file exists, except the one with the suffix `but`."""
        published = {but}
        for words in sidecar.contents:
            suffix = _suffix_due(sidecar, words)
            if suffix is not None and suffix not in published and await self._filing.is_there(sidecar, words):
                published.add(suffix)
                await self.tell(job, Result.STORED, words, suffix)

    async def end(self, attempt: Attempt, result: Result, reason: Reason) -> Told:
        """Put an end into words: those of who ended it first, who may have died, and may have had no archive to note them in."""
        name = f"{attempt.job.id}{suffix_of(attempt.asked)}"
        told = orjson.dumps(_end_of(attempt, result, reason, utc_now()))
        words = await until_redis_answers(lambda: self._store.note_first(name, told, keep_s=_END_NOTED_S))
        first = orjson.loads(words)
        return {name: first[name] for name in ("at", *RECORDING_FIELDS)} | {"state": RecordingState(first["state"])}

    async def end_by_a_fault(self, attempt: Attempt) -> Told:
        """Put the end of a job into words that only failed at a fault of ours, though `end` itself may be at fault."""
        try:
            return await self.end(attempt, Result.FAILED, Reason.INTERNAL_ERROR)
        except Exception:  # whatever it is, the end is to be told
            log.exception("end_not_noted", id=attempt.job.id)
            # No time of our own: who gets the job again must find the same words.
            return _end_of(attempt, Result.FAILED, Reason.INTERNAL_ERROR, attempt.first_seen)

    async def note(self, attempt: Attempt, seen: Sidecar, lock: Lock, told: Told) -> None:
        """Write what became of a try into the sidecar. Where it cannot be written, the job goes on without.

        Raises:
            BusyError: another, who had our lock meanwhile, has brought the recording to its end.
        """
        await lock.confirm()
        try:
            await self._write(attempt, seen, lock, told)
        except BusyError:
            raise
        except ArchiveUnavailableError as error:
            log.warning("sidecar_not_written", path=seen.path, detail=str(error))
        except Exception:  # a fault of ours, which must not keep the end from being told
            log.exception("sidecar_not_written", path=seen.path)

    async def _write(self, attempt: Attempt, seen: Sidecar, lock: Lock, told: Told) -> None:
        found = await self._filing.look(attempt.job)
        now = found.sidecar
        if now.state is not RecordingState.WAITING and (now.state, now.asked) != (seen.state, seen.asked):
            raise BusyError(f"{now.path} was written by another")
        asked = now.asked if told["state"] is RecordingState.WAITING else attempt.asked
        await self._filing.rewrite(replace(now, recording=told, asked=asked), found.before, lock.confirm)


def _suffix_due(sidecar: Sidecar, words: Told) -> str | None:
    """Return the suffix of a content's event; None if it has no event, or its entry in the sidecar is damaged."""
    is_other = words is not sidecar.recording
    if is_other and words.get("reason") == FOUND and "suffix" not in words:
        return None
    is_whole = {"at", *RECORDING_FIELDS} <= words.keys() and isinstance(words["sha256"], str)
    if not is_whole or (is_other and words["reason"] != OTHER_CONTENT and "suffix" not in words):
        log.warning("sidecar_entry_damaged", path=sidecar.path, uri=words.get("uri"))
        return None
    return event_suffix(words)


def _end_of(attempt: Attempt, result: Result, reason: Reason, at: str) -> dict[str, object]:
    told: dict[str, object] = dict.fromkeys(RECORDING_FIELDS)
    return told | {"attempts": attempt.number, "reason": reason, "at": at, "state": RecordingState(result)}
