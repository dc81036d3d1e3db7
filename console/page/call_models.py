"""The data that the page of one call shows, read from the JSON of the API. Values from callbacks are hostile until escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from console.call_query import JsonObject
from console.page.playback import Playback
from console.request_ids import RequestIdProblem
from shared.domain.leg import Leg
from shared.domain.pbx_clock import ClockTimes


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One raw event of a call, as received.

    Attributes:
        kind: `callback`, `dial` or `timer`.
        what: the raw text, credentials masked.
        leg: the CallID of its leg, if it belongs to one.
        event: `start`, `pickup`, `hangup` or `missed`, if it is a valid callback.
        happened_at: the adapter's own time of the event, if it sent one.
    """

    received_at: str
    kind: str
    what: str
    leg: str | None = None
    event: str | None = None
    happened_at: str | None = None

    @classmethod
    def of(cls, row: JsonObject) -> Self:
        """Read a timeline row of the call API, where the adapter's time is the field `told_at`."""
        return cls(**_known_fields(cls, row) | {"happened_at": row.get("told_at")})


@dataclass(frozen=True, slots=True)
class Revision:
    """One published revision of a call."""

    id: str
    time: str
    type: str
    outcome: str


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """The recording of one leg and its state."""

    guid: str | None
    leg: str
    call_id: str
    state: str
    reason: str | None = None
    at: str | None = None
    uri: str | None = None
    encryption: Mapping[str, Any] | None = None
    bytes: int | None = None
    sha256: str | None = None
    seconds: float | None = None
    name: str | None = None
    flags: Sequence[str] = ()
    playback: Playback = field(default_factory=Playback)

    @property
    def file_name(self) -> str:
        """The name of its files. Only its sidecar has it; the history leaves the GUID, else the CallID."""
        return self.name or self.guid or f"call-{self.call_id}"


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """An annotation: its text, of which some characters are shown, and the other values of its body by their names."""

    type: str
    at: str
    by: str
    text: str
    shown_characters: int
    values: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, annotation: JsonObject, shown_characters: int) -> Self:
        """Read an annotation of a record. Another program can have published any body."""
        body = dict(annotation["body"])
        text = body.pop("text", "")
        parts = body.pop("segments", None)
        values = [(name, value if isinstance(value, str) else orjson.dumps(value).decode()) for name, value in body.items()]
        if isinstance(parts, list):
            values.append(("segments", str(len(parts))))
        return cls(annotation["type"], annotation["at"], annotation["by"], str(text), shown_characters, values)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver an event to a webhook. The answer is text of a stranger."""

    endpoint: str
    event_id: str
    attempt: int
    at: str
    status: int | None
    error: str | None
    seconds: float
    answer: str
    next_at: str | None
    result: str

    @classmethod
    def of(cls, row: JsonObject) -> Self:
        return cls(**_known_fields(cls, row))


@dataclass(frozen=True, slots=True)
class CallPage:
    """One call.

    Attributes:
        at: the current time, RFC 3339 UTC. Legs of an open call extend to it.
        why: the reason for its state (`console.lookup.detail.why`).
        record: the derived record. For an open call: what is known so far, without an outcome.
        is_timeline_whole: False if the journal may hold more raw events.
        timeline_problem: why the raw timeline could not be read, if it could not.
        pbx_ahead_seconds: how far the clock of the PBX is ahead of the times of receipt, if known.
        other_uses: other calls of the same RequestID, such as `513.2`.
        request_id: what to correct if it has too many legs.
    """

    source: str
    call: str
    at: str
    status: str
    why: str
    published_revision: int | None
    record: JsonObject
    legs: Sequence[Leg]
    facts: Mapping[str, str]
    timeline: Sequence[TimelineRow]
    revisions: Sequence[Revision] = ()
    recordings: Sequence[RecordingRow] = ()
    deliveries: Sequence[Delivery] = ()
    is_timeline_whole: bool = True
    timeline_problem: str | None = None
    pbx_ahead_seconds: float | None = None
    other_uses: Sequence[str] = ()
    request_id: RequestIdProblem | None = None

    @classmethod
    def of(cls, detail: JsonObject, at: str, request_id: RequestIdProblem | None = None) -> Self:
        """Read a call from the JSON of `GET /calls/{source}/{request_id}`."""
        source, _, call = str(detail["call"]).partition("/")
        return cls(
            source=source,
            call=call,
            at=at,
            status=str(detail["status"]),
            why=str(detail["why"]),
            published_revision=detail["published_revision"],
            record=detail["record"],
            legs=[_leg(leg) for leg in detail["legs"]],
            facts=detail["facts"],
            timeline=[TimelineRow.of(row) for row in detail["timeline"]],
            revisions=[Revision(**_known_fields(Revision, row)) for row in detail.get("revisions", ())],
            recordings=[RecordingRow(**_known_fields(RecordingRow, row)) for row in detail.get("recordings", ())],
            deliveries=[Delivery.of(row) for row in detail.get("deliveries", ())],
            is_timeline_whole=detail.get("is_timeline_whole", True),
            timeline_problem=detail.get("timeline_problem"),
            pbx_ahead_seconds=detail.get("pbx_ahead_seconds"),
            other_uses=[str(name).partition("/")[2] for name in detail.get("other_uses", ())],
            request_id=request_id,
        )


def _leg(row: JsonObject) -> Leg:
    return Leg(**{**row, **{name: ClockTimes(**row[name]) for name in ("pbx", "axis", "received", "mixed")}})


def _known_fields(kind: type[TimelineRow | Revision | RecordingRow | Delivery], row: JsonObject) -> dict[str, Any]:
    return {name: row[name] for name in kind.__slots__ if name in row}
