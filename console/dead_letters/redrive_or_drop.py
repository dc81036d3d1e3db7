"""Redriving and dropping dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from console.dead_letters.original_message import original_message
from console.dead_letters.queue import DeadLetterQueue, Filter, QueuedDeadLetter
from console.dead_letters.turns import DeadLetterReader, Turn, reader_of
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.publisher import Publisher
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.crash_points import crash_point
from shared.domain.times import rfc3339
from shared.errors import BrokerUnavailableError, CallfoldError
from shared.runtime.audit import Action, Audit
from shared.runtime.broker import create_publisher
from shared.state.store import TOMBSTONE_BEYOND_FACTS_S

NEVER_REDRIVEN = frozenset({DeadLetterReason.EXPIRED_CALL, DeadLetterReason.UNREADABLE_BODY})
_ONE_BY_ONE, _BATCH = 100, 100
_LARGEST_STEP = 500
_TURN_S = 1.0
_PAUSE_S = 0.2  # others try for the lock several times in it
_SHORT_TURNS = 3  # a look can hide messages from a turn; another program can have consumed them
_BEYOND_IDS = 2000  # ids are unique: once each was found, the rest of a long queue is not searched

HeadersOf = Callable[[Sequence[QueuedDeadLetter]], Mapping[str, HeaderValue]]


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """The action on dead letters (REDRIVE or DROP) and who requested it; a dry run only counts.

    A redrive skips dead letters first seen before `oldest`, and those of webhooks that are not in `endpoints`, if that is given.
    """

    action: Action
    who: str
    is_dry_run: bool = False
    oldest: str = ""
    endpoints: frozenset[str] | None = None

    def allows(self, dead_letter: QueuedDeadLetter) -> bool:
        """Return whether the action is safe: a call that has left Redis would use its id again, and a body is lost to a fold."""
        if self.action is not Action.REDRIVE:
            return True
        if self.endpoints is not None and dead_letter.endpoint not in self.endpoints:
            return False
        is_recent = not dead_letter.first_seen or dead_letter.first_seen >= self.oldest
        return is_recent and dead_letter.reason not in NEVER_REDRIVEN


class Settled(NamedTuple):
    """Counts of the dead letters that were settled (in a dry run: would be) and that matched but were skipped.

    A dry run reads a bounded number of messages. If the queue has more, the counts are the least and `is_complete` is false.
    """

    done: int
    skipped: int
    is_complete: bool = True


def oldest_redrivable(settings: Settings, queue: DeadLetterQueue) -> str:
    """Return since when Redis knows which calls were published. Other queues have no limit."""
    if queue is not DeadLetterQueue.CALLBACKS:
        return ""
    return rfc3339(datetime.now(UTC) - timedelta(seconds=settings.retain_seconds + TOMBSTONE_BEYOND_FACTS_S))


async def settle(
    settings: Settings,
    queue: DeadLetterQueue,
    query: Filter,
    request: SettleRequest,
    *,
    progress: Callable[[int], None] = lambda _: None,
    headers_of: HeadersOf = lambda _: {},
) -> Settled:
    """Settle the dead letters that match and that the request allows; each is acked only after its action is done.

    `headers_of` returns further headers for the last message of each publish of a redrive.

    Raises:
        BrokerUnavailableError: the audit line could not be published, so no dead letter was settled.
        CallfoldError: the connection to RabbitMQ was lost before the end.
    """
    publisher = None if request.is_dry_run else create_publisher(settings, "dead-letters")
    async with reader_of(settings, queue, publisher) as reader:
        if publisher is None:
            return (await reader.retried(lambda: _count(reader, query, request)))[0]
        await reader.retried(reader.lock_changes)
        expected, length = await _count(reader, query, request)
        if expected.is_complete and not expected.done:
            return expected
        run = _Run(
            _Access(reader, publisher, Archive(settings.archive_url)), _Work(queue, query, request, headers_of), length, progress
        )
        details = {"queue": queue, "ids": list(query.ids), "reason": query.reason, "since": query.since}
        details |= {"endpoint": query.endpoint} if query.endpoint else {}
        least = {} if expected.is_complete else {"found_is_minimum": True}
        async with Audit(publisher).record_run(
            request.action, request.who, run.results, source=query.source, found=expected.done, wanted=details, **least
        ):
            try:
                await run.finish()
            except BrokerUnavailableError as error:
                done = "redriven" if request.action is Action.REDRIVE else "dropped"
                total = f"{'' if expected.is_complete else 'at least '}{expected.done}"
                raise CallfoldError(f"RabbitMQ confirmed {run.settled} of {total} as {done}, then: {error}") from error
    return Settled(run.settled, run.skipped)


async def _count(reader: DeadLetterReader, query: Filter, request: SettleRequest) -> tuple[Settled, int]:
    """Count what the request would settle, in a bounded read; returns also the length of the queue."""
    matches, done, skipped = query.matcher(), 0, 0
    async with reader.look() as turn:
        async for batch in turn.bounded_batches():
            matching = list(filter(matches, batch))
            allowed = sum(map(request.allows, matching))
            done, skipped = done + allowed, skipped + len(matching) - allowed
    return Settled(done, skipped, turn.read >= turn.total and not turn.is_partial), turn.total


class _Work(NamedTuple):
    queue: DeadLetterQueue
    query: Filter
    request: SettleRequest
    headers_of: HeadersOf = lambda _: {}


class _Access(NamedTuple):
    reader: DeadLetterReader
    publisher: Publisher
    archive: Archive


class _TurnClock:
    """Measures a turn. It lasts a second, and longer if it takes long to read past the messages that earlier turns left."""

    def __init__(self, left_before: int) -> None:
        self._began = time.monotonic()
        self._left_before = left_before
        self._next_s: float | None = None

    def is_up(self, left: int) -> bool:
        """Return, about every second, whether the turn has lasted long enough. `left` counts the messages that it leaves."""
        elapsed_s = time.monotonic() - self._began
        if self._next_s is None:
            if left < self._left_before:
                return False
            self._next_s = elapsed_s + max(_TURN_S, elapsed_s)
        if elapsed_s < self._next_s:
            return False
        self._next_s = elapsed_s + _TURN_S
        return True


class _Run:
    """One redrive or drop, in turns.

    It reads no further than the queue was long at its begin. A redriven message can be dead-lettered again at once, and is then
    behind all that were there. Each turn begins at the front again, with the messages that earlier turns left there.
    """

    def __init__(self, access: _Access, work: _Work, length: int, progress: Callable[[int], None]) -> None:
        self._access = access
        self._work = work
        self._matches = work.query.matcher()
        self._is_redrive = work.request.action is Action.REDRIVE
        self._length = length
        self._progress = progress
        self._left = 0
        self._is_short = False
        self._short_turns = 0
        self._missing_ids = set(work.query.ids)
        self.settled = 0
        self.skipped = 0

    def results(self) -> dict[str, object]:
        return {"letters": self.settled}

    async def finish(self) -> None:
        """Take turns until the end.

        Raises:
            BrokerUnavailableError: the connection was lost; `settled` counts what RabbitMQ has confirmed.
        """
        while not await self._turn():
            await asyncio.sleep(_PAUSE_S)
            if self._is_short:
                await self._access.reader.wait_for_look()

    async def _turn(self) -> bool:
        """Settle until the end, or for about a second if a look waits; returns whether the end was reached."""
        clock, left, unmatched, expected = _TurnClock(self._left), 0, 0, self._length - self.settled
        self.skipped = 0  # each turn reads them again
        async with (
            self._access.reader.turn() as turn,
            aclosing(turn.batches(expected, largest=_LARGEST_STEP)) as batches,
        ):
            async for batch in batches:
                matching = list(filter(self._matches, batch))
                allowed = list(filter(self._work.request.allows, matching))
                await self._settle(turn, allowed)
                self.skipped += len(matching) - len(allowed)
                left += len(batch) - len(allowed)
                unmatched = 0 if matching else unmatched + len(batch)
                if self._has_found_ids(matching) and unmatched >= _BEYOND_IDS:
                    return True
                if clock.is_up(left) and turn.read < turn.end and await self._access.reader.is_awaited():
                    self._left, self._is_short = left, False
                    return False
        self._left, self._is_short = left, turn.read < expected
        self._short_turns += self._is_short
        return not self._is_short or self._short_turns > _SHORT_TURNS

    def _has_found_ids(self, matching: Sequence[QueuedDeadLetter]) -> bool:
        """Return whether each id was found, if whole ids are given."""
        ids = {dead_letter.id for dead_letter in matching}
        self._missing_ids -= {prefix for prefix in self._missing_ids if any(each.startswith(prefix) for each in ids)}
        return self._work.query.has_whole_ids and not self._missing_ids

    async def _settle(self, turn: Turn, dead_letters: Sequence[QueuedDeadLetter]) -> None:
        """Settle dead letters, and count each batch once RabbitMQ has processed its acks, which it does not answer."""
        first = 0
        while batch := dead_letters[first : first + self._batch_size()]:
            if self._is_redrive:
                messages = [await original_message(self._work.queue, dead_letter, self._access.archive) for dead_letter in batch]
                headers = {**messages[-1].headers, **self._work.headers_of(batch)}
                await self._access.publisher.publish(*messages[:-1], replace(messages[-1], headers=headers))
            crash_point("letters.before_ack")
            for dead_letter in batch:
                await dead_letter.delivery.ack()
            await turn.confirm()
            first += len(batch)
            self.settled += len(batch)
            self._progress(self.settled)

    def _batch_size(self) -> int:
        """Return how many are settled at once. An interrupted redrive repeats up to so many, so a short one goes one by one."""
        if self._is_redrive and self.settled < _ONE_BY_ONE:
            return 1
        return _BATCH - self.settled % _BATCH  # so that every multiple is a progress
