"""Reading the two queues of dead letters under an exclusive lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import orjson

from console.durations import ago
from console.streams.connections import wait_until_connected
from shared.amqp.consumer import Delivery
from shared.amqp.dead_letters import DETAIL, FIRST_SEEN, REASON
from shared.amqp.publisher import Publisher
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import CALLBACKS_DEAD, RECORDINGS_DEAD
from shared.config.settings import Settings
from shared.domain.times import rfc3339
from shared.errors import CallfoldError
from shared.masking import mask_credentials
from shared.runtime.broker import create_publisher
from shared.runtime.process import background

_ID_CHARACTERS = 12
# Messages dead-lettered after the read began are left for the next read. The margin covers clock differences.
_CLOCK_MARGIN = timedelta(minutes=1)
_LOCK_TIMEOUT_S = 20  # longer than RabbitMQ needs to notice that the holder of the lock has disconnected
_LOCK_RETRY_S = 0.1
_SHORT_BYTES = 8 * 1024


class DeadLetterQueue(StrEnum):
    """The two queues of dead letters."""

    CALLBACKS = "callbacks"
    RECORDINGS = "recordings"

    @property
    def queue_name(self) -> str:
        return CALLBACKS_DEAD if self is DeadLetterQueue.CALLBACKS else RECORDINGS_DEAD


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects the dead letters that match every given field."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    source: str | None = None
    since: str | None = None

    def matcher(self) -> Callable[[QueuedDeadLetter], bool]:
        earliest = rfc3339(ago(self.since)) if self.since else None

        def matches(dead_letter: QueuedDeadLetter) -> bool:
            return (
                (not self.ids or any(dead_letter.id.startswith(prefix) for prefix in self.ids))
                and self.reason in (None, dead_letter.reason)
                and (self.source is None or self.source in dead_letter.sources)
                and (earliest is None or dead_letter.first_seen >= earliest)
            )

        return matches


@dataclass(frozen=True, slots=True)
class QueuedDeadLetter:
    """One dead letter: the original message and why it was dead-lettered."""

    id: str
    reason: str
    detail: str
    first_seen: str
    delivery: Delivery

    @property
    def sources(self) -> set[str]:
        """The sources that the message body names."""
        try:
            body = orjson.loads(self.delivery.body)
        except orjson.JSONDecodeError:
            return set()
        elements = body if isinstance(body, list) else [body]
        named = (element.get("source") for element in elements if isinstance(element, dict))
        return {source for source in named if isinstance(source, str)}

    def describe(self, *, with_body: bool = False) -> dict[str, object]:
        """Return the fields that commands print and the HTTP API returns, with credentials masked."""
        fields: dict[str, object] = {
            "id": self.id,
            "reason": self.reason,
            "detail": mask_credentials(self.detail),
            "first_seen": self.first_seen,
            "sources": sorted(self.sources),
        }
        return fields | {"body": mask_credentials(self.delivery.body.decode("utf-8", "replace"))} if with_body else fields


class LockedQueue(NamedTuple):
    """A queue of dead letters under lock, with a publisher; `confirm` waits until RabbitMQ has processed all acks."""

    dead_letters: AsyncIterator[QueuedDeadLetter]
    publisher: Publisher
    confirm: Callable[[], Awaitable[None]]


@asynccontextmanager
async def locked_queue(settings: Settings, queue: DeadLetterQueue) -> AsyncIterator[LockedQueue]:
    """Hold the lock on a queue of dead letters. Messages that were not acked are requeued at the end.

    Raises:
        CallfoldError: another client holds the lock, or RabbitMQ cannot be reached.
    """
    publisher = create_publisher(settings, "dead-letters")
    reader = QueueReader(publisher.address, queue.queue_name)

    async def dead_letters() -> AsyncIterator[QueuedDeadLetter]:
        # The read ends when the queue is empty, or at the first message dead-lettered after the read began. A count can be
        # some seconds old and `first_seen` can be in the future, so the end takes both.
        end, count, read = rfc3339(datetime.now(UTC) + _CLOCK_MARGIN), await reader.count(), 0
        while (delivery := await reader.get()) is not None:
            dead_letter, read = _decode(delivery), read + 1
            if read > count and dead_letter.first_seen >= end:
                return
            yield dead_letter

    async with background(reader.run(), publisher.run()):
        await wait_until_connected(reader, publisher)
        await _lock(reader)
        try:
            yield LockedQueue(dead_letters(), publisher, reader.confirm_settled)
        finally:
            await reader.unlock()


async def find(settings: Settings, queue: DeadLetterQueue, query: Filter, at_most: int) -> tuple[list[dict[str, object]], int]:
    """Describe the first dead letters that match, with their bodies, and count all that match."""
    matches, count, described = query.matcher(), 0, []
    async with locked_queue(settings, queue) as locked:
        async for dead_letter in locked.dead_letters:
            if matches(dead_letter):
                count += 1
                if count <= at_most:
                    described.append(await _describe(dead_letter))
    return described, count


async def _describe(dead_letter: QueuedDeadLetter) -> dict[str, object]:
    """Describe a dead letter; a long body is masked in a thread, because that takes about a microsecond for each byte."""
    if len(dead_letter.delivery.body) <= _SHORT_BYTES:
        return dead_letter.describe(with_body=True)
    return await asyncio.to_thread(dead_letter.describe, with_body=True)


async def _lock(reader: QueueReader) -> None:
    """Acquire the lock. Messages read by one client are invisible to others, so only one may read at a time.

    Raises:
        CallfoldError: another client held the lock during the whole timeout.
    """
    try:
        async with asyncio.timeout(_LOCK_TIMEOUT_S):
            while True:
                if await reader.try_lock():
                    return
                await asyncio.sleep(_LOCK_RETRY_S)
    except TimeoutError:
        raise CallfoldError("Another command or request is reading these dead letters. Try again in a minute.") from None


def _decode(delivery: Delivery) -> QueuedDeadLetter:
    """Read a message that Callfold dead-lettered, or one that RabbitMQ dead-lettered at its delivery limit."""
    headers = delivery.headers
    deaths = headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    died: Mapping[str, object] = first if isinstance(first, dict) else {}
    at = died.get("time")
    return QueuedDeadLetter(
        id=str(headers["message_id"])[:_ID_CHARACTERS] or "?",
        reason=str(headers.get(REASON) or died.get("reason") or "unknown"),
        detail=str(headers.get(DETAIL) or f"dead-lettered by RabbitMQ: {died.get('reason', 'no reason given')}"),
        first_seen=str(headers.get(FIRST_SEEN) or (rfc3339(at.astimezone(UTC)) if isinstance(at, datetime) else "")),
        delivery=delivery,
    )
