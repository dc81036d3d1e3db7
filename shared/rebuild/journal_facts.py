"""Facts of the events in `callbacks.journal`, read as the fold reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.amqp.topology import CALLBACKS_JOURNAL
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.facts import Fact, facts_of
from shared.domain.ids import CallKey
from shared.domain.raw_event import RawEvent, Undecodable, decode
from shared.domain.sender_clock import is_future_timer, latest_time, moved_back
from shared.domain.times import rfc3339
from shared.streams.journal import journal_until_now

BATCH_EVENTS = 1000
_PROGRESS_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the journal to replay.

    Attributes:
        begins: where reading starts, which can be before `requested` to complete the facts of `calls`.
        calls: the calls that have an event since `requested`; earlier events of other calls are skipped.
    """

    begins: datetime
    source: str | None
    calls: Collection[CallKey] = ()
    requested: str = ""

    def has(self, key: CallKey, received_at: str) -> bool:
        return received_at >= self.requested or key in self.calls


@dataclass(slots=True)
class EventCounts:
    """The number of events read and of invalid ones, and the calls of the events."""

    events: int = 0
    invalid: int = 0
    calls: set[CallKey] = field(default_factory=set)


def _received(body: bytes, now: datetime) -> Sequence[RawEvent | Undecodable]:
    """Decode a message as the fold does: an ingress whose clock is ahead receives nothing in the future."""
    events = decode(body)
    latest = latest_time(events, "")
    return events if latest <= rfc3339(now) else moved_back(events, latest, now)


async def facts_in_journal(
    settings: Settings, window: Window, sources: Sources, counts: EventCounts, on_progress: Callable[[int], None]
) -> AsyncIterator[dict[CallKey, list[list[Fact]]]]:
    """Read the callback journal as batches of facts by call and event; `on_progress` gets the number of events read so far."""
    facts: dict[CallKey, list[list[Fact]]] = {}
    size, now = 0, datetime.now(UTC)
    async with journal_until_now(settings, window.begins, stream=CALLBACKS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            for event in _received(delivery.body, now):
                # Events that were dead-lettered are invalid now too, unless the sources file was corrected.
                if isinstance(event, Undecodable) or event.source not in sources or is_future_timer(event, rfc3339(now)):
                    counts.invalid += 1
                    continue
                if window.source not in (None, event.source):
                    continue
                try:
                    key, event_facts = facts_of(event, sources[event.source].adapter)
                except Exception:  # noqa: BLE001 - whatever the error is, the fold dead-lettered this event
                    counts.invalid += 1
                    continue
                if not window.has(key, event.received_at):
                    continue
                facts.setdefault(key, []).append(event_facts)
                counts.calls.add(key)
                counts.events += 1
                size += 1
                if counts.events % _PROGRESS_EVENTS == 0:
                    on_progress(counts.events)
            if size >= BATCH_EVENTS:
                yield facts
                facts, size = {}, 0
    if facts:
        yield facts
