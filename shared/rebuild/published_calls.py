"""Reading back from the call journal what was published of each call."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from shared.amqp.delivery import Delivery
from shared.amqp.topology import CALLS_JOURNAL
from shared.config.settings import Settings
from shared.domain.ids import CallKey, CallRef, SourceName, later_use
from shared.domain.revision_proof import RevisionProof, read_proof
from shared.domain.times import milliseconds
from shared.rebuild.published_summary import Place, Record, ids_of, places_of
from shared.rebuild.scope import first_key
from shared.streams.events import read_event
from shared.streams.journal import journal_until_now

_BATCH_CALLS = 1000
_HEAD_BYTES = 512
_TYPE = b'"type":"callfold.call.'
_TIME = re.compile(rb'"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)"')
_ID = re.compile(rb'^\{"specversion":"1\.0","id":"([a-z0-9_-]{1,63})/([0-9a-z.~-]{1,40})/([0-9]{1,9})",')


@dataclass(frozen=True, slots=True)
class LastRevision:
    """The last revision of a call that is not replayed, and when the last event in it was received (ms since 1970), or None."""

    revision: int
    last_event_ms: int | None


Revisions = Mapping[CallKey, LastRevision]


@dataclass(slots=True)
class PublishedCall:
    """The published revisions of a call, which may be read in any order.

    Attributes:
        revision, record: the last revision.
        first_revision, filed_at: the first revision read, and its start time, which decides the folder of the recordings.
        guid_origins: where each GUID was first published, as (revision, position of the leg, CallID).
        places: the side of each recorded leg in each revision.
        proof: of the last revision, if its event has one.
    """

    revision: int
    record: Record
    filed_at: str
    first_revision: int
    guid_origins: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    places: dict[str, dict[int, Place]] = field(default_factory=dict)
    proof: RevisionProof | None = None

    @property
    def owners(self) -> dict[str, str]:
        """The CallID of the leg whose files each GUID names in the archive."""
        return {guid: call_id for guid, (_, _, call_id) in self.guid_origins.items()}


PublishedUses = Mapping[CallKey, Mapping[int, PublishedCall]]
"""The published uses of each RequestID or CallID by their number; the key is the call of the first use."""


def by_call(published: PublishedUses) -> dict[CallKey, PublishedCall]:
    """Return the published calls by their own keys."""
    return {
        CallKey(first.source, later_use(first.call, number)): known
        for first, uses in published.items()
        for number, known in uses.items()
    }


async def read_published(
    settings: Settings, calls: Collection[CallKey], source: str | None, on_others: Callable[[Revisions], Awaitable[None]]
) -> dict[CallKey, PublishedCall]:
    """Read the whole call journal; `on_others` gets the revisions of all other calls of the source, in batches.

    It reads from the beginning, because a call id that was ever used must not be published again.
    """
    published: dict[CallKey, PublishedCall] = {}

    def add(key: CallKey, record: Record, proof: RevisionProof | None) -> None:
        add_revision(published, key, record, proof)

    def is_wanted(key: CallKey) -> bool:
        return first_key(key) in calls

    await read_revisions(settings, is_wanted, add, lambda key: source in (None, key.source), on_others)
    return published


async def read_revisions(
    settings: Settings,
    is_wanted: Callable[[CallKey], bool],
    on_wanted: Callable[[CallKey, Record, RevisionProof | None], None],
    is_other: Callable[[CallKey], bool],
    on_others: Callable[[Revisions], Awaitable[None]],
) -> None:
    """Read the whole call journal: the records of the calls that are wanted, and the last revisions of others, in batches."""
    others: dict[CallKey, LastRevision] = {}

    def add_other(key: CallKey, last: LastRevision) -> None:
        if is_other(key) and (key not in others or others[key].revision < last.revision):
            others[key] = last

    async with journal_until_now(settings, "first", stream=CALLS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            named = _named(delivery)
            if named is not None and not is_wanted(named[0]):
                add_other(*named)
            elif (event := read_event(delivery) if delivery.routing_key.startswith("call.") else None) is not None:
                record: Record = event["data"]
                key = CallKey(SourceName(record["source"]), CallRef(event["subject"]))
                if is_wanted(key):
                    on_wanted(key, record, read_proof(delivery.headers))
                else:
                    add_other(key, LastRevision(record["revision"], None))
            if len(others) >= _BATCH_CALLS:
                await on_others(others)
                others.clear()
    await on_others(others)


def _named(delivery: Delivery) -> tuple[CallKey, LastRevision] | None:
    """Return call and revision of the event of a call by the beginning of its body, in which Callfold writes its id and type.

    Most records of a long journal are not needed, and need not be parsed.
    """
    head = delivery.body[:_HEAD_BYTES]
    match = _ID.search(head) if _TYPE in head else None
    if match is None:
        return None
    at = _TIME.search(head)
    last_event_ms = milliseconds(at[1].decode()) if at else None
    return CallKey(SourceName(match[1].decode()), CallRef(match[2].decode())), LastRevision(int(match[3]), last_event_ms)


def add_revision(
    published: dict[CallKey, PublishedCall], key: CallKey, record: Record, proof: RevisionProof | None = None
) -> None:
    revision = int(record["revision"])
    known = published.setdefault(key, PublishedCall(revision, record, record["started_at"], revision))
    if revision > known.revision:
        known.revision, known.record, known.proof = revision, record, None
    if revision == known.revision:  # of an event that was published twice, perhaps only one has it
        known.proof = proof or known.proof
    if revision < known.first_revision:
        known.filed_at, known.first_revision = record["started_at"], revision
    for call_id, place in places_of(record).items():
        known.places.setdefault(call_id, {})[revision] = place
    for position, leg in enumerate(ids_of(record)):
        if leg.guid is not None:
            origin = (revision, position, leg.call_id)
            known.guid_origins[leg.guid] = min(known.guid_origins.get(leg.guid, origin), origin)
