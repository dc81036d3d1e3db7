"""Everything that is known of one call: its record, why it is in its state, its raw timeline, its recordings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, assert_never

from console.call_query import JsonObject
from console.history.queries import CallHistory
from console.lookup.sidecar_search import sidecars_of
from console.streams.journal import journal_until_now
from shared.amqp.topology import CALLBACKS_JOURNAL
from shared.archive.archive import Archive
from shared.archive.sidecar import Sidecar
from shared.config.settings import Settings
from shared.config.sources import Source
from shared.domain.adapter_link import Adapter, Placeholder
from shared.domain.call import Call, Status, derive
from shared.domain.call_event import call_record
from shared.domain.callback import LegEvent, parse_callback
from shared.domain.facts import URL, facts_of, java_time
from shared.domain.ids import CallKey
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent, TimerEvent, Undecodable, decode, encode
from shared.domain.recording_plan import recording_jobs
from shared.errors import CallfoldError
from shared.masking import mask_credentials, mask_value
from shared.runtime.process import leaf_errors
from shared.state.stored_call import StoredCall

_BEFORE = timedelta(minutes=1)
# The journal is read in the order in which the broker got it: from the call's start for as long as this, or up to now.
_READ_FOR_S = 5.0
# The record waits no longer than this for RabbitMQ, nor for a journal that falls silent.
_CONNECT_S = 3.0
_WAIT_FOR_S = 10.0
# What was received so much later than the call's last event is of other calls; a spool can delay its own for longer.
_AFTER = timedelta(hours=1)
_SIDES = {"API": "the agent's", "Outgoing": "the dialed party's"}
_OWN_TIME = {
    LegEvent.START: Placeholder.STARTED,
    LegEvent.PICKUP: Placeholder.PICKED_UP,
    LegEvent.HANGUP: Placeholder.ENDED,
    LegEvent.MISSED: Placeholder.ENDED,
}


@dataclass(frozen=True, slots=True)
class Detail:
    """One call, to be shown. Credentials are masked.

    Attributes:
        status: `complete`, or how far it is.
        why: a sentence: why it is in this state, and what would change it.
        record: as published, or what is known so far.
        legs, facts: empty where only the history knows the call.
        timeline: raw events as received; `leg`, `event` and `told_at` (the adapter's own time) where known.
        is_timeline_whole: False where the journal was not read to its end.
        timeline_problem: why the journal could not be read; None where it could.
        revisions: what was published, the first first: id, time, type, outcome.
        recordings: what became of each leg's recording, as its sidecar tells.
    """

    key: CallKey
    status: str
    why: str
    revision: int
    record: JsonObject
    legs: Sequence[JsonObject] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    timeline: Sequence[Mapping[str, str]] = ()
    is_timeline_whole: bool = True
    timeline_problem: str | None = None
    revisions: Sequence[JsonObject] = ()
    recordings: Sequence[JsonObject] = ()

    def told(self) -> dict[str, Any]:
        """Write it as the JSON of `GET /calls/{source}/{call}` and `callfold show --json`."""
        return {
            "call": str(self.key),
            "source": self.key.source,
            "request_id": self.record["request_id"],
            "status": self.status,
            "why": self.why,
            "published_revision": self.revision,
            "record": dict(self.record),
            "legs": list(self.legs),
            "facts": dict(self.facts),
            "timeline": list(self.timeline),
            "is_timeline_whole": self.is_timeline_whole,
            "timeline_problem": self.timeline_problem,
            "revisions": list(self.revisions),
            "recordings": list(self.recordings),
        }


async def detail_of(settings: Settings, archive: Archive, source: Source, key: CallKey, state: StoredCall) -> Detail:
    """Gather what is known of a call that Redis has; without RabbitMQ all but its raw timeline.

    Raises:
        CallfoldError: the archive cannot be read.
    """
    call = derive(key, state.facts, settings.policy)
    timeline, sidecars = await asyncio.gather(
        _timeline(settings, source.adapter, key, call),
        _recordings(archive, source, call, state),
    )
    return Detail(
        key=key,
        status=call.status,
        why=why(call, state),
        revision=state.revision,
        record=call_record(call, state.revision),
        legs=[asdict(leg) | {"recording_url": None, "fields": _masked(leg.fields)} for leg in call.legs],
        facts={name: "***" if f":{URL}" in name else mask_credentials(value) for name, value in sorted(state.facts.items())},
        timeline=timeline.rows,
        is_timeline_whole=timeline.is_whole,
        timeline_problem=timeline.problem,
        recordings=[recording_row(sidecar) for sidecar in sidecars],
    )


def past_detail(key: CallKey, past: CallHistory) -> Detail:
    """Gather what is left of a call that Redis no longer keeps."""
    row = past.row
    return Detail(
        key=key,
        status=Status.COMPLETE,
        why=f"complete: {row.outcome}, by {row.close_reason}; published as revision {row.revision}; only the history has it",
        revision=row.revision,
        record=past.record,
        is_timeline_whole=False,
        revisions=revisions_of(past),
        recordings=[recording.model_dump() for recording in past.recordings],
    )


def revisions_of(past: CallHistory) -> list[JsonObject]:
    """List what was published of a call, the first first."""
    return [
        {"id": told["id"], "time": told["time"], "type": told["type"], "outcome": told["data"]["outcome"]}
        for told in past.revisions
    ]


async def _recordings(archive: Archive, source: Source, call: Call, state: StoredCall) -> list[Sidecar]:
    if not state.summary:  # nothing is filed before a call was published
        return []
    return await sidecars_of(archive, recording_jobs(call, call_record(call, state.revision), source.record_legs, state.summary))


def _masked(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: mask_value(name, value) for name, value in fields.items()}


def recording_row(sidecar: Sidecar) -> dict[str, Any]:
    """Sum up what became of one leg's recording."""
    return {
        "guid": sidecar.guid,
        "name": sidecar.name,
        "leg": sidecar.leg,
        "call_id": sidecar.call_id,
    } | sidecar.recording.to_json()


def why(call: Call, state: StoredCall) -> str:
    """Say why a call is in its state, and what would change it."""
    if call.closing:
        published = f"published as revision {state.revision}" if state.revision else "about to be published"
        return f"complete: {call.closing.outcome}, by {call.closing.reason}; {published}"
    waiting = [
        f"{_SIDES.get(leg.call_type, 'the')} {'hangup' if leg.was_answered else 'end'}" for leg in call.legs if not leg.is_over
    ]
    waiting += [f"what {_SIDES.get(leg.call_type, 'the')} hangup meant" for leg in call.legs if leg.is_ambiguous]
    if not any(leg.call_type == "API" for leg in call.legs) and call.request_id is not None:
        waiting.append("any callback of the agent's leg")
    return f"waiting for {' and '.join(waiting) or 'what may still come'}, closes at {call.wake_at}"


class _Timeline(NamedTuple):
    """Raw events in the order the broker got them, whether all could be read, and what was in the way."""

    rows: Sequence[Mapping[str, str]] = ()
    is_whole: bool = False
    problem: str | None = None


async def _timeline(settings: Settings, adapter: Adapter, key: CallKey, call: Call) -> _Timeline:
    """Read the raw events of the call from the journal; where that fails, say why."""
    timeline = _Timeline()
    try:
        async with asyncio.timeout(_WAIT_FOR_S):
            timeline = await _read_timeline(settings, adapter, key, call)
    except* TimeoutError:
        timeline = _Timeline(problem="RabbitMQ did not answer in time.")
    except* CallfoldError as group:  # of the tasks that keep the connections
        timeline = _Timeline(problem=str(leaf_errors(group)[0]))
    return timeline


async def _read_timeline(settings: Settings, adapter: Adapter, key: CallKey, call: Call) -> _Timeline:
    rows: list[dict[str, str]] = []
    first_at = min(call.started_at, *(leg.first_seen_at for leg in call.legs), call.last_event_at)
    since, until = datetime.fromisoformat(first_at) - _BEFORE, datetime.fromisoformat(call.last_event_at) + _AFTER
    deadline = time.monotonic() + _READ_FOR_S
    async with journal_until_now(settings, since, stream=CALLBACKS_JOURNAL, connect_s=_CONNECT_S) as deliveries:
        async for delivery in deliveries:
            events = (event for event in decode(delivery.body) if not isinstance(event, Undecodable))
            rows += [_row(event, adapter) for event in events if _is_of(event, key, adapter)]
            if time.monotonic() > deadline:
                return _Timeline(rows, _received_at(delivery.body) > until)
    return _Timeline(rows, is_whole=True)


def _received_at(body: bytes) -> datetime:
    times = [event.received_at for event in decode(body) if not isinstance(event, Undecodable)]
    return datetime.fromisoformat(min(times, default="1970-01-01T00:00:00Z"))


def _is_of(event: RawEvent, key: CallKey, adapter: Adapter) -> bool:
    if event.source != key.source:
        return False
    try:
        return facts_of(event, adapter)[0] == key
    except Exception:  # noqa: BLE001 - what cannot be understood is of no call
        return False


def _row(event: RawEvent, adapter: Adapter) -> dict[str, str]:
    match event:
        case CallbackEvent():
            callback = parse_callback(adapter, event.query)
            row = {"kind": "callback", "what": event.query, "leg": callback.call_id, "event": str(callback.event)}
            own = java_time(callback.extras.get(_OWN_TIME[callback.event], ""), event.received_at)
            row |= {"told_at": own} if own else {}
        case DialEvent():
            row = {"kind": "dial", "what": encode(event).decode()}
        case TimerEvent():
            row = {"kind": "timer", "what": encode(event).decode()}
        case _:
            assert_never(event)
    return row | {"received_at": event.received_at, "what": mask_credentials(row["what"])}
