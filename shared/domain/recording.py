"""Recording jobs, and the states of a recording."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import orjson

from shared.domain.ids import CALL_ID, CALL_REF, RECORDING_NAME, SOURCE_NAME
from shared.domain.raw_types import RecordingJobBody, Side

# Values that become part of a path or an id.
_JOB_FIELDS = {
    "source": SOURCE_NAME,
    "call": CALL_REF,
    "call_id": CALL_ID,
    "name": RECORDING_NAME,
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


class RecordingState(StrEnum):
    """States of a recording. A new sidecar has one of the first three."""

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
    """A job to archive one leg: always its sidecar, and its recording if `fetch` is true.

    Attributes:
        name: name of the leg's files, see `file_names.py`: its GUID, or its CallID if it has no GUID.
        leg: `agent`, `dialed` or `other`.
        fetch: download the recording; otherwise the job only writes the sidecar.
        state: state for a new sidecar: `waiting`, `not_recorded` or `not_wanted`.
        recording_url: RecordingURL from the adapter as it was sent, or None if it names no recording. A credential.
        started_at: start of the call in its first revision; its date decides the directory.
        record: call record for the sidecar.
    """

    source: str
    call: str
    request_id: int | None
    call_id: str
    guid: str | None
    name: str
    leg: Side
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
        body: RecordingJobBody = {
            "v": 1,
            "source": self.source,
            "call": self.call,
            "request_id": self.request_id,
            "call_id": self.call_id,
            "guid": self.guid,
            "name": self.name,
            "leg": self.leg,
            "fetch": self.fetch,
            "state": self.state,
            "recording_url": self.recording_url,
            "started_at": self.started_at,
            "record": self.record,
        }
        return orjson.dumps(body)

    @classmethod
    def decode(cls, body: bytes) -> RecordingJob:
        """Read a job.

        Raises:
            ValueError: the body is not a job of version 1.
        """
        fields = orjson.loads(body)
        if not isinstance(fields, dict) or fields.pop("v", None) != 1 or set(fields) != set(cls.__slots__):
            raise ValueError("not a recording job of version 1")
        wrong = [name for name, pattern in _JOB_FIELDS.items() if not pattern.fullmatch(str(fields[name]))]
        wrong += [name for name, kinds in _JOB_TYPES.items() if not isinstance(fields[name], kinds)]
        if not wrong and (fields["state"] not in _NEW_STATES or type(fields["record"].get("revision", 1)) is not int):
            wrong = ["state or revision"]
        if wrong:
            raise ValueError(f"not a recording job of version 1: {', '.join(wrong)}")
        datetime.fromisoformat(fields["started_at"])
        return cls(**fields)
