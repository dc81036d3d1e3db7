"""The record of a call, and the events that tell of calls and recordings, with ids that a repeat would repeat.

Events are CloudEvents 1.0 in structured JSON (CloudEvents specification 1.0.2, JSON format). Bodies are a pure function of
the call and its revision, so that whoever publishes them publishes the same bytes.
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
    """Write the call as the `data` of its event; of an open call, what is known so far."""
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
    """Write what a record tells of the dial request."""
    return {
        "reference": call.dial.get("reference"),
        "metadata": {name.removeprefix(_METADATA): value for name, value in call.dial.items() if name.startswith(_METADATA)},
        "dial": {name: call.dial[name] for name in _DIAL_FIELDS if name in call.dial} or None,
    }


def call_event(call: Call, record: Mapping[str, object]) -> tuple[str, str, bytes]:
    """Write the event of a completed or, from the second revision on, amended call: (routing key, id, body)."""
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    event_id = f"{call.key}/{record['revision']}"
    kind = "completed" if record["revision"] == 1 else "amended"
    body = _cloudevent(call.key, f"callfold.call.{kind}.v1", event_id, call.last_event_at, record)
    return f"call.{kind}.{call.key.source}.{record['outcome']}", event_id, body


def sides_of(call: Call) -> list[tuple[str, Leg]]:
    """List the legs as a record does, each with its side: `agent`, `dialed` or `other`."""
    sides = [(name, leg) for name, leg in zip(SIDES, (call.agent, call.dialed), strict=True) if leg]
    return sides + [("other", leg) for leg in call.other_legs]


def recording_event(
    job: RecordingJob, result: str, at: str, data: Mapping[str, object], *, suffix: str = ""
) -> tuple[str, str, bytes]:
    """Write the event of what became of a recording (`stored`, `absent`, `failed`, `expired`): (routing key, id, body).

    `suffix` tells a further event of the same kind from the first.
    """
    key = CallKey(job.source, job.call)  # type: ignore[arg-type]
    event_id = f"{job.id}/{result}{suffix}"
    told = {
        "source": job.source,
        "request_id": job.request_id,
        "call_id": job.call_id,
        "guid": job.guid,
        "leg": job.leg,
    }
    body = _cloudevent(key, f"callfold.recording.{result}.v1", event_id, at, told | dict(data))
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
    """Gather the legs' other adapter values; where legs differ the dialed one counts, since it is the call asked for."""
    fields: dict[str, str] = {}
    for leg in (call.dialed, call.agent, *call.other_legs):
        for name, value in (leg.fields if leg else {}).items():
            # An adapter may carry a credential under a name we do not know.
            fields.setdefault(name, mask_value(name, value))
    return fields
