"""The message that a redrive publishes for a dead letter: the original one, and for a recording job a new round."""

from __future__ import annotations

import uuid

from console.dead_letters.queue import ROUTING_KEY, DeadLetterQueue, QueuedDeadLetter
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS, RECORDINGS, forward_queue
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.storage import Archive
from shared.domain.cloud_event import CLOUDEVENT
from shared.domain.recording import RecordingJob
from shared.tracing.contexts import TRACEPARENT


async def original_message(queue: DeadLetterQueue, dead_letter: QueuedDeadLetter, archive: Archive) -> Message:
    """Build the message for the original exchange or queue."""
    if queue is DeadLetterQueue.FORWARD:
        return _event_message(dead_letter)
    exchange, routing_key = (CALLBACKS, "") if queue is DeadLetterQueue.CALLBACKS else (RECORDINGS, RECORDINGS)
    headers: dict[str, HeaderValue] = {}
    if queue is DeadLetterQueue.RECORDINGS:  # a new round, so that the worker publishes a new outcome
        last_round = dead_letter.delivery.headers.get("round")
        headers["round"] = max(last_round if isinstance(last_round, int) else 1, await _completed_round(archive, dead_letter)) + 1
        if _may_have_stored(dead_letter):  # then the worker publishes what it finds stored
            headers["may_have_stored"] = 1
    return Message(exchange, routing_key, dead_letter.delivery.body, uuid.uuid4().hex, headers=headers)


def _event_message(dead_letter: QueuedDeadLetter) -> Message:
    """Build the message that begins the attempts of an event again, for the webhook that it was meant for."""
    headers: dict[str, HeaderValue] = {ROUTING_KEY: dead_letter.routing_key}
    traced = dead_letter.delivery.headers.get(TRACEPARENT)
    if isinstance(traced, str):
        headers[TRACEPARENT] = traced
    queue = forward_queue(dead_letter.endpoint or "")
    return Message("", queue, dead_letter.delivery.body, uuid.uuid4().hex, CLOUDEVENT, headers=headers)


def _may_have_stored(dead_letter: QueuedDeadLetter) -> bool:
    """Return whether a worker may have stored a recording without publishing it, as when it died at each delivery."""
    headers = dead_letter.delivery.headers
    return bool(headers.get("may_have_stored") or headers.get("x-death")) or dead_letter.reason == DeadLetterReason.JOB_FAILED


async def _completed_round(archive: Archive, dead_letter: QueuedDeadLetter) -> int:
    """Return the last completed round of a recording, which can be later than that of the dead letter."""
    try:
        job = RecordingJob.decode(dead_letter.delivery.body)
        sidecar, _ = await archive.sidecar_of(job)
    except (ValueError, ArchiveUnavailableError):  # the worker will report it
        return 0
    return sidecar.asked[1] if sidecar and sidecar.asked[0] >= job.revision else 0
