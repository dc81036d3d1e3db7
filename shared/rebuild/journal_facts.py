"""Facts of the events of a message in `callbacks.journal`, read as the fold reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.amqp.topology import CALLBACKS_JOURNAL
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.facts import Fact, facts_of
from shared.domain.ids import CallKey
from shared.domain.raw_event import Undecodable, decode
from shared.domain.sender_clock import is_future_timer, latest_time, moved_back
from shared.domain.times import rfc3339
from shared.streams.journal import journal_until_now

_PROGRESS_EVENTS = 10_000


@dataclass(slots=True)
class EventCounts:
    """The number of events read and of invalid ones, and the calls of the events."""

    events: int = 0
    invalid: int = 0
    calls: set[CallKey] = field(default_factory=set)


def facts_of_message(body: bytes, sources: Sources, now: datetime) -> tuple[list[tuple[CallKey, list[Fact]]], int]:
    """Return the events of a message, each with its call and its facts, and the number of invalid ones.

    An ingress whose clock is ahead receives nothing in the future.
    """
    events, limit = decode(body), rfc3339(now)
    latest = latest_time(events, "")
    rows: list[tuple[CallKey, list[Fact]]] = []
    invalid = 0
    for event in events if latest <= limit else moved_back(events, latest, now):
        # Events that were dead-lettered are invalid now too, unless the sources file was corrected.
        if isinstance(event, Undecodable) or event.source not in sources or is_future_timer(event, limit):
            invalid += 1
            continue
        try:
            rows.append(facts_of(event, sources[event.source].adapter))
        except Exception:  # noqa: BLE001 - whatever the error is, the fold dead-lettered this event
            invalid += 1
    return rows, invalid


async def count_events(
    settings: Settings, since: datetime, source: str | None, sources: Sources, on_progress: Callable[[int], None]
) -> EventCounts:
    """Count the events in the callback journal since a time; `on_progress` gets the number of events read so far."""
    counts, now = EventCounts(), datetime.now(UTC)
    async with journal_until_now(settings, since, stream=CALLBACKS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            rows, invalid = facts_of_message(delivery.body, sources, now)
            counts.invalid += invalid
            for key, _ in rows:
                if source in (None, key.source):
                    counts.calls.add(key)
                    counts.events += 1
                    if counts.events % _PROGRESS_EVENTS == 0:
                        on_progress(counts.events)
    return counts
