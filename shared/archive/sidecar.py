"""The json beside each recording: FocalScope's ids, what became of the recording, the leg and its call.

`recording` has a `state`, see `RecordingState`; with it, what the recording's event told. Several recordings of one leg that
differ are all kept: `others`. Files are found beside their sidecar, by the last part of the URI that was told: an archive can
be moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from shared.domain.recording import RecordingJob, RecordingState

Told = Mapping[str, Any]  # parsed JSON of our own
ENCRYPTED_SUFFIX = ".age"
# So much of a fingerprint tells the contents of one leg apart, in names of files and ids of events.
HASH_DIGITS = 8
# Longer than all but the longest try takes, with the wait for its turn.
_TRY_S = 3600


def path_of(job: RecordingJob, suffix: str) -> str:
    """Place a job's file: `acme/monitor/2026-UTC/11/23/<guid>.wav`."""
    return f"{day_of(job.source, job.started_at)}/{job.name}.{suffix}"


def day_of(source: str, at: str) -> str:
    """Name the directory of a UTC day, given as RFC 3339."""
    year, month, day = at[:10].split("-")
    return f"{source}/monitor/{year}-UTC/{month}/{day}"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One json of the archive.

    Attributes:
        call: the key of the call within its source: `513` or `call-<CallID>`.
        asked: which asking of the recording its state is the answer to: (revision, round).
    """

    source: str
    call: str
    request_id: int | None
    call_id: str
    guid: str | None
    name: str
    leg: str
    started_at: str
    recording: Told
    record: Told
    others: tuple[Told, ...] = ()
    asked: tuple[int, int] = (0, 0)
    path: str = field(default="", compare=False)

    def beside(self, suffix: str) -> str:
        """Name a file of the same leg: `<name>.<suffix>`."""
        return self.path.removesuffix("json") + suffix

    def file(self, told: Told) -> str:
        """Name the file of a recording that this sidecar tells of."""
        return f"{self.path.rpartition('/')[0]}/{str(told['uri']).rpartition('/')[2]}"

    @property
    def contents(self) -> list[Told]:
        """List the recordings that are stored, by what it says."""
        if self.state is RecordingState.EXPIRED:
            return []
        stored = RecordingState.STORED
        return [told for told in (self.recording, *self.others) if told.get("state", stored) == stored]

    @property
    def state(self) -> RecordingState:
        return RecordingState(self.recording["state"])

    @property
    def job(self) -> RecordingJob:
        """Write the job that would fetch this recording (by the source's template: a RecordingURL is never kept here)."""
        told = {name: getattr(self, name) for name in RecordingJob.__slots__ if hasattr(self, name)}
        return RecordingJob(**told | {"fetch": True, "state": RecordingState.WAITING, "recording_url": None})

    def encode(self) -> bytes:
        told = {
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
            "recording": dict(self.recording),
            "others": [dict(other) for other in self.others],
            "call": dict(self.record),
        }
        return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def decode(cls, body: bytes, path: str) -> Sidecar:
        """Read a sidecar.

        Raises:
            ValueError: it is none of version 1.
        """
        told = orjson.loads(body)
        if not isinstance(told, dict) or told.get("v") != 1:
            raise ValueError("not a sidecar of version 1")
        try:
            _check(told)
            return cls(
                source=told["source"],
                call=told["call_key"],
                request_id=told["request_id"],
                call_id=told["call_id"],
                guid=told["guid"],
                name=told["name"],
                leg=told["leg"],
                started_at=told["filed_at"],
                recording=told["recording"],
                record=told["call"],
                others=tuple(told["others"]),
                asked=(told["asked"][0], told["asked"][1]),
                path=path,
            )
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"not a sidecar of version 1: {error!r}") from error


def _check(told: Mapping[str, Any]) -> None:
    """See that everything is of its kind: somebody may have written into the file.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is not.
    """
    texts = [told[name] for name in ("source", "call_key", "call_id", "name", "leg", "filed_at")]
    if not all(isinstance(text, str) for text in texts) or not isinstance(told["call"], dict):
        raise TypeError("a field has a wrong type")
    datetime.fromisoformat(told["filed_at"])
    for words in (told["recording"], *told["others"]):
        state = RecordingState(words["state"]) if words is told["recording"] else RecordingState.STORED
        if words.get("at") is not None:
            datetime.fromisoformat(words["at"])
        if state in {RecordingState.STORED, RecordingState.STORING} and not isinstance(words["uri"], str):
            raise TypeError("the URI is no text")


def is_overdue(sidecar: Sidecar, schedule_s: Sequence[float]) -> bool:
    """Tell whether a recording has been on its way for longer than its job can take, so that the job must be lost."""
    if sidecar.state not in {RecordingState.WAITING, RecordingState.STORING}:
        return False
    noted = sidecar.recording.get("at")
    since = noted or sidecar.record.get("ended_at") or sidecar.started_at
    # A note is written at each try; without one, no try has come to its end yet.
    longest_s = _TRY_S + (max(schedule_s) if noted else sum(schedule_s))
    return (datetime.now(UTC) - datetime.fromisoformat(str(since))).total_seconds() > longest_s


def size_of(told: Told) -> int | None:
    """Tell how many bytes the file of a recording has, sealed or not."""
    size = told.get("stored_bytes", told.get("bytes"))
    return None if size is None else int(size)


def fingerprint_of(told: Told) -> str:
    """Tell the SHA-256 of the file of a recording, sealed or not."""
    return str(told.get("stored_sha256", told.get("sha256")))


def sidecar_of(job: RecordingJob, before: Sidecar | None, path: str) -> Sidecar:
    """Write the sidecar of a job over the one that is there: the newer revision's record, what is known of the recording."""
    fresh = Sidecar(
        source=job.source,
        call=job.call,
        request_id=job.request_id,
        call_id=job.call_id,
        guid=job.guid,
        name=job.name,
        leg=job.leg,
        started_at=job.started_at,
        recording={"state": job.state},
        record=job.record,
        path=path,
    )
    if before is None:
        return fresh
    is_newer = job.revision >= int(before.record.get("revision", 0))
    kept = replace(fresh if is_newer else before, recording=before.recording, others=before.others, asked=before.asked)
    if before.state in {RecordingState.NOT_RECORDED, RecordingState.NOT_WANTED}:  # a later revision may know better
        kept = replace(kept, recording=fresh.recording if is_newer else before.recording)
    return kept
