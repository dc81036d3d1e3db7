"""The sidecar of a leg: a JSON file with FocalScope's ids, the call record, and a description of each recording.

`recording` describes the recording of the leg. `others` describes recordings of the same leg with other content: all are kept.
A recording's file is found next to its sidecar, by the last part of its URI, so an archive can be moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from shared.domain.recording import RecordingJob, RecordingState
from shared.domain.recording_info import RecordingInfo

ENCRYPTED_SUFFIX = ".age"
# Longer than an attempt normally takes, including its wait for a free download slot.
_ATTEMPT_S = 3600


def path_of(job: RecordingJob, suffix: str) -> str:
    """Return the path of a file of a job: `acme/monitor/2026-UTC/11/23/<guid>.wav`."""
    return f"{day_of(job.source, job.started_at)}/{job.name}.{suffix}"


def day_of(source: str, at: str) -> str:
    """Return the directory of a UTC day, given as RFC 3339."""
    year, month, day = at[:10].split("-")
    return f"{source}/monitor/{year}-UTC/{month}/{day}"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Content of a sidecar.

    Attributes:
        call: key of the call within its source: `513` or `call-<CallID>`.
        started_at: time that decides the directory.
        record: call record of the latest revision.
        asked: request that `recording.state` answers: (revision of the call, round).
    """

    source: str
    call: str
    request_id: int | None
    call_id: str
    guid: str | None
    name: str
    leg: str
    started_at: str
    recording: RecordingInfo
    record: Mapping[str, Any]
    others: tuple[RecordingInfo, ...] = ()
    asked: tuple[int, int] = (0, 0)
    path: str = field(default="", compare=False)

    def sibling(self, suffix: str) -> str:
        """Return the path of a file of the same leg: `<name>.<suffix>`."""
        return self.path.removesuffix("json") + suffix

    def file(self, info: RecordingInfo) -> str:
        """Return the path of a recording's file."""
        return f"{self.path.rpartition('/')[0]}/{str(info.uri).rpartition('/')[2]}"

    @property
    def contents(self) -> list[RecordingInfo]:
        """List the recordings whose files are in the archive, according to this sidecar."""
        if self.state is RecordingState.EXPIRED:
            return []
        return [info for info in (self.recording, *self.others) if info.is_stored]

    @property
    def state(self) -> RecordingState:
        return RecordingState(str(self.recording.state))

    @property
    def job(self) -> RecordingJob:
        """Return the job that would fetch this recording; without its RecordingURL, a credential that no sidecar has."""
        fields = {name: getattr(self, name) for name in RecordingJob.__slots__ if hasattr(self, name)}
        return RecordingJob(**fields | {"fetch": True, "state": RecordingState.WAITING, "recording_url": None})

    def encode(self) -> bytes:
        data = {
            "v": 1,
            "nId": int(self.call_id),
            "usId": self.guid,
            "source": self.source,
            "call_key": self.call,
            "request_id": self.request_id,
            "call_id": self.call_id,
            "guid": self.guid,
            "name": self.name,
            "leg": self.leg,
            "filed_at": self.started_at,
            "asked": self.asked,
            "recording": self.recording.to_json(),
            "others": [other.to_json() for other in self.others],
            "call": dict(self.record),
        }
        return orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def decode(cls, body: bytes, path: str) -> Sidecar:
        """Read a sidecar.

        Raises:
            ValueError: the body is no sidecar of version 1.
        """
        data = orjson.loads(body)
        if not isinstance(data, dict) or data.get("v") != 1:
            raise ValueError("not a sidecar of version 1")
        try:
            _check(data)
            return cls(
                source=data["source"],
                call=data["call_key"],
                request_id=data["request_id"],
                call_id=data["call_id"],
                guid=data["guid"],
                name=data["name"],
                leg=data["leg"],
                started_at=data["filed_at"],
                recording=RecordingInfo.from_json(data["recording"]),
                record=data["call"],
                others=tuple(map(RecordingInfo.from_json, data["others"])),
                asked=(data["asked"][0], data["asked"][1]),
                path=path,
            )
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"not a sidecar of version 1: {error!r}") from error


def _check(data: Mapping[str, Any]) -> None:
    """Check the fields that code relies on: the file may have been edited.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: a field is missing, or has a wrong type or value.
    """
    texts = [data[name] for name in ("source", "call_key", "call_id", "name", "leg", "filed_at")]
    if not all(isinstance(text, str) for text in texts) or not isinstance(data["call"], dict):
        raise TypeError("a field has a wrong type")
    datetime.fromisoformat(data["filed_at"])
    for entry in (data["recording"], *data["others"]):
        state = RecordingState(entry["state"]) if entry is data["recording"] else RecordingState.STORED
        if entry.get("at") is not None:
            datetime.fromisoformat(entry["at"])
        if state in {RecordingState.STORED, RecordingState.STORING} and not isinstance(entry["uri"], str):
            raise TypeError("the URI is not a string")


def is_overdue(sidecar: Sidecar, schedule_s: Sequence[float]) -> bool:
    """Return whether a recording has been on its way for longer than its job can take, so that the job must be lost."""
    if sidecar.state not in {RecordingState.WAITING, RecordingState.STORING}:
        return False
    attempted_at = sidecar.recording.at
    since = attempted_at or sidecar.record.get("ended_at") or sidecar.started_at
    # Each attempt that ends is noted with its time. Without a note, no attempt has ended yet.
    longest_s = _ATTEMPT_S + (max(schedule_s) if attempted_at else sum(schedule_s))
    return (datetime.now(UTC) - datetime.fromisoformat(str(since))).total_seconds() > longest_s


def updated_sidecar(job: RecordingJob, before: Sidecar | None, path: str) -> Sidecar:
    """Return the sidecar of a job: the record of the newer revision, and what the sidecar `before` says of recordings."""
    fresh = Sidecar(
        source=job.source,
        call=job.call,
        request_id=job.request_id,
        call_id=job.call_id,
        guid=job.guid,
        name=job.name,
        leg=job.leg,
        started_at=job.started_at,
        recording=RecordingInfo(RecordingState(job.state)),
        record=job.record,
        path=path,
    )
    if before is None:
        return fresh
    is_newer = job.revision >= int(before.record.get("revision", 0))
    if not is_newer:
        return before
    # A leg that was not recorded, or not wanted, can be both in a later revision.
    is_final = before.state not in {RecordingState.NOT_RECORDED, RecordingState.NOT_WANTED}
    recording = before.recording if is_final else fresh.recording
    return replace(fresh, recording=recording, others=before.others, asked=before.asked)
