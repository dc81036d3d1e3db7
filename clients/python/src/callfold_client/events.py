"""Typed events. Fields that this client does not know are in `raw`; fields that an older event lacks are None or empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from callfold_client.envelope import Json, is_time, read_event
from callfold_client.errors import NotAnEventError

_T = TypeVar("_T")
_EMPTY: Json = {}


@dataclass(frozen=True, slots=True)
class Leg:
    """One phone of a call. Times and durations are None if they are not known."""

    call_id: str
    state: str
    recorded: bool
    extension: str | None = None
    name: str | None = None
    user_id: str | None = None
    number: str | None = None
    number_e164: str | None = None
    guid: str | None = None
    call_type: str | None = None
    inferred: bool | None = None
    started_at: datetime | None = None
    picked_up_at: datetime | None = None
    missed_at: datetime | None = None
    hung_up_at: datetime | None = None
    ring_seconds: float | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class CallRecord:
    """The record of a call, the data of `callfold.call.completed` and `callfold.call.amended`."""

    source: str
    revision: int
    outcome: str
    complete: bool
    close_reason: str
    started_at: datetime
    request_id: int | None = None
    reference: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    dial: Mapping[str, Any] | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    ring_seconds: float | None = None
    talk_seconds: float | None = None
    call_type: str | None = None
    queue: str | None = None
    ended_by: str | None = None
    agent: Leg | None = None
    dialed: Leg | None = None
    other_legs: tuple[Leg, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    ignored: Sequence[Json] = ()
    annotations: Sequence[Json] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording, the data of `callfold.recording.stored`, `absent`, `failed` and `expired`."""

    source: str
    call_id: str | None = None
    request_id: int | None = None
    guid: str | None = None
    leg: str | None = None
    uri: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    sha512: str | None = None
    seconds: float | None = None
    channels: int | None = None
    sample_rate: int | None = None
    encryption: Json | None = None
    attempts: int | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()
    kept: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Event:
    """One published event.

    Attributes:
        id: unique; the same event has the same id whenever it is delivered.
        source: the attribute of CloudEvents, such as `/callfold/acme`. The name of the source is `data.source`.
        subject: the call. With `data.source` it identifies the call.
        raw: the whole event as parsed JSON.
        body: the event as it was published.
    """

    id: str
    type: str
    time: datetime
    source: str
    subject: str
    data: CallRecord | Recording
    routing_key: str = ""
    traceparent: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)
    body: bytes = field(default=b"", repr=False, compare=False)

    @property
    def call(self) -> tuple[str, str]:
        """The key of the call: the source and the subject."""
        return self.data.source, self.subject

    @property
    def revision(self) -> int | None:
        """The revision of the call's record; None for the event of a recording."""
        return self.data.revision if isinstance(self.data, CallRecord) else None


def parse_event(body: bytes, routing_key: str = "") -> Event:
    """Read the event of a call or a recording.

    Raises:
        NotAnEventError: it is no such event.
    """
    raw = read_event(body)
    envelope = _Fields(raw, "the event")
    data = raw["data"]
    is_call = raw["type"].startswith("callfold.call.")
    return Event(
        id=raw["id"],
        type=raw["type"],
        time=envelope.required_time("time"),
        source=envelope.text("source") or "",
        subject=raw["subject"],
        data=_call(data) if is_call else _recording(data),
        routing_key=routing_key,
        traceparent=envelope.text("traceparent"),
        raw=raw,
        body=body,
    )


def _call(raw: Json) -> CallRecord:
    fields = _Fields(raw, "the record")
    return CallRecord(
        source=raw["source"],
        revision=raw["revision"],
        outcome=raw["outcome"],
        complete=raw["complete"],
        close_reason=raw["close_reason"],
        started_at=fields.required_time("started_at"),
        request_id=fields.whole("request_id"),
        reference=fields.text("reference"),
        metadata=fields.mapping("metadata") or _EMPTY,
        dial=fields.mapping("dial"),
        answered_at=fields.time("answered_at"),
        ended_at=fields.time("ended_at"),
        ring_seconds=fields.number("ring_seconds"),
        talk_seconds=fields.number("talk_seconds"),
        call_type=fields.text("call_type"),
        queue=fields.text("queue"),
        ended_by=fields.text("ended_by"),
        agent=_leg(raw["agent"]) if raw["agent"] is not None else None,
        dialed=_leg(raw["dialed"]) if raw["dialed"] is not None else None,
        other_legs=tuple(_leg(each) for each in raw["other_legs"]),
        fields=fields.mapping("fields") or _EMPTY,
        ignored=fields.mappings("ignored"),
        annotations=fields.mappings("annotations"),
        raw=raw,
    )


def _leg(raw: Json) -> Leg:
    fields = _Fields(raw, "a leg")
    return Leg(
        call_id=raw["call_id"],
        state=raw["state"],
        recorded=raw["recorded"],
        extension=fields.text("extension"),
        name=fields.text("name"),
        user_id=fields.text("user_id"),
        number=fields.text("number"),
        number_e164=fields.text("number_e164"),
        guid=fields.text("guid"),
        call_type=fields.text("call_type"),
        inferred=fields.read("inferred", bool),
        started_at=fields.time("started_at"),
        picked_up_at=fields.time("picked_up_at"),
        missed_at=fields.time("missed_at"),
        hung_up_at=fields.time("hung_up_at"),
        ring_seconds=fields.number("ring_seconds"),
        fields=fields.mapping("fields") or _EMPTY,
        raw=raw,
    )


def _recording(raw: Json) -> Recording:
    fields = _Fields(raw, "the recording")
    return Recording(
        source=raw["source"],
        call_id=fields.text("call_id"),
        request_id=fields.whole("request_id"),
        guid=fields.text("guid"),
        leg=fields.text("leg"),
        uri=fields.text("uri"),
        bytes=fields.whole("bytes"),
        sha256=fields.text("sha256"),
        sha512=fields.text("sha512"),
        seconds=fields.number("seconds"),
        channels=fields.whole("channels"),
        sample_rate=fields.whole("sample_rate"),
        encryption=fields.mapping("encryption"),
        attempts=fields.whole("attempts"),
        reason=fields.text("reason"),
        flags=tuple(str(flag) for flag in fields.read("flags", list) or ()),
        kept=fields.text("kept"),
        raw=raw,
    )


class _Fields:
    """Reads the fields of one object. A missing field is None, and one of another type is an error."""

    def __init__(self, raw: Json, name: str) -> None:
        self._raw = raw
        self._name = name

    def read(self, name: str, kind: type[_T]) -> _T | None:
        value = self._raw.get(name)
        if value is None or isinstance(value, kind):
            return value
        raise self._error(name, value)

    def text(self, name: str) -> str | None:
        return self.read(name, str)

    def whole(self, name: str) -> int | None:
        value = self.read(name, int)
        if isinstance(value, bool):
            raise self._error(name, value)
        return value

    def number(self, name: str) -> float | None:
        value = self._raw.get(name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return None if value is None else float(value)
        raise self._error(name, value)

    def mapping(self, name: str) -> Json | None:
        return self.read(name, dict)

    def mappings(self, name: str) -> Sequence[Json]:
        values = self.read(name, list) or []
        if not all(isinstance(value, dict) for value in values):
            raise self._error(name, values)
        return values

    def time(self, name: str) -> datetime | None:
        value = self.text(name)
        if value is None:
            return None
        if not is_time(value):
            raise self._error(name, value)
        return datetime.fromisoformat(value)

    def required_time(self, name: str) -> datetime:
        value = self.time(name)
        if value is None:
            raise self._error(name, value)
        return value

    def _error(self, name: str, value: object) -> NotAnEventError:
        return NotAnEventError(f"The field {name} of {self._name} has a value of the type {type(value).__name__}.")
