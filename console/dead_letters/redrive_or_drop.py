"""Redriving and dropping dead letters."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from console.dead_letters.queue import DeadLetterQueue, Filter, LockedQueue, QueuedDeadLetter, locked_queue
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS, RECORDINGS
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.crash_points import crash_point
from shared.domain.recording import RecordingJob
from shared.domain.times import rfc3339
from shared.errors import BrokerUnavailableError, CallfoldError
from shared.runtime.audit import Action, Audit
from shared.state.store import TOMBSTONE_BEYOND_FACTS_S

_DROP_BATCH = 100


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """The action on dead letters (REDRIVE or DROP) and who requested it; a dry run only counts.

    A redrive skips dead letters first seen before `oldest`.
    """

    action: Action
    who: str
    is_dry_run: bool = False
    oldest: str = ""

    def allows(self, dead_letter: QueuedDeadLetter) -> bool:
        """Return whether the action is safe: redriving a call that has left Redis would use its id a second time."""
        if self.action is not Action.REDRIVE:
            return True
        is_recent = not dead_letter.first_seen or dead_letter.first_seen >= self.oldest
        return is_recent and dead_letter.reason != DeadLetterReason.EXPIRED_CALL


class Settled(NamedTuple):
    """Counts of the dead letters that were settled (in a dry run: would be) and that matched but were skipped."""

    done: int
    skipped: int


def oldest_redrivable(settings: Settings, queue: DeadLetterQueue) -> str:
    """Return since when Redis knows which calls were published. Recording jobs have no limit: the archive knows them all."""
    if queue is DeadLetterQueue.RECORDINGS:
        return ""
    return rfc3339(datetime.now(UTC) - timedelta(seconds=settings.retain_seconds + TOMBSTONE_BEYOND_FACTS_S))


async def settle(
    settings: Settings,
    queue: DeadLetterQueue,
    query: Filter,
    request: SettleRequest,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Settled:
    """Settle the dead letters that match and that the request allows; each is acked only after its action is done.

    Raises:
        BrokerUnavailableError: the audit line could not be published, so no dead letter was settled.
        CallfoldError: the connection to RabbitMQ was lost before the end.
    """
    matches, settled = query.matcher(), 0
    async with locked_queue(settings, queue) as locked:
        # Read all of them first: a redriven message can be dead-lettered again at once.
        matching = [dead_letter async for dead_letter in locked.dead_letters if matches(dead_letter)]
        allowed = [dead_letter for dead_letter in matching if request.allows(dead_letter)]
        skipped = len(matching) - len(allowed)
        if request.is_dry_run or not allowed:
            return Settled(len(allowed), skipped)
        filters = {"queue": queue, "ids": list(query.ids), "reason": query.reason, "since": query.since}
        audit, total = Audit(locked.publisher), len(allowed)
        async with audit.record_run(
            request.action, request.who, lambda: {"letters": settled}, source=query.source, found=total, wanted=filters
        ):
            try:
                async for count in _settle_batches(locked, queue, allowed, request, Archive(settings.archive_url)):
                    settled += count
                    progress(settled)
            except BrokerUnavailableError as error:
                done = "redriven" if request.action is Action.REDRIVE else "dropped"
                raise CallfoldError(f"RabbitMQ confirmed {settled} of {total} as {done}, then: {error}") from error
    return Settled(settled, skipped)


async def _settle_batches(
    locked: LockedQueue,
    queue: DeadLetterQueue,
    dead_letters: Sequence[QueuedDeadLetter],
    request: SettleRequest,
    archive: Archive,
) -> AsyncIterator[int]:
    """Settle dead letters; yields the size of each batch once RabbitMQ has processed its acks, which it does not answer."""
    is_redrive = request.action is Action.REDRIVE
    batch_size = 1 if is_redrive else _DROP_BATCH
    for first in range(0, len(dead_letters), batch_size):
        batch = dead_letters[first : first + batch_size]
        for dead_letter in batch:
            if is_redrive:
                await locked.publisher.publish(await _original_message(queue, dead_letter, archive))
            crash_point("letters.before_ack")
            await dead_letter.delivery.ack()
        await locked.confirm()
        yield len(batch)


async def _original_message(queue: DeadLetterQueue, dead_letter: QueuedDeadLetter, archive: Archive) -> Message:
    """Build the message that a redrive publishes to the original exchange or queue."""
    exchange, routing_key = (CALLBACKS, "") if queue is DeadLetterQueue.CALLBACKS else (RECORDINGS, RECORDINGS)
    headers: dict[str, HeaderValue] = {}
    if queue is DeadLetterQueue.RECORDINGS:  # a new round, so that the worker publishes a new outcome
        last_round = dead_letter.delivery.headers.get("round")
        headers["round"] = max(last_round if isinstance(last_round, int) else 1, await _completed_round(archive, dead_letter)) + 1
    return Message(exchange, routing_key, dead_letter.delivery.body, uuid.uuid4().hex, headers=headers)


async def _completed_round(archive: Archive, dead_letter: QueuedDeadLetter) -> int:
    """Return the last completed round of a recording, which can be later than that of the dead letter."""
    try:
        job = RecordingJob.decode(dead_letter.delivery.body)
        sidecar, _ = await archive.sidecar_of(job)
    except (ValueError, ArchiveUnavailableError):  # the worker will report it
        return 0
    return sidecar.asked[1] if sidecar and sidecar.asked[0] >= job.revision else 0
