"""Reading back from the call journal what was published of each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from shared.amqp.topology import CALLS_JOURNAL
from shared.config.settings import Settings
from shared.domain.ids import CallKey, CallRef, SourceName, first_use
from shared.rebuild.published_summary import Place, Record, ids_of, places_of
from shared.streams.events import read_event
from shared.streams.journal import journal_until_now

_BATCH_CALLS = 1000

Revisions = Mapping[CallKey, int]


@dataclass(slots=True)
class PublishedCall:
    """The published revisions of a call, which may be read in any order.

    Attributes:
        revision, record: the last revision.
        first_revision, filed_at: the first revision read, and its start time, which decides the folder of the recordings.
        guid_origins: where each GUID was first published, as (revision, position of the leg, CallID).
        places: the side of each recorded leg in each revision.
    """

    revision: int
    record: Record
    filed_at: str
    first_revision: int
    guid_origins: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    places: dict[str, dict[int, Place]] = field(default_factory=dict)

    @property
    def owners(self) -> dict[str, str]:
        """The CallID of the leg whose files each GUID names in the archive."""
        return {guid: call_id for guid, (_, _, call_id) in self.guid_origins.items()}


async def read_published(
    settings: Settings, calls: Collection[CallKey], source: str | None, on_others: Callable[[Revisions], Awaitable[None]]
) -> dict[CallKey, PublishedCall]:
    """Read the whole call journal; `on_others` gets the revisions of all other calls of the source, in batches.

    It reads from the beginning, because a call id that was ever used must not be published again.
    """
    published: dict[CallKey, PublishedCall] = {}
    others: dict[CallKey, int] = {}
    async with journal_until_now(settings, "first", stream=CALLS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            event = read_event(delivery) if delivery.routing_key.startswith("call.") else None
            if event is None:
                continue
            record: Record = event["data"]
            key = CallKey(SourceName(record["source"]), CallRef(event["subject"]))
            if CallKey(key.source, first_use(key.call)) in calls:
                add_revision(published, key, record)
            elif source in (None, key.source):
                others[key] = max(others.get(key, 0), record["revision"])
            if len(others) >= _BATCH_CALLS:
                await on_others(others)
                others = {}
    await on_others(others)
    return published


def add_revision(published: dict[CallKey, PublishedCall], key: CallKey, record: Record) -> None:
    revision = int(record["revision"])
    known = published.setdefault(key, PublishedCall(revision, record, record["started_at"], revision))
    if revision > known.revision:
        known.revision, known.record = revision, record
    if revision < known.first_revision:
        known.filed_at, known.first_revision = record["started_at"], revision
    for call_id, place in places_of(record).items():
        known.places.setdefault(call_id, {})[revision] = place
    for position, leg in enumerate(ids_of(record)):
        if leg.guid is not None:
            origin = (revision, position, leg.call_id)
            known.guid_origins[leg.guid] = min(known.guid_origins.get(leg.guid, origin), origin)
