"""A recording on its way: the job that asks for one, and what can become of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import orjson

from shared.domain.ids import CALL_ID, CALL_REF, RECORDING_NAME, SOURCE_NAME

# What becomes part of a path or an id.
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
        name: names the files of this leg, see `naming.py`: its GUID, or its CallID where no GUID was sent.
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
        if not wrong and (told["state"] not in _NEW_STATES or type(told["record"].get("revision", 1)) is not int):
            wrong = ["state or revision"]
        if wrong:
            raise ValueError(f"not a recording job of version 1: {', '.join(wrong)}")
        datetime.fromisoformat(told["started_at"])
        return cls(**told)
