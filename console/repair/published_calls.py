"""What the journal of call events says was published of each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from console.repair.published_summary import Record, ids_of
from console.streams.events import read_event
from console.streams.journal import journal_until_now
from shared.amqp.topology import CALLS_JOURNAL
from shared.config.settings import Settings
from shared.domain.ids import CallKey, CallRef, SourceName

_BATCH_CALLS = 1000

Revisions = Mapping[CallKey, int]


@dataclass(slots=True)
class Published:
    """What was published of a call, in whatever order it is read.

    Attributes:
        revision, record: the last revision.
        filed_by, filed_at: the first revision, and the start by which it filed the recordings.
        first_told: by which revision, and which of its legs in order, each GUID was first told: (revision, place, CallID).
    """

    revision: int
    record: Record
    filed_at: str
    filed_by: int
    first_told: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    @property
    def owners(self) -> dict[str, str]:
        """Tell which leg each GUID names in the archive."""
        return {guid: call_id for guid, (_, _, call_id) in self.first_told.items()}


async def read_published(
    settings: Settings, wanted: Collection[CallKey], source: str | None, on_others: Callable[[Revisions], Awaitable[None]]
) -> dict[CallKey, Published]:
    """Read the whole journal; the revisions of calls that are not wanted are handed on, some at a time.

    From its beginning: an id that was used must not come out again, however long ago that was.
    """
    found: dict[CallKey, Published] = {}
    others: dict[CallKey, int] = {}
    async with journal_until_now(settings, "first", stream=CALLS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            event = read_event(delivery) if delivery.routing_key.startswith("call.") else None
            if event is None:
                continue
            record: Record = event["data"]
            key = CallKey(SourceName(record["source"]), CallRef(event["subject"]))
            if key in wanted:
                note(found, key, record)
            elif source in (None, key.source):
                others[key] = max(others.get(key, 0), record["revision"])
            if len(others) >= _BATCH_CALLS:
                await on_others(others)
                others = {}
    await on_others(others)
    return found


def note(found: dict[CallKey, Published], key: CallKey, record: Record) -> None:
    """Note one revision of a call."""
    revision = int(record["revision"])
    known = found.setdefault(key, Published(revision, record, record["started_at"], revision))
    if revision > known.revision:
        known.revision, known.record = revision, record
    if revision < known.filed_by:
        known.filed_at, known.filed_by = record["started_at"], revision
    for place, leg in enumerate(ids_of(record)):
        if leg.guid is not None:
            told = (revision, place, leg.call_id)
            known.first_told[leg.guid] = min(known.first_told.get(leg.guid, told), told)
