"""`callfold dead-letters`: what could not be understood or done - see it, put it back, or drop it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from console.dead_letters.queue import Filter, Letter, Opened, Which, opened
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS, RECORDINGS
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.crash_points import crash_point
from shared.domain.facts import rfc3339
from shared.domain.recording import RecordingJob
from shared.errors import BrokerUnavailableError, CallfoldError
from shared.runtime.audit import Action, Audit
from shared.state.store import TOMBSTONE_BEYOND_FACTS_S

_DROPPED_AT_ONCE = 100


async def find(settings: Settings, which: Which, wanted: Filter, at_most: int) -> tuple[list[dict[str, object]], int]:
    """Describe the first letters that match, with what they hold; and count all that match."""
    matches, found, told = wanted.matcher(), 0, []
    async with opened(settings, which) as queue:
        async for letter in queue.letters:
            if matches(letter):
                found += 1
                if found <= at_most:
                    told.append(letter.told(with_body=True))
    return told, found


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done with letters, and who wants it: REDRIVE puts back, DROP keeps nothing; dry, they are only counted."""

    action: Action
    who: str
    is_dry: bool = False
    oldest: str = ""

    def concerns(self, letter: Letter) -> bool:
        """Leave out what must not be put back: the id of a call that has left Redis would be used a second time."""
        if self.action is not Action.REDRIVE:
            return True
        return letter.reason != DeadLetterReason.EXPIRED_CALL and (not letter.first_seen or letter.first_seen >= self.oldest)


class Settled(NamedTuple):
    """How many letters were settled, or would be; and how many match, but must not be put back."""

    letters: int
    spared: int


def known_since(settings: Settings, which: Which) -> str:
    """Tell since when Redis knows which calls were published; of recordings the archive knows, however old they are."""
    if which is Which.RECORDINGS:
        return ""
    return rfc3339(datetime.now(UTC) - timedelta(seconds=settings.retain_seconds + TOMBSTONE_BEYOND_FACTS_S))


async def _round(archive: Archive, letter: Letter) -> int:
    """Tell which round of a recording came to an end last: a letter can be older than that."""
    try:
        job = RecordingJob.decode(letter.delivery.body)
        sidecar, _ = await archive.sidecar_of(job)
    except (ValueError, ArchiveUnavailableError):  # the worker will tell
        return 0
    return sidecar.asked[1] if sidecar and sidecar.asked[0] >= job.revision else 0


async def settle(
    settings: Settings, which: Which, wanted: Filter, order: Order, *, progress: Callable[[int], None] = lambda _: None
) -> Settled:
    """Settle the letters that match and that the order concerns, each removed after it is done.

    Raises:
        BrokerUnavailableError: it could not be told what is to be done, so nothing was.
        CallfoldError: the broker was lost on the way.
    """
    matches, settled = wanted.matcher(), 0
    async with opened(settings, which) as queue:
        # All first: what is put back may come back as a new letter at once.
        matching = [letter async for letter in queue.letters if matches(letter)]
        chosen = [letter for letter in matching if order.concerns(letter)]
        spared = len(matching) - len(chosen)
        if order.is_dry or not chosen:
            return Settled(len(chosen), spared)
        told = {"queue": which, "ids": list(wanted.ids), "reason": wanted.reason, "since": wanted.since}
        audit, found = Audit(queue.publisher), len(chosen)
        async with audit.record_run(
            order.action, order.who, lambda: {"letters": settled}, source=wanted.source, found=found, wanted=told
        ):
            try:
                async for count in _settled(queue, which, chosen, order, Archive(settings.archive_url)):
                    settled += count
                    progress(settled)
            except BrokerUnavailableError as error:
                done = "redriven" if order.action is Action.REDRIVE else "dropped"
                raise CallfoldError(f"{settled} of {found} are {done} for certain, then: {error}") from error
    return Settled(settled, spared)


async def _settled(queue: Opened, which: Which, letters: Sequence[Letter], order: Order, archive: Archive) -> AsyncIterator[int]:
    """Settle letters; tells how many more the broker has heard of. An ack alone is not answered: it may have been lost."""
    is_redrive = order.action is Action.REDRIVE
    at_once = 1 if is_redrive else _DROPPED_AT_ONCE
    for first in range(0, len(letters), at_once):
        some = letters[first : first + at_once]
        for letter in some:
            if is_redrive:
                await queue.publisher.publish(await _put_back(which, letter, archive))
            crash_point("letters.before_ack")
            await letter.delivery.ack()
        await queue.confirm()
        yield len(some)


async def _put_back(which: Which, letter: Letter, archive: Archive) -> Message:
    """Write the message that puts a letter back where it came from."""
    exchange, routing_key = (CALLBACKS, "") if which is Which.CALLBACKS else (RECORDINGS, RECORDINGS)
    headers: dict[str, HeaderValue] = {}
    if which is Which.RECORDINGS:  # a new round: its end is told anew
        told = letter.delivery.headers.get("round")
        headers["round"] = max(told if isinstance(told, int) else 1, await _round(archive, letter)) + 1
    return Message(exchange, routing_key, letter.delivery.body, uuid.uuid4().hex, headers=headers)
