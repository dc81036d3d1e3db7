"""What follows from a complete call: the call event and the recording jobs, with ids that a repeat would repeat.

Events are CloudEvents 1.0 in structured JSON (CloudEvents specification 1.0.2, JSON format). Bodies are a pure function of
the call and its revision, so that whoever publishes them publishes the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import orjson

from shared.call import Call
from shared.ids import CallKey
from shared.leg import Leg
from shared.masking import mask_value

CLOUDEVENT = "application/cloudevents+json"
JSON = "application/json"
SIDES = ("agent", "dialed")
# What becomes part of a path or an id.
_JOB_FIELDS = {
    "source": re.compile(r"[a-z0-9][a-z0-9_-]{0,62}"),
    "call": re.compile(r"\d{1,20}|call-\d{1,20}", re.ASCII),
    "call_id": re.compile(r"\d{1,20}", re.ASCII),
    "name": re.compile(r"[0-9A-Za-z-]{1,80}(\.\d{1,20})?", re.ASCII),
    "started_at": re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]{8,15}Z", re.ASCII),
}
_JOB_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("source", "call", "call_id", "name", "leg", "state", "started_at"), str),
    "request_id": (int, type(None)),
    "guid": (str, type(None)),
    "recording_url": (str, type(None)),
    "fetch": bool,
    "record": dict,
}
_METADATA = "metadata."
_DIAL_FIELDS = ("agent", "number", "queue_prefix")
# Of a record: what a dial request told.
_DIAL_TOLD = ("reference", "metadata", "dial")
# What a recording's event tells of it, beside whose it is.
RECORDING_TOLD = ("uri", "bytes", "sha256", "seconds", "channels", "sample_rate", "encryption", "attempts", "reason")


class RecordingState(StrEnum):
    """What has become of a recording so far; the first three are what a new sidecar can say."""

    WAITING = "waiting"
    NOT_RECORDED = "not_recorded"
    NOT_WANTED = "not_wanted"
    STORING = "storing"
    STORED = "stored"
    ABSENT = "absent"
    FAILED = "failed"
    EXPIRING = "expiring"
    EXPIRED = "expired"


_NEW_STATES = frozenset({RecordingState.WAITING, RecordingState.NOT_RECORDED, RecordingState.NOT_WANTED})


@dataclass(frozen=True, slots=True)
class RecordingJob:
    """A leg to archive: always its sidecar, and its recording where `fetch` is set.

    Attributes:
        name: names the files of this leg: its GUID, or its CallID where no GUID was sent.
        leg: `agent`, `dialed` or `other`.
        fetch: whether this job is to fetch; otherwise it only writes the sidecar.
        state: what a new sidecar tells of the recording: `waiting`, `not_recorded` or `not_wanted`.
        recording_url: RecordingURL as the adapter sent it, or None to use the source's template. A credential.
        started_at: when the call started as its first revision told: by its date it is filed.
        record: the call record that goes into the sidecar.
    """

    source: str
    call: str
    request_id: int | None
    call_id: str
    guid: str | None
    name: str
    leg: str
    fetch: bool
    state: str
    recording_url: str | None
    started_at: str
    record: Mapping[str, object]

    @property
    def id(self) -> str:
        return f"{self.source}/{self.call}/recording/{self.name}"

    @property
    def revision(self) -> int:
        return int(str(self.record.get("revision", 1)))

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
        wrong = [name for name, pattern in _JOB_FIELDS.items() if not pattern.fullmatch(str(told[name]))]
        wrong += [name for name, kinds in _JOB_TYPES.items() if not isinstance(told[name], kinds)]
        if not wrong and (told["state"] not in _NEW_STATES or not isinstance(told["record"].get("revision", 1), int)):
            wrong = ["state or revision"]
        if wrong:
            raise ValueError(f"not a recording job of version 1: {', '.join(wrong)}")
        datetime.fromisoformat(told["started_at"])
        return cls(**told)


def call_record(call: Call, revision: int) -> dict[str, object]:
    """Write the call as the `data` of its event; of an open call, what is known so far."""
    return {
        "source": call.key.source,
        "request_id": call.request_id,
        "revision": revision,
        "outcome": call.closing.outcome if call.closing else None,
        "complete": call.closing.complete if call.closing else None,
        "close_reason": call.closing.reason if call.closing else None,
        **_dial(call),
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


def _dial(call: Call) -> dict[str, object]:
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


def summary(call: Call, before: str = "") -> str:
    """Sum up what a change of amends a record: outcome, completeness, the legs' states and recordings, talk time, the dial.

    It also keeps the time by which the first revision, summed up in `before`, was filed.
    """
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    legs = {_leg_key(leg): [leg.state, recorded(leg)] for leg in call.legs}
    told = {"outcome": call.closing.outcome, "complete": call.closing.complete, "talk_seconds": call.talk_seconds, "legs": legs}
    told |= dial_told(_dial(call)) | {"filed_at": filed_at(call, before)}
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()


def dial_told(record: Mapping[str, object]) -> dict[str, object]:
    """Tell what a record says of its dial request, for a summary; of a call that was not dialed there is nothing."""
    return {name: record[name] for name in _DIAL_TOLD if record.get(name)}


def filed_at(call: Call, before: str) -> str:
    """Tell the start time by whose date a call's recordings are filed; later revisions do not move them."""
    return str(orjson.loads(before)["filed_at"]) if before else call.started_at


def amends(before: str, after: str) -> bool:
    """Tell whether what a summary tells has changed. Talk times that differ by less than a second have not.

    They are times of receipt, and the earliest of a callback that came twice may be folded last.
    """
    if not before:  # sealed by a rebuild that knew no more than the revision
        return True
    if before == after:
        return False
    old, new = orjson.loads(before), orjson.loads(after)
    for told in (old, new):
        del told["filed_at"]
    talked = [told.pop("talk_seconds") for told in (old, new)]
    if None in talked:
        return bool(old != new or talked[0] != talked[1])
    return bool(old != new or abs(talked[0] - talked[1]) >= 1)


def recorded(leg: Leg) -> str:
    """Name the recording of a leg, or nothing: its GUID tells where it goes, a RecordingURL that it can be had."""
    return f"{leg.guid or leg.call_id}{' with URL' if leg.recording_url else ''}" if leg.recorded else ""


def had_recordings(summed_up: str) -> set[tuple[str, str]]:
    """List the legs, each with the name of its recording, whose jobs were published with a summary.

    Two legs may say that they have one GUID, so the name alone does not tell whose recording was fetched.
    """
    legs = orjson.loads(summed_up)["legs"] if summed_up else {}
    return {(key, name) for key, (_, name) in legs.items() if name}


def _leg_key(leg: Leg) -> str:
    return f"{leg.call_type}/{leg.call_id}"


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


def recording_jobs(
    call: Call, record: Mapping[str, object], record_legs: Collection[str], before: str = ""
) -> list[RecordingJob]:
    """Write a job for every leg; `before` sums up the revision before this one.

    It fetches where the leg was recorded, the source wants that side, and no earlier revision had it fetched.
    """
    had = had_recordings(before)
    sides = [(name, leg) for name, leg in zip(SIDES, (call.agent, call.dialed), strict=True) if leg]
    sides += [("other", leg) for leg in call.other_legs]
    return [
        RecordingJob(
            source=call.key.source,
            call=call.key.call,
            request_id=call.request_id,
            call_id=leg.call_id,
            guid=leg.guid,
            name=_file_name(leg, [other.guid for _, other in sides[:index]]),
            leg=name,
            fetch=(state := _recording_state(name, leg, record_legs)) == RecordingState.WAITING
            and (_leg_key(leg), recorded(leg)) not in had,
            state=state,
            recording_url=leg.recording_url,
            started_at=filed_at(call, before),
            record=record,
        )
        for index, (name, leg) in enumerate(sides)
    ]


def _file_name(leg: Leg, taken: Collection[str | None]) -> str:
    """Name the files of a leg by its GUID; a leg that has the GUID of another of its call has its CallID as well."""
    if leg.guid is None:
        return f"call-{leg.call_id}"
    return f"{leg.guid}.{leg.call_id}" if leg.guid in taken else leg.guid


def _recording_state(side: str, leg: Leg, record_legs: Collection[str]) -> RecordingState:
    if not leg.recorded:
        return RecordingState.NOT_RECORDED
    return RecordingState.WAITING if side in record_legs or side == "other" else RecordingState.NOT_WANTED


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
