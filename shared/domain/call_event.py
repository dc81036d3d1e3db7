"""The record of a call, and the events of calls and recordings.

Events are CloudEvents 1.0 in structured JSON (CloudEvents specification 1.0.2, JSON format). Ids and bodies are a pure function
of the call and its revision, so every worker that publishes an event publishes the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from shared.domain.call import Call
from shared.domain.cloud_event import cloud_event
from shared.domain.ids import CallKey
from shared.domain.leg import Leg
from shared.domain.leg_event import CallType
from shared.domain.people import person_of, queue_of
from shared.domain.recording import RecordingJob
from shared.masking import mask_value
from shared.phone_numbers import e164

SIDES = ("agent", "dialed")
E164 = "number_e164"
_METADATA = "metadata."
_LOGIN = b'"call_type":"Login"'  # not found within a string, where quotes are escaped
_TRACEPARENT = re.compile(rb'"traceparent":"([0-9a-f-]{55})"')
_ENVELOPE_BYTES = 1024
_DIAL_FIELDS = ("agent", "number", "queue_prefix")


def call_record(call: Call, revision: int, country: str | None = None) -> dict[str, object]:
    """Return the call as the `data` of its event; for an open call, what is known so far.

    With the `country` of the source, numbers have their international form too.
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
        "agent": _leg(call, call.agent, mask, country),
        "dialed": _leg(call, call.dialed, mask, country),
        "other_legs": [_leg(call, leg, mask, country) for leg in call.other_legs],
        "fields": _fields(call, mask),
        "ignored": _ignored(call, mask),
    }


def without_fields(record: Mapping[str, Any]) -> dict[str, object]:
    """Return a record without the adapter values of the call and its legs, used or ignored."""
    legs = {side: record[side] and {**record[side], "fields": {}} for side in SIDES}
    others = [{**leg, "fields": {}} for leg in record["other_legs"]]
    return {**record, **legs, "other_legs": others, "fields": {}, "ignored": []}


def parties_of(call: Call) -> dict[str, object]:
    """Return the part of a record about what kind of call it is, its queue, and who ended it."""
    return {"call_type": call.call_type, "queue": queue_of(call), "ended_by": call.ended_by}


def leg_identity(call: Call, leg: Leg) -> dict[str, object]:
    """Return the part of a leg's record that identifies the leg and the person on it."""
    person = person_of(call, leg)
    return {
        "call_id": leg.call_id,
        "extension": person.extension,
        "name": person.name,
        "user_id": person.user_id,
        "number": person.number,
    }


def dial_of(call: Call) -> dict[str, object]:
    """Return the part of a record about the dial request."""
    return {
        "reference": call.dial.get("reference"),
        "metadata": {name.removeprefix(_METADATA): value for name, value in call.dial.items() if name.startswith(_METADATA)},
        "dial": {name: call.dial[name] for name in _DIAL_FIELDS if name in call.dial} or None,
    }


def call_event(call: Call, record: Mapping[str, object], traceparent: str = "") -> tuple[str, str, bytes]:
    """Return routing key, id and body of the event of a completed call, or of an amended one from the second revision on."""
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    event_id = event_id_of(call.key, record["revision"])
    kind = "completed" if record["revision"] == 1 else "amended"
    body = _cloudevent(call.key, f"callfold.call.{kind}.v1", event_id, call.last_event_at, record, traceparent=traceparent)
    return f"call.{kind}.{call.key.source}.{record['outcome']}", event_id, body


def event_id_of(key: CallKey, revision: object) -> str:
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


def sides_of(call: Call) -> list[tuple[str, Leg]]:
    """Return the legs in the order of a record, each with its side: `agent`, `dialed` or `other`."""
    sides = [("agent", call.agent)] if call.agent is not None else []
    sides += [("dialed", call.dialed)] if call.dialed is not None else []
    return sides + [("other", leg) for leg in call.other_legs]


def recording_event(
    job: RecordingJob, result: str, at: str, data: Mapping[str, object], *, suffix: str = ""
) -> tuple[str, str, bytes]:
    """Return routing key, id and body of an event of a recording; `result` is `stored`, `absent`, `failed` or `expired`.

    `suffix` gives a further event of the same kind an id that differs from the first.
    """
    key = CallKey(job.source, job.call)  # type: ignore[arg-type]
    event_id = f"{job.id}/{result}{suffix}"
    identity = {
        "source": job.source,
        "request_id": job.request_id,
        "call_id": job.call_id,
        "guid": job.guid,
        "leg": job.leg,
    }
    body = _cloudevent(key, f"callfold.recording.{result}.v1", event_id, at, identity | dict(data))
    return f"recording.{result}.{job.source}", event_id, body


def _cloudevent(key: CallKey, kind: str, event_id: str, at: str, data: Mapping[str, object], *, traceparent: str = "") -> bytes:
    extensions = {"traceparent": traceparent} if traceparent else {}
    return cloud_event(f"/callfold/{key.source}", key.call, kind, event_id, at=at, data=data, extensions=extensions)


class _Mask(dict[tuple[str, str], str]):
    """The masked values of one record. Masking is costly, and the legs of a call have many values in common."""

    def __missing__(self, named: tuple[str, str]) -> str:
        # An adapter may carry a credential under any name.
        self[named] = masked = mask_value(*named)
        return masked


def _dial_with_e164(call: Call, country: str | None) -> dict[str, object]:
    """Return the part of a record about the dial request. A summary has no international form: it follows from the number."""
    known = dial_of(call)
    if country is not None and isinstance(known["dial"], dict):
        known["dial"][E164] = _e164(known["dial"].get("number"), country)
    return known


def _e164(number: object, country: str | None) -> str | None:
    return e164(number, country) if isinstance(number, str) and country is not None else None


def _leg(call: Call, leg: Leg | None, mask: _Mask, country: str | None) -> dict[str, object] | None:
    if leg is None:
        return None
    identity = leg_identity(call, leg)
    number = str(identity["number"] or "")
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


def _ignored(call: Call, mask: _Mask) -> list[dict[str, str | None]]:
    """Return the values of the adapter that were not used as they were sent, in a fixed order."""
    rows = [
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
    return sorted(rows, key=lambda row: [value or "" for value in row.values()])
