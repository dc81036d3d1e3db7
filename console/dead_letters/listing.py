"""Looking at dead letters: a bounded read from the front of the queue, which changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from console.dead_letters.queue import DeadLetterQueue, Filter, QueuedDeadLetter
from console.dead_letters.turns import DeadLetterReader, reader_of
from shared.config.settings import Settings

_LISTED_BYTES = 8 << 20
_SHORT_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class LookRequest:
    """A look for the first `at_most` matches, and for how many match.

    The read is bounded unless it `reads_all`; others wait for as long as it takes.
    """

    query: Filter
    at_most: int
    with_body: bool = True
    reads_all: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Dead letters that match.

    Attributes:
        count: how many match among those that were read; all that match if `is_complete`, else at least so many.
        scanned: how many were read, from the front of the queue.
        total: how many the queue holds.
    """

    dead_letters: Sequence[dict[str, object]]
    count: int
    scanned: int
    total: int
    is_complete: bool


async def find(settings: Settings, queue: DeadLetterQueue, request: LookRequest) -> Listing:
    """Describe the first dead letters that match, and count all that match. RabbitMQ counts them if there is no filter.

    Raises:
        CallfoldError: others held the queue for too long, or RabbitMQ cannot be reached.
    """
    async with reader_of(settings, queue) as reader:
        return await reader.retried(lambda: _look(reader, request))


async def _look(reader: DeadLetterReader, request: LookRequest) -> Listing:
    matches, is_everything = request.query.matcher(), request.query.is_everything
    listed: list[QueuedDeadLetter] = []
    count, room = 0, _LISTED_BYTES
    async with reader.look() as turn:
        if is_everything or request.reads_all:
            read = turn.batches(request.at_most if is_everything else None)
        else:
            read = turn.bounded_batches()
        async with aclosing(read) as batches:
            async for batch in batches:
                for dead_letter in filter(matches, batch):
                    count += 1
                    if len(listed) < request.at_most and room > 0:
                        listed.append(dead_letter)
                        room -= len(dead_letter.delivery.body)
    # Only now, so that others need not wait for it.
    described = [await _describe(dead_letter, with_body=request.with_body) for dead_letter in listed]
    if is_everything:
        return Listing(described, turn.total, turn.read, turn.total, not turn.is_partial)
    return Listing(described, count, turn.read, turn.total, turn.read >= turn.total and not turn.is_partial)


async def _describe(dead_letter: QueuedDeadLetter, *, with_body: bool) -> dict[str, object]:
    """Describe a dead letter; a long body is masked in a thread, because that takes about a microsecond for each byte."""
    if not with_body or len(dead_letter.delivery.body) <= _SHORT_BYTES:
        return dead_letter.describe(with_body=with_body)
    return await asyncio.to_thread(dead_letter.describe, with_body=True)
