"""The record of a call, and the events of calls and recordings.

Events are CloudEvents 1.0 in structured JSON (CloudEvents specification 1.0.2, JSON format). Ids and bodies are a pure function
of the call and its revision, so every worker that publishes an event publishes the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypedDict

import orjson

from shared.domain.call import Call
from shared.domain.cloud_event import JSON, SPEC_VERSION, dataschema_of
from shared.domain.event_types import (
    AnnotationRecord,
    CallEvent,
    CallEventType,
    CallRecord,
    DialPart,
    DialRecord,
    IgnoredValue,
    LegIdentity,
    LegRecord,
    PartiesPart,
    RecordingData,
    RecordingEvent,
    RecordingEventType,
    RecordingIdentity,
    RecordingOutcome,
)
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.leg import Leg
from shared.domain.leg_event import CallType
from shared.domain.people import person_of, queue_of
from shared.domain.raw_types import Side
from shared.domain.recording import RecordingJob, RecordingState
from shared.masking import mask_value
from shared.phone_numbers import e164

SIDES: Final = ("agent", "dialed")
E164: Final = "number_e164"
_METADATA = "metadata."
_LOGIN = b'"call_type":"Login"'  # not found within a string, where quotes are escaped
_TRACEPARENT = re.compile(rb'"traceparent":"([0-9a-f-]{55})"')
_ENVELOPE_BYTES = 1024
_RECORDING_TYPES: Mapping[RecordingState, RecordingEventType] = {
    RecordingState.STORED: "callfold.recording.stored.v1",
    RecordingState.ABSENT: "callfold.recording.absent.v1",
    RecordingState.FAILED: "callfold.recording.failed.v1",
    RecordingState.EXPIRED: "callfold.recording.expired.v1",
}
_DIAL_FIELDS: tuple[Literal["agent", "number", "queue_prefix"], ...] = ("agent", "number", "queue_prefix")


def call_record(call: Call, revision: int, country: str | None = None, bodies: Mapping[str, str] | None = None) -> CallRecord:
    """Return the call as the `data` of its event; for an open call, what is known so far.

    With the `country` of the source, numbers have their international form too. Without `bodies`, the texts of the bodies of its
    annotations by their digests, the record has no annotations.
    """
    mask = _Mask()
    return {
        "source": call.key.source,
        "request_id": call.request_id,
        "revision": revision,
        "outcome": call.closing.outcome if call.closing else None,
        "complete": call.closing.complete if call.closing else None,
        "close_reason": call.closing.reason if call.closing else None,
        **_dial_with_e164(call, country),
        "started_at": call.started_at,
        "answered_at": call.answered_at,
        "ended_at": call.ended_at,
        "ring_seconds": call.ring_seconds,
        "talk_seconds": call.talk_seconds,
        **parties_of(call),
        "agent": _leg(call, call.agent, mask, country) if call.agent else None,
        "dialed": _leg(call, call.dialed, mask, country) if call.dialed else None,
        "other_legs": [_leg(call, leg, mask, country) for leg in call.other_legs],
        "fields": _fields(call, mask),
        "ignored": _ignored(call, mask),
        "annotations": [] if bodies is None else _annotations(call, bodies),
    }


def _annotations(call: Call, bodies: Mapping[str, str]) -> list[AnnotationRecord]:
    return [
        {"id": each.id, "type": each.type, "at": each.at, "by": each.by, "body": orjson.loads(bodies[each.digest])}
        for each in call.annotations
    ]


def without_annotations(record: CallRecord) -> CallRecord:
    """Return a record as sidecars have it. A transcript is not copied to the archive with each leg."""
    less: CallRecord = {**record}
    less.pop("annotations", None)
    return less


def without_fields(record: CallRecord) -> CallRecord:
    """Return a record without the adapter values of the call and its legs, used or ignored."""
    return {
        **record,
        "agent": record["agent"] and {**record["agent"], "fields": {}},
        "dialed": record["dialed"] and {**record["dialed"], "fields": {}},
        "other_legs": [{**leg, "fields": {}} for leg in record["other_legs"]],
        "fields": {},
        "ignored": [],
    }


def parties_of(call: Call) -> PartiesPart:
    """Return the part of a record about what kind of call it is, its queue, and who ended it."""
    return {"call_type": call.call_type, "queue": queue_of(call), "ended_by": call.ended_by}


def leg_identity(call: Call, leg: Leg) -> LegIdentity:
    """Return the part of a leg's record that identifies the leg and the person on it."""
    person = person_of(call, leg)
    return {
        "call_id": leg.call_id,
        "extension": person.extension,
        "name": person.name,
        "user_id": person.user_id,
        "number": person.number,
    }


def dial_of(call: Call) -> DialPart:
    """Return the part of a record about the dial request."""
    return {
        "reference": call.dial.get("reference"),
        "metadata": {name.removeprefix(_METADATA): value for name, value in call.dial.items() if name.startswith(_METADATA)},
        "dial": _dial(call) or None,
    }


def call_event(call: Call, record: CallRecord, traceparent: str = "") -> tuple[str, str, bytes]:
    """Return routing key, id and body of the event of a completed call, or of an amended one from the second revision on."""
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    event_id = event_id_of(call.key, record["revision"])
    kind: CallEventType = "callfold.call.completed.v1" if record["revision"] == 1 else "callfold.call.amended.v1"
    trace: _Trace = {"traceparent": traceparent} if traceparent else {}
    event: CallEvent = {
        "specversion": SPEC_VERSION,
        "id": event_id,
        "source": _source_of(call.key),
        "subject": call.key.call,
        "type": kind,
        "time": call.last_event_at,
        "datacontenttype": JSON,
        "dataschema": dataschema_of(kind),
        "sequence": str(record["revision"]),
        "partitionkey": str(call.key),
        **trace,
        "data": record,
    }
    name = "completed" if record["revision"] == 1 else "amended"
    return f"call.{name}.{call.key.source}.{record['outcome']}", event_id, orjson.dumps(event)


def event_id_of(key: CallKey, revision: int) -> str:
    """Return the id of the event of a revision."""
    return f"{key}/{revision}"


def traceparent_of(body: bytes) -> str:
    """Return the trace context in the event of a call; '' if it has none."""
    # It is ahead of the data.
    match = _TRACEPARENT.search(body, 0, _ENVELOPE_BYTES)
    return match[1].decode() if match else ""


def is_login(body: bytes) -> bool:
    """Return whether the event of a call is about a login. Its outcome may be `answered`, but it is no answered call."""
    return _LOGIN in body and orjson.loads(body)["data"].get("call_type") == CallType.LOGIN


def sides_of(call: Call) -> list[tuple[Side, Leg]]:
    """Return the legs in the order of a record, each with its side: `agent`, `dialed` or `other`."""
    sides: list[tuple[Side, Leg]] = [("agent", call.agent)] if call.agent is not None else []
    sides += [("dialed", call.dialed)] if call.dialed is not None else []
    sides += [("other", leg) for leg in call.other_legs]
    return sides


def recording_event(
    job: RecordingJob, result: RecordingState, at: str, data: RecordingOutcome, *, suffix: str = "", names_schema: bool = True
) -> tuple[str, str, bytes]:
    """Return routing key, id and body of an event of a recording.

    `suffix` gives a further event of the same kind an id that differs from the first. `names_schema` is false if an earlier
    release may have published the event: it has no attributes that are new since.
    """
    key = CallKey(SourceName(job.source), CallRef(job.call))
    event_id = f"{job.id}/{result}{suffix}"
    identity: RecordingIdentity = {
        "source": job.source,
        "request_id": job.request_id,
        "call_id": job.call_id,
        "guid": job.guid,
        "leg": job.leg,
    }
    complete: RecordingData = {**identity, **data}
    kind = _RECORDING_TYPES[result]
    newer: _NewerAttributes = {"dataschema": dataschema_of(kind), "partitionkey": str(key)} if names_schema else {}
    event: RecordingEvent = {
        "specversion": SPEC_VERSION,
        "id": event_id,
        "source": _source_of(key),
        "subject": key.call,
        "type": kind,
        "time": at,
        "datacontenttype": JSON,
        **newer,
        "data": complete,
    }
    return f"recording.{result}.{job.source}", event_id, orjson.dumps(event)


def _source_of(key: CallKey) -> str:
    return f"/callfold/{key.source}"


class _Trace(TypedDict, total=False):
    traceparent: str


class _NewerAttributes(TypedDict, total=False):
    dataschema: str
    partitionkey: str


class _Mask(dict[tuple[str, str], str]):
    """The masked values of one record. Masking is costly, and the legs of a call have many values in common."""

    def __missing__(self, named: tuple[str, str]) -> str:
        # An adapter may carry a credential under any name.
        self[named] = masked = mask_value(*named)
        return masked


def _dial(call: Call) -> DialRecord:
    dial: DialRecord = {}
    for name in _DIAL_FIELDS:
        if name in call.dial:
            dial[name] = call.dial[name]
    return dial


def _dial_with_e164(call: Call, country: str | None) -> DialPart:
    """Return the part of a record about the dial request. A summary has no international form: it follows from the number."""
    known = dial_of(call)
    if country is not None and known["dial"] is not None:
        known["dial"][E164] = _e164(known["dial"].get("number"), country)
    return known


def _e164(number: str | None, country: str | None) -> str | None:
    return e164(number, country) if number is not None and country is not None else None


def _leg(call: Call, leg: Leg, mask: _Mask, country: str | None) -> LegRecord:
    identity = leg_identity(call, leg)
    number = identity["number"] or ""
    # An extension can be as long as a national number.
    is_extension = leg.call_type is CallType.INTERNAL and not number.startswith(("+", "00"))
    return {
        **identity,
        E164: None if is_extension else _e164(number, country),
        "guid": leg.guid,
        "call_type": leg.call_type,
        "state": leg.state,
        "inferred": leg.inferred,
        "started_at": leg.started_at,
        "picked_up_at": leg.picked_up_at,
        "missed_at": leg.missed_at,
        "hung_up_at": leg.hung_up_at,
        "ring_seconds": call.ring_seconds_of(leg),
        "recorded": leg.recorded,
        "fields": {name: mask[name, value] for name, value in leg.fields.items()},
    }


def _fields(call: Call, mask: _Mask) -> dict[str, str]:
    """Return the other adapter values of the legs that represent the sides. If they differ, the dialed leg's counts."""
    fields: dict[str, str] = {}
    for leg in (call.dialed, call.agent):
        for name, value in (leg.fields if leg else {}).items():
            fields.setdefault(name, mask[name, value])
    return fields


def _ignored(call: Call, mask: _Mask) -> list[IgnoredValue]:
    """Return the values of the adapter that were not used as they were sent, in a fixed order."""
    rows: list[IgnoredValue] = [
        {
            "call_id": leg.call_id,
            "event": ignored.event,
            "placeholder": ignored.placeholder,
            "value": mask[ignored.placeholder, ignored.value],
            "reason": ignored.reason,
        }
        for leg in call.legs
        for ignored in leg.ignored_values
    ]
    return sorted(rows, key=lambda row: (row["call_id"], row["event"] or "", row["placeholder"], row["value"], row["reason"]))
