"""What the journal of call events says was published of each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from console.journal import journal_until_now, read_event
from shared.ids import CallKey, CallRef, SourceName
from shared.published import Record
from shared.settings import Settings
from shared.topology import CALLS_JOURNAL

_BATCH_CALLS = 1000

Revisions = Mapping[CallKey, int]


@dataclass(slots=True)
class Published:
    """The last revision of a call; and the start by which the first one (`filed_by`) filed its recordings."""

    revision: int
    record: Record
    filed_at: str
    filed_by: int


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
                _note(found, key, record)
            elif source in (None, key.source):
                others[key] = max(others.get(key, 0), record["revision"])
            if len(others) >= _BATCH_CALLS:
                await on_others(others)
                others = {}
    await on_others(others)
    return found


def _note(found: dict[CallKey, Published], key: CallKey, record: Record) -> None:
    revision = int(record["revision"])
    known = found.setdefault(key, Published(revision, record, record["started_at"], revision))
    if revision > known.revision:
        known.revision, known.record = revision, record
    if revision < known.filed_by:
        known.filed_at, known.filed_by = record["started_at"], revision
