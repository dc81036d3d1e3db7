"""What follows from a complete call: the call event and the recording jobs, with ids that a repeat would repeat.

Events are CloudEvents 1.0 in structured JSON (CloudEvents specification 1.0.2, JSON format). Bodies are a pure function of
the call and its revision, so that whoever publishes them publishes the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import orjson

from shared.adapter import Placeholder, mask_credentials
from shared.call import Call
from shared.ids import CallKey
from shared.leg import Leg

CLOUDEVENT = "application/cloudevents+json"
JSON = "application/json"
SIDES = ("agent", "dialed")


@dataclass(frozen=True, slots=True)
class RecordingJob:
    """A leg to archive: always its sidecar, and its recording where `fetch` is set.

    Attributes:
        leg: `agent`, `dialed` or `other`.
        recording_url: RecordingURL as the adapter sent it, or None to use the source's template. A credential.
        record: the call record that goes into the sidecar.
    """

    source: str
    call: str
    request_id: int | None
    call_id: str
    guid: str | None
    leg: str
    fetch: bool
    recording_url: str | None
    started_at: str
    record: Mapping[str, object]

    @property
    def name(self) -> str:
        """Name the files of this leg: its GUID, or its CallID where no GUID was sent."""
        return self.guid or f"call-{self.call_id}"

    @property
    def id(self) -> str:
        return f"{self.source}/{self.call}/recording/{self.name}"

    def encode(self) -> bytes:
        return orjson.dumps({"v": 1} | {name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def decode(cls, body: bytes) -> RecordingJob:
        """Read a job.

        Raises:
            ValueError: the body is not a job of version 1.
        """
        told = orjson.loads(body)
        if not isinstance(told, dict) or told.pop("v", None) != 1 or set(told) != set(cls.__slots__):
            raise ValueError("not a recording job of version 1")
        return cls(**told)


def call_record(call: Call, revision: int) -> dict[str, object]:
    """Write the call as the `data` of its event."""
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    return {
        "source": call.key.source,
        "request_id": call.request_id,
        "revision": revision,
        "outcome": call.closing.outcome,
        "complete": call.closing.complete,
        "close_reason": call.closing.reason,
        "reference": call.dial.get("reference"),
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


def call_event(call: Call, record: Mapping[str, object]) -> tuple[str, str, bytes]:
    """Write the event of a completed or, from the second revision on, amended call: (routing key, id, body)."""
    event_id = f"{call.key}/{record['revision']}"
    kind = "completed" if record["revision"] == 1 else "amended"
    body = _cloudevent(call.key, f"callfold.call.{kind}.v1", event_id, call.last_event_at, record)
    return f"call.{kind}.{call.key.source}.{record['outcome']}", event_id, body


def summary(call: Call) -> str:
    """Sum up what a change of amends a record: outcome, completeness, the legs' states and recordings, the talk time."""
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    legs = {f"{leg.call_type}/{leg.call_id}": [leg.state, recorded(leg)] for leg in call.legs}
    told = {"outcome": call.closing.outcome, "complete": call.closing.complete, "talk_seconds": call.talk_seconds, "legs": legs}
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()


def amends(before: str, after: str) -> bool:
    """Tell whether what a summary tells has changed. Talk times that differ by less than a second have not.

    They are times of receipt, and the earliest of a callback that came twice may be folded last.
    """
    if before == after:
        return False
    old, new = orjson.loads(before), orjson.loads(after)
    talked = [told.pop("talk_seconds") for told in (old, new)]
    if None in talked:
        return bool(old != new or talked[0] != talked[1])
    return bool(old != new or abs(talked[0] - talked[1]) >= 1)


def recorded(leg: Leg) -> str:
    """Name the recording of a leg, or nothing: its GUID tells where it goes, a RecordingURL that it can be had."""
    return f"{leg.guid or leg.call_id}{' with URL' if leg.recording_url else ''}" if leg.recorded else ""


def had_recordings(summed_up: str) -> set[str]:
    """Name the recordings whose jobs were published with a summary."""
    return {name for _, name in orjson.loads(summed_up)["legs"].values() if name} if summed_up else set()


def recording_event(job: RecordingJob, result: str, at: str, data: Mapping[str, object]) -> tuple[str, str, bytes]:
    """Write the event of a recording that came to its end (`stored`, `absent` or `failed`): (routing key, id, body)."""
    key = CallKey(job.source, job.call)  # type: ignore[arg-type]
    event_id = f"{job.id}/{result}"
    told = {
        "source": job.source,
        "request_id": job.request_id,
        "call_id": job.call_id,
        "guid": job.guid,
        "leg": job.leg,
    }
    body = _cloudevent(key, f"callfold.recording.{result}.v1", event_id, at, told | dict(data))
    return f"recording.{result}.{job.source}", event_id, body


def recording_jobs(
    call: Call, record: Mapping[str, object], record_legs: Collection[str], had: Collection[str] = ()
) -> list[RecordingJob]:
    """Write a job for every leg whose recording was not `had` with an earlier revision.

    It fetches where the leg was recorded and the source wants that side.
    """
    sides = [(name, leg) for name, leg in zip(SIDES, (call.agent, call.dialed), strict=True) if leg]
    sides += [("other", leg) for leg in call.other_legs]
    return [
        RecordingJob(
            source=call.key.source,
            call=call.key.call,
            request_id=call.request_id,
            call_id=leg.call_id,
            guid=leg.guid,
            leg=name,
            fetch=leg.recorded and (name in record_legs or name == "other"),
            recording_url=leg.recording_url,
            started_at=call.started_at,
            record=record,
        )
        for name, leg in sides
        if recorded(leg) not in had
    ]


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
            fields.setdefault(name, mask_credentials(value))
    fields.pop(Placeholder.RECORDING_URL, None)
    return fields
