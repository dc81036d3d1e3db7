"""The record of a call, and the events of calls and recordings.

Events are CloudEvents 1.0 in structured JSON (CloudEvents specification 1.0.2, JSON format). Ids and bodies are a pure function
of the call and its revision, so every worker that publishes an event publishes the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from shared.domain.call import Call
from shared.domain.ids import CallKey
from shared.domain.leg import Leg
from shared.domain.recording import RecordingJob
from shared.masking import mask_value

CLOUDEVENT = "application/cloudevents+json"
JSON = "application/json"
SIDES = ("agent", "dialed")
_METADATA = "metadata."
_DIAL_FIELDS = ("agent", "number", "queue_prefix")


def call_record(call: Call, revision: int) -> dict[str, object]:
    """Return the call as the `data` of its event; for an open call, what is known so far."""
    return {
        "source": call.key.source,
        "request_id": call.request_id,
        "revision": revision,
        "outcome": call.closing.outcome if call.closing else None,
        "complete": call.closing.complete if call.closing else None,
        "close_reason": call.closing.reason if call.closing else None,
        **dial_of(call),
        "started_at": call.started_at,
        "answered_at": call.answered_at,
        "ended_at": call.ended_at,
        "ring_seconds": call.ring_seconds,
        "talk_seconds": call.talk_seconds,
        "agent": _leg(call.agent),
        "dialed": _leg(call.dialed),
        "other_legs": [_leg(leg) for leg in call.other_legs],
        "fields": _fields(call),
    }


def dial_of(call: Call) -> dict[str, object]:
    """Return the part of a record about the dial request."""
    return {
        "reference": call.dial.get("reference"),
        "metadata": {name.removeprefix(_METADATA): value for name, value in call.dial.items() if name.startswith(_METADATA)},
        "dial": {name: call.dial[name] for name in _DIAL_FIELDS if name in call.dial} or None,
    }


def call_event(call: Call, record: Mapping[str, object]) -> tuple[str, str, bytes]:
    """Return routing key, id and body of the event of a completed call, or of an amended one from the second revision on."""
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    event_id = f"{call.key}/{record['revision']}"
    kind = "completed" if record["revision"] == 1 else "amended"
    body = _cloudevent(call.key, f"callfold.call.{kind}.v1", event_id, call.last_event_at, record)
    return f"call.{kind}.{call.key.source}.{record['outcome']}", event_id, body


def sides_of(call: Call) -> list[tuple[str, Leg]]:
    """Return the legs in the order of a record, each with its side: `agent`, `dialed` or `other`."""
    sides = [(name, leg) for name, leg in zip(SIDES, (call.agent, call.dialed), strict=True) if leg]
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


def _cloudevent(key: CallKey, kind: str, event_id: str, at: str, data: Mapping[str, object]) -> bytes:
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": f"/callfold/{key.source}",
            "subject": key.call,
            "type": kind,
            "time": at,
            "datacontenttype": JSON,
            "data": data,
        }
    )


def _leg(leg: Leg | None) -> dict[str, object] | None:
    if leg is None:
        return None
    return {
        "call_id": leg.call_id,
        "guid": leg.guid,
        "state": leg.state,
        "inferred": leg.inferred,
        "picked_up_at": leg.picked_up_at,
        "missed_at": leg.missed_at,
        "hung_up_at": leg.hung_up_at,
        "recorded": leg.recorded,
    }


def _fields(call: Call) -> dict[str, str]:
    """Return the legs' other adapter values. If legs differ, the dialed leg counts, since it is the requested call."""
    fields: dict[str, str] = {}
    for leg in (call.dialed, call.agent, *call.other_legs):
        for name, value in (leg.fields if leg else {}).items():
            if name not in fields:  # masking is costly
                # An adapter may carry a credential under any name.
                fields[name] = mask_value(name, value)
    return fields
