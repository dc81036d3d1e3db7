"""Everything known about one call: its record, the reason for its status, its raw timeline, its recordings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from console.call_query import JsonObject
from console.history.queries import CallHistory
from console.lookup.sidecar_search import sidecars_of
from console.lookup.timeline_reader import Timelines
from shared.archive.sidecar import Sidecar
from shared.archive.storage import Archive
from shared.config.sources import Source
from shared.domain.call import Call, Status
from shared.domain.call_event import call_record
from shared.domain.facts import IGNORED, URL
from shared.domain.ids import CallKey
from shared.domain.ignored import split_fact
from shared.domain.leg import Leg
from shared.domain.recording_plan import recording_jobs
from shared.masking import MASK, mask_value
from shared.state.stored_call import StoredCall

_SMALL_CHARACTERS = 16 << 10
_SIDES = {"API": "the agent's", "Outgoing": "the dialed party's"}


@dataclass(frozen=True, slots=True)
class Detail:
    """One call for display. Credentials are masked.

    Attributes:
        status: `complete`, or the state of the open call.
        why: a sentence that gives the reason for the status and what would change it.
        record: the record as published, or as known so far.
        legs, facts: empty if only the history has the call.
        timeline: raw events as received, with `leg`, `event` and `told_at` (the adapter's time) if known.
        is_timeline_whole: False if the journal was not read to its end.
        timeline_problem: why the journal could not be read; None if it was.
        pbx_ahead_seconds: how far the clock of the PBX is ahead of the times of receipt; None if unknown.
        other_uses: other calls of the same RequestID, `acme/513.2`, of a PBX that was reset.
        revisions: the published revisions in order: id, time, type, outcome.
        recordings: the outcome of each leg's recording, from its sidecar.
        deliveries: attempts to deliver its events to webhooks, newest first.
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
    pbx_ahead_seconds: float | None = None
    other_uses: Sequence[str] = ()
    revisions: Sequence[JsonObject] = ()
    recordings: Sequence[JsonObject] = ()
    deliveries: Sequence[JsonObject] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of `GET /calls/{source}/{call}` and `callfold show --json`."""
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
            "pbx_ahead_seconds": self.pbx_ahead_seconds,
            "other_uses": list(self.other_uses),
            "revisions": list(self.revisions),
            "recordings": list(self.recordings),
            "deliveries": list(self.deliveries),
        }


class _Shown(NamedTuple):
    """The parts of a call with its values, in which credentials are masked."""

    record: JsonObject
    legs: list[JsonObject]
    facts: dict[str, str]


async def detail_of(  # noqa: PLR0917 - where it looks, and what is known already
    timelines: Timelines, archive: Archive, source: Source, call: Call, state: StoredCall, bodies: Mapping[str, str]
) -> Detail:
    """Gather everything known about a call in Redis. Without RabbitMQ only its raw timeline is missing.

    `bodies` are those of its annotations by digest.

    Raises:
        CallfoldError: the archive cannot be read.
    """
    is_small = sum(map(len, (*state.facts.values(), *bodies.values()))) <= _SMALL_CHARACTERS
    # Masking a large call takes long, and others must have their turn.
    shown = _shown(source, call, state, bodies) if is_small else await asyncio.to_thread(_shown, source, call, state, bodies)
    timeline, sidecars = await asyncio.gather(
        timelines.read(source.adapter, call),
        _sidecars(archive, source, call, state, shown.record),
    )
    return Detail(
        key=call.key,
        status=call.status,
        why=_reason(call, state),
        revision=state.revision,
        record=shown.record,
        legs=shown.legs,
        facts=shown.facts,
        timeline=timeline.rows,
        is_timeline_whole=timeline.is_whole,
        timeline_problem=timeline.problem,
        pbx_ahead_seconds=call.pbx_ahead_seconds,
        recordings=[_recording_row(sidecar) for sidecar in sidecars],
    )


def _shown(source: Source, call: Call, state: StoredCall, bodies: Mapping[str, str]) -> _Shown:
    return _Shown(
        record=call_record(call, state.revision, source.country, bodies),
        legs=[_shown_leg(leg) for leg in call.legs],
        facts={name: _masked_fact(name, value) for name, value in sorted(state.facts.items())},
    )


def _shown_leg(leg: Leg) -> JsonObject:
    ignored = [each._asdict() | {"value": mask_value(each.placeholder, each.value)} for each in leg.ignored_values]
    return asdict(leg) | {"recording_url": None, "fields": _masked(leg.fields), "ignored_values": ignored}


def past_detail(key: CallKey, past: CallHistory) -> Detail:
    """Gather what the history has of a call that Redis no longer retains."""
    row = past.row
    return Detail(
        key=key,
        status=Status.COMPLETE,
        why=f"complete: {row.outcome}, by {row.close_reason}, published as revision {row.revision}, now only in the history",
        revision=row.revision,
        record=past.record,
        is_timeline_whole=False,
        revisions=revisions_of(past),
        recordings=[recording.model_dump() for recording in past.recordings],
        deliveries=deliveries_of(past),
    )


def deliveries_of(past: CallHistory) -> list[JsonObject]:
    """List the attempts to deliver events of a call, newest first."""
    return [attempt.model_dump() for attempt in past.deliveries]


def revisions_of(past: CallHistory) -> list[JsonObject]:
    """List the published revisions of a call in order."""
    return [
        {"id": event["id"], "time": event["time"], "type": event["type"], "outcome": event["data"]["outcome"]}
        for event in past.revisions
    ]


async def _sidecars(archive: Archive, source: Source, call: Call, state: StoredCall, record: JsonObject) -> list[Sidecar]:
    if not state.summary:  # recordings are requested only after a call is published
        return []
    return await sidecars_of(archive, recording_jobs(call, record, source.record_legs, state.summary))


def _masked_fact(name: str, value: str) -> str:
    """Mask a fact by its name first, `leg:API:77:f.hangup.sectok`, then the credentials in its value."""
    if f":{URL}" in name:
        return MASK
    _, is_ignored, ignored = name.partition(IGNORED)
    return mask_value(split_fact(ignored)[1] if is_ignored else name.rpartition(".")[2], value)


def _masked(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: mask_value(name, value) for name, value in fields.items()}


def _recording_row(sidecar: Sidecar) -> dict[str, Any]:
    return {
        "guid": sidecar.guid,
        "name": sidecar.name,
        "leg": sidecar.leg,
        "call_id": sidecar.call_id,
    } | sidecar.recording.to_json()


def _reason(call: Call, state: StoredCall) -> str:
    """Write why a call has its status, and what would change it."""
    if call.closing:
        published = f"published as revision {state.revision}" if state.revision else "about to be published"
        return f"complete: {call.closing.outcome}, by {call.closing.reason}, {published}"
    missing = [
        f"{_SIDES.get(leg.call_type, 'the')} {'hangup' if leg.was_answered else 'end'}" for leg in call.legs if not leg.is_over
    ]
    missing += [f"a pickup or missed event of {_SIDES.get(leg.call_type, 'the')} leg" for leg in call.legs if leg.is_ambiguous]
    if not any(leg.call_type == "API" for leg in call.legs) and call.request_id is not None:
        missing.append("any callback of the agent's leg")
    return f"waiting for {' and '.join(missing) or 'late callbacks'}, closes at {call.wake_at}"
