"""The published revisions of a call: from the history, else from the journal of events, which keeps 7 days.

A revision is always the event that was published, never what Redis would derive today. So its vCon stays the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from console.history.queries import CallHistory, Recording
from console.lookup.sidecar_search import sidecars_of
from console.vcon.published_call import LegRecordings
from shared.amqp.topology import CALLS_JOURNAL
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.config.sources import Source
from shared.domain.call import Call
from shared.domain.call_event import call_record, event_id_of
from shared.domain.ids import CallKey
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RecordingInfo
from shared.domain.recording_plan import recording_jobs
from shared.errors import BrokerUnavailableError, CallfoldError, leaf_errors
from shared.state.stored_call import PublicationState, StoredCall
from shared.streams.journal import journal_until_now

Event = Mapping[str, Any]
_BEFORE = timedelta(minutes=1)
_READ_FOR_S = 5.0
_CONNECT_S = 3.0
_ID_WITHIN_BYTES = 256
_PUBLISHED = frozenset(
    {RecordingState.STORED, RecordingState.ABSENT, RecordingState.FAILED, RecordingState.EXPIRING, RecordingState.EXPIRED}
)


class NotPublishedError(CallfoldError):
    """There is no such revision, or its event is not kept any more."""


@dataclass(frozen=True, slots=True)
class Published:
    """One call with its revisions: `past` is from the history, `state` and `call` are from Redis."""

    settings: Settings
    key: CallKey
    past: CallHistory | None
    state: StoredCall | None
    call: Call | None

    async def find(self, revision: int | None) -> tuple[Event, Event | None]:
        """Return the event of a revision, the latest one unless it is given, and of the one before it if that is kept.

        Raises:
            NotPublishedError: there is no such revision, or its event is not kept any more.
            BrokerUnavailableError: only the journal can have it, which cannot be read.
        """
        events = {} if self.past is None else {int(event["data"]["revision"]): event for event in self.past.revisions}
        latest = max([*events, self._latest_in_redis()])
        self._check(revision, latest)
        number = revision or latest
        missing = {number, number - 1} - {0, *events}
        if self.call is not None:
            # A call of one revision is published soon after its last event, unless a later event has changed nothing.
            begins = (self.call.last_event_at, self.call.first_event_at) if missing == {1} else (self.call.first_event_at,)
            for since in begins:
                if missing - events.keys():
                    events |= await events_of_journal(self.settings, self.key, missing, since)
        if number not in events:
            kept = (
                "The history has not kept its event" if self.past is not None else "Without a history, events are kept for 7 days"
            )
            raise NotPublishedError(f"Revision {number} of {self.key} was published, but is not known any more. {kept}.")
        return events[number], events.get(number - 1)

    def _latest_in_redis(self) -> int:
        if self.state is None:
            return 0
        # One that is claimed is about to be published.
        return self.state.revision - (self.state.state is PublicationState.CLAIMED)

    def _check(self, revision: int | None, latest: int) -> None:
        if not latest and self.state is None:
            raise NotPublishedError(f"Unknown call {self.key}: it was never received, or is no longer retained.")
        if not latest:
            raise NotPublishedError(f"{self.key} has no published revision yet: the call is not complete.")
        if revision is not None and revision > latest:
            revisions = "only revision 1" if latest == 1 else f"revisions 1 to {latest}"
            raise NotPublishedError(f"{self.key} has {revisions}, not {revision}.")

    async def recordings(self, archive: Archive, source: Source | None) -> list[LegRecordings]:
        """Return what was published of the recordings, as the archive describes it, else the history.

        Any other state follows from the record, or is about to change. Nothing has it once Redis has forgotten the call.

        Raises:
            CallfoldError: the archive cannot be read.
        """
        of_archive = []
        if self.call is not None and self.state is not None and source is not None and self.state.summary:
            record = call_record(self.call, self.state.revision, source.country)
            sidecars = await sidecars_of(archive, recording_jobs(self.call, record, source.record_legs, self.state.summary))
            of_archive = [
                LegRecordings(each.call_id, each.name, each.recording, each.others)
                for each in sidecars
                if each.recording.state in _PUBLISHED or each.others
            ]
        known = {each.call_id for each in of_archive}
        rows = () if self.past is None else self.past.recordings
        return [*of_archive, *recordings_of_history([row for row in rows if row.call_id not in known])]


async def events_of_journal(settings: Settings, key: CallKey, revisions: Collection[int], since: str) -> dict[int, Event]:
    """Find the events of revisions in the journal, which is read from the first event of the call.

    Raises:
        BrokerUnavailableError: the journal could not be read, or is so long that its end was not reached.
    """
    ids = {event_id_of(key, revision): revision for revision in revisions}
    events: dict[int, Event] = {}
    try:
        async with asyncio.timeout(_CONNECT_S + _READ_FOR_S):
            await _search(settings, ids, datetime.fromisoformat(since) - _BEFORE, events)
    except* TimeoutError:
        problem = f"The journal could not be read within {_READ_FOR_S:g} s. Try again later."
    except* CallfoldError as group:  # raised in the connection's task group
        problem = str(leaf_errors(group)[0])
    else:
        return events
    raise BrokerUnavailableError(problem)


async def _search(settings: Settings, ids: Mapping[str, int], since: datetime, events: dict[int, Event]) -> None:
    deadline = time.monotonic() + _READ_FOR_S
    async with journal_until_now(settings, since, stream=CALLS_JOURNAL, connect_s=_CONNECT_S) as deliveries:
        async for delivery in deliveries:
            events |= _events_in(delivery.body, ids)
            if len(events) == len(ids):
                return
            if time.monotonic() > deadline:
                raise TimeoutError


def _events_in(body: bytes, ids: Mapping[str, int]) -> dict[int, Event]:
    """Return the event of a message if it is one of the revisions. Other messages are not decoded."""
    head = body[:_ID_WITHIN_BYTES]
    if not any(f'"{event_id}"'.encode() in head for event_id in ids):
        return {}
    event = orjson.loads(body)
    return {ids[event["id"]]: event} if event["id"] in ids else {}


def recordings_of_history(rows: Sequence[Recording]) -> list[LegRecordings]:
    """Return the recordings of a call's legs, as their last events describe them."""
    legs: dict[str, list[Recording]] = {}
    for row in rows:
        legs.setdefault(row.call_id, []).append(row)
    return [_leg(call_id, each) for call_id, each in legs.items()]


def _leg(call_id: str, rows: Sequence[Recording]) -> LegRecordings:
    """Return the recordings of one leg; the first has the shortest id."""
    first, *others = sorted(rows, key=lambda row: len(row.id))
    name = str(first.uri or first.guid or "").rpartition("/")[2].partition(".wav")[0]
    return LegRecordings(call_id, name, _info(first), [_info(each) for each in others])


def _info(row: Recording) -> RecordingInfo:
    known = row.model_dump(exclude={"id", "source", "call", "call_id", "guid", "leg"})
    expired = {"expired_at": row.at} if row.state == RecordingState.EXPIRED else {}
    return RecordingInfo.from_json({name: value for name, value in {**known, **expired}.items() if value is not None})
