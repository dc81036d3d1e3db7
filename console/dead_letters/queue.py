"""Dead letters as they lie in their queues: which are meant, what each tells, and looking at them one visitor at a time."""

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
from shared.domain.facts import rfc3339
from shared.errors import CallfoldError
from shared.masking import mask_credentials
from shared.runtime.broker import create_publisher
from shared.runtime.process import background

_ID_CHARACTERS = 12
# What dies while we look is for the next look; clocks differ.
_AHEAD = timedelta(minutes=1)
_TURN_S = 20  # longer than the broker takes to notice that somebody who looked has gone
_ASK_AGAIN_S = 0.1


class Which(StrEnum):
    """The two queues of dead letters."""

    CALLBACKS = "callbacks"
    RECORDINGS = "recordings"

    @property
    def queue(self) -> str:
        return CALLBACKS_DEAD if self is Which.CALLBACKS else RECORDINGS_DEAD


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant: all that agree with everything that is given."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    source: str | None = None
    since: str | None = None

    def matcher(self) -> Callable[[Letter], bool]:
        earliest = rfc3339(ago(self.since)) if self.since else None

        def matches(letter: Letter) -> bool:
            return (
                (not self.ids or any(letter.id.startswith(given) for given in self.ids))
                and self.reason in (None, letter.reason)
                and (self.source is None or self.source in letter.sources)
                and (earliest is None or letter.first_seen >= earliest)
            )

        return matches


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: the original body and why it is here."""

    id: str
    reason: str
    detail: str
    first_seen: str
    delivery: Delivery

    @property
    def sources(self) -> set[str]:
        """Name the sources of what is in it."""
        try:
            body = orjson.loads(self.delivery.body)
        except orjson.JSONDecodeError:
            return set()
        elements = body if isinstance(body, list) else [body]
        named = (element.get("source") for element in elements if isinstance(element, dict))
        return {source for source in named if isinstance(source, str)}

    def told(self, *, with_body: bool = False) -> dict[str, object]:
        """Describe it for a person or a program; credentials are masked."""
        told: dict[str, object] = {
            "id": self.id,
            "reason": self.reason,
            "detail": mask_credentials(self.detail),
            "first_seen": self.first_seen,
            "sources": sorted(self.sources),
        }
        return told | {"body": mask_credentials(self.delivery.body.decode("utf-8", "replace"))} if with_body else told


class Opened(NamedTuple):
    """A queue of dead letters: what is in it, a publisher beside it, and a way to make sure that what was settled is gone."""

    letters: AsyncIterator[Letter]
    publisher: Publisher
    confirm: Callable[[], Awaitable[None]]


@asynccontextmanager
async def opened(settings: Settings, which: Which) -> AsyncIterator[Opened]:
    """Have a queue of dead letters alone. What is not settled goes back.

    Raises:
        CallfoldError: somebody else is at work on them, or RabbitMQ cannot be reached.
    """
    publisher = create_publisher(settings, "dead-letters")
    getter = QueueReader(publisher.address, which.queue)

    async def letters() -> AsyncIterator[Letter]:
        # Until there is none, or the first that died since we began. Counts can be some seconds old, and a letter can
        # tell a time that is still to come: it takes both to be at the end.
        end, counted, taken = rfc3339(datetime.now(UTC) + _AHEAD), await getter.count(), 0
        while (delivery := await getter.get()) is not None:
            letter, taken = _letter(delivery), taken + 1
            if taken > counted and letter.first_seen >= end:
                return
            yield letter

    async with background(getter.run(), publisher.run()):
        await wait_until_connected(getter, publisher)
        await _take_turn(getter)
        try:
            yield Opened(letters(), publisher, getter.confirm_settled)
        finally:
            await getter.unlock()


async def _take_turn(getter: QueueReader) -> None:
    """Wait until nobody else looks at the letters: who looks holds them, and another would see none.

    Raises:
        CallfoldError: somebody looks for longer than that.
    """
    try:
        async with asyncio.timeout(_TURN_S):
            while True:
                if await getter.try_lock():
                    return
                await asyncio.sleep(_ASK_AGAIN_S)
    except TimeoutError:
        raise CallfoldError("Somebody else is at work on these dead letters: try again soon.") from None


def _letter(delivery: Delivery) -> Letter:
    """Read a letter of ours, or one that the broker itself gave up after too many deliveries."""
    headers = delivery.headers
    deaths = headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    died: Mapping[str, object] = first if isinstance(first, dict) else {}
    at = died.get("time")
    return Letter(
        id=str(headers["message_id"])[:_ID_CHARACTERS] or "?",
        reason=str(headers.get(REASON) or died.get("reason") or "unknown"),
        detail=str(headers.get(DETAIL) or f"given up by the broker: {died.get('reason', 'no reason told')}"),
        first_seen=str(headers.get(FIRST_SEEN) or (rfc3339(at.astimezone(UTC)) if isinstance(at, datetime) else "")),
        delivery=delivery,
    )
