"""The JSON of published events, as types: what writes an event returns them, and their JSON Schemas are made from them.

The docstring of each class and field is its description in the schema (`shared/schemas/`). A field of a published event is never
removed, renamed, or narrowed. A new one is `NotRequired` once a release without it has published events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from shared.domain.annotation import AnnotationType
from shared.domain.closing import CloseReason, Outcome
from shared.domain.leg import LegState
from shared.domain.leg_event import CallType
from shared.domain.parties import EndedBy
from shared.domain.raw_types import Call, Side, Source, Time

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Guid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
CallId = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
E164 = Annotated[str, Field(pattern=r"^\+[0-9]{1,20}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Sha512 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Traceparent = Annotated[str, Field(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
Json = Literal["application/json"]

CallEventType = Literal["callfold.call.completed.v1", "callfold.call.amended.v1"]
RecordingEventType = Literal[
    "callfold.recording.stored.v1",
    "callfold.recording.absent.v1",
    "callfold.recording.failed.v1",
    "callfold.recording.expired.v1",
]


class DialRecord(TypedDict, total=False):
    """Values of the dial request."""

    agent: str
    """Extension of the agent, as it was sent."""
    number: str
    """Number to dial, as it was sent."""
    queue_prefix: str
    """Prefix that selects the queue; absent if none was sent."""
    number_e164: E164 | None
    """International form of `number`, null if it has none. Absent if the source has no country."""


class LegRecord(TypedDict):
    """One leg of a call: a phone that rang."""

    call_id: CallId
    """CallID of the leg. Decimal digits as text, because it can exceed 53 bits."""
    extension: str | None
    """Extension of the agent; null on a dialed leg, or if it is unknown."""
    name: str | None
    """Name of the agent; null on a dialed leg, or if it is unknown."""
    user_id: str | None
    """ResponderUserID of the agent; null on a dialed leg, or if it is unknown."""
    number: str | None
    """Phone number of the far party as it was sent, or null."""
    number_e164: E164 | None
    """International form of `number`; null if it has none, or if the source has no country."""
    guid: Guid | None
    """GUID of the leg, which names its recording; null if none was sent."""
    call_type: CallType
    """FocalScope's type of the leg."""
    state: LegState
    """State of the leg when the record was made."""
    inferred: bool
    """Whether no callback reported the state, and it follows from others."""
    started_at: Time | None
    """When the phone began to ring, or null: RFC 3339 UTC with microseconds."""
    picked_up_at: Time | None
    """When the phone was picked up, or null: RFC 3339 UTC with microseconds."""
    missed_at: Time | None
    """When the leg was missed, or null: RFC 3339 UTC with microseconds."""
    hung_up_at: Time | None
    """When the leg was hung up, or null: RFC 3339 UTC with microseconds."""
    ring_seconds: Seconds | None
    """How long the phone rang until it was picked up or missed, in seconds; null if unknown."""
    recorded: bool
    """Whether FocalScope reported a recording of the leg."""
    fields: Mapping[str, str]
    """Every other value of the adapter, by the name of its placeholder. Credentials are masked."""


class IgnoredValue(TypedDict):
    """A value of a callback that was not used as it was sent."""

    call_id: CallId
    """CallID of the leg."""
    event: str | None
    """Event of the callback, such as `hangup`; null if several can have sent the value."""
    placeholder: str
    """Name of the placeholder."""
    value: str
    """The value as received. Credentials are masked, and that of a RecordingURL is empty."""
    reason: str
    """Why it was not used (docs/record.md, "What was ignored"). Further reasons may be added."""


class DialPart(TypedDict):
    """The part of a record about the dial request."""

    reference: str | None
    """Reference of the dial request, or null."""
    metadata: Mapping[str, str]
    """Metadata of the dial request; empty if there is none."""
    dial: DialRecord | None
    """The dial request; null if the call was not dialed through Callfold."""


class PartiesPart(TypedDict):
    """The part of a record about the kind of call, its queue, and the side that ended it."""

    call_type: CallType | None
    """`API` if the call has a RequestID, else the type of its leg."""
    queue: str | None
    """Name of the queue, or null."""
    ended_by: EndedBy | None
    """The side that hung up first; null without a conversation."""


class LegIdentity(TypedDict):
    """The part of a leg's record that identifies the leg and the person on it."""

    call_id: CallId
    extension: str | None
    name: str | None
    user_id: str | None
    number: str | None


class AnnotationRecord(TypedDict):
    """Something that a program or a person has added to a call (docs/annotations.md)."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Id of the annotation."""
    type: AnnotationType
    """What it is, which decides the names in `body`. Further types may be added."""
    at: Time
    """When the console received it first: RFC 3339 UTC with microseconds."""
    by: Annotated[str, Field(max_length=128)]
    """The program or person that made it."""
    body: Mapping[str, object]
    """The content, by its type (docs/annotations.md). Further names may be added."""


class CallRecord(TypedDict):
    """The record of a call."""

    source: Source
    """Name of the source."""
    request_id: Annotated[int, Field(ge=0)] | None
    """RequestID of the dial API; null if the dial API did not start the call. It is no key: `subject` is."""
    revision: Count
    """Number of the revision, from 1. Of several records of a call, the highest one counts."""
    outcome: Outcome | None
    """How the call ended. Never null in an event."""
    complete: bool | None
    """False if callbacks are missing and a timer closed the call. Never null in an event."""
    close_reason: CloseReason | None
    """The rule that closed the call. Never null in an event."""
    reference: str | None
    """Reference of the dial request, or null."""
    metadata: Mapping[str, str]
    """Metadata of the dial request; empty if there is none."""
    dial: DialRecord | None
    """The dial request; null if the call was not dialed through Callfold."""
    started_at: Time
    """When the call began: RFC 3339 UTC with microseconds."""
    answered_at: Time | None
    """When the answering side picked up, or null: RFC 3339 UTC with microseconds."""
    ended_at: Time | None
    """When the call ended, or null: RFC 3339 UTC with microseconds."""
    ring_seconds: Seconds | None
    """How long the phone of the answering side rang, in seconds; null if unknown."""
    talk_seconds: Seconds | None
    """How long both sides talked, in seconds; null without a conversation, and for a login."""
    call_type: CallType | None
    """`API` if the call has a RequestID, else the type of its leg."""
    queue: str | None
    """Name of the queue, or null."""
    ended_by: EndedBy | None
    """The side that hung up first; null without a conversation."""
    agent: LegRecord | None
    """Leg of the agent who answered, else of the first agent; null if there is none."""
    dialed: LegRecord | None
    """Leg of the number that answered, else of the first number; null if there is none."""
    other_legs: Sequence[LegRecord]
    """All other legs: agents and numbers that were tried before, transfers, and legs of other types."""
    fields: Mapping[str, str]
    """Every other value of the adapter, by the name of its placeholder: those of `dialed`, else of `agent`."""
    ignored: Sequence[IgnoredValue]
    """Values of callbacks that were not used as they were sent."""
    annotations: NotRequired[Sequence[AnnotationRecord]]
    """What programs and people have added to the call, in the order of `at`. Absent if an earlier release made the record."""


class Encryption(TypedDict):
    """The encryption of a file in the archive."""

    scheme: str
    """The scheme, such as `age`."""
    recipient: str | None
    """The public key for which the file is encrypted; null if it is unknown."""


class RecordingIdentity(TypedDict):
    """The leg of a recording."""

    source: Source
    """Name of the source."""
    request_id: Annotated[int, Field(ge=0)] | None
    """RequestID of the call; null if the dial API did not start it."""
    call_id: CallId
    """CallID of the leg."""
    guid: Guid | None
    """GUID of the leg; null if none was sent."""
    leg: Side
    """The side of the leg in the record of the call."""


class RecordingOutcome(TypedDict):
    """The outcome of a recording."""

    uri: str | None
    """URI of the recording in the archive; null if there is none."""
    bytes: Count | None
    """Size of the unencrypted recording in bytes; null if there is none."""
    sha256: Sha256 | None
    """SHA-256 of the unencrypted recording in lower-case hexadecimal; null if there is none."""
    sha512: NotRequired[Sha512 | None]
    """SHA-512 of the unencrypted recording in lower-case hexadecimal. Absent if an earlier release stored the recording."""
    seconds: Seconds | None
    """Duration of the audio in seconds; null if unknown."""
    channels: Count | None
    """Number of audio channels; null if unknown."""
    sample_rate: Count | None
    """Sample rate in hertz; null if unknown."""
    encryption: Encryption | None
    """How the file is encrypted; null if it is not."""
    attempts: Count | None
    """Number of the attempt at which the job ended; null if unknown."""
    reason: str | None
    """Null for the first recording of a leg, else why there is this event (docs/recordings.md). Further reasons may be added."""
    flags: NotRequired[Sequence[str]]
    """What is unusual about the recording, sorted. Absent if an earlier release stored it. Further flags may be added."""
    kept: NotRequired[str]
    """URI of the refused file; only in `recording.failed`, if the file was kept."""


class RecordingData(RecordingIdentity, RecordingOutcome):
    """The outcome of the recording of one leg."""


class OpsData(TypedDict):
    """A condition of the installation that was raised or cleared."""

    what: str
    """The kind of condition. It is in `type` too."""
    state: Literal["raised", "cleared"]
    """Whether the condition was raised or cleared."""
    subject: str
    """What the condition is about: a machine, a source, a queue or a server."""
    since: Time
    """When the condition began: RFC 3339 UTC with microseconds. The same in the event that clears it."""
    cleared_at: Time | None
    """When the condition was over: RFC 3339 UTC with microseconds. Null in the event that raises it."""
    detail: str
    """A sentence for people. It may change."""
    figures: Mapping[str, int | float | str | None]
    """Figures of that moment (docs/operator-events.md). Further figures may be added."""


class AuditData(TypedDict):
    """An action of a person or of a program with a key."""

    who: str
    """Who did it: the name of a key or of a user of the machine."""
    action: str
    """The action. It is in `type` too."""
    source: str | None
    """Name of the source that it concerns, or null."""
    call: str | None
    """The call that it concerns, or null."""
    detail: Mapping[str, object]
    """Values that depend on the action. Credentials are masked. Further values may be added."""


class CallEvent(TypedDict):
    """A call is completed, or its record is amended: a CloudEvents 1.0 event in structured JSON."""

    specversion: Literal["1.0"]
    """Version of CloudEvents."""
    id: str
    """Identifies the event: source, call and revision, such as `acme/513/1`. Deduplicate by it."""
    source: str
    """`/callfold/` and the name of the source."""
    subject: Call
    """The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on."""
    type: CallEventType
    """Type of the event with the major version of its schema."""
    time: Time
    """When ingress received the last callback of the revision: RFC 3339 UTC with microseconds."""
    datacontenttype: Json
    """Media type of `data`."""
    dataschema: str
    """URI of this schema. What follows `docs/schemas/` is its path below `/schemas/` of the console."""
    sequence: Annotated[str, Field(pattern=r"^[1-9][0-9]*$")]
    """The revision in decimal digits. Compare it as a number."""
    partitionkey: str
    """Source and call, such as `acme/513`. Events with the same key are about the same call."""
    traceparent: NotRequired[Traceparent]
    """W3C trace context of the publication; absent if it is not traced."""
    data: CallRecord
    """The record of the call."""


class RecordingEvent(TypedDict):
    """A recording was stored, is absent, could not be stored, or was deleted: a CloudEvents 1.0 event in structured JSON."""

    specversion: Literal["1.0"]
    """Version of CloudEvents."""
    id: str
    """Identifies the event, such as `acme/513/recording/<guid>/stored`. Deduplicate by it."""
    source: str
    """`/callfold/` and the name of the source."""
    subject: Call
    """The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on."""
    type: RecordingEventType
    """Type of the event with the major version of its schema."""
    time: Time
    """When the recording was stored, or the job ended, or the file was deleted: RFC 3339 UTC with microseconds."""
    datacontenttype: Json
    """Media type of `data`."""
    dataschema: NotRequired[str]
    """URI of this schema. Absent if an earlier release ended the job of the recording."""
    partitionkey: NotRequired[str]
    """Source and call, such as `acme/513`. Absent if an earlier release ended the job of the recording."""
    data: RecordingData
    """What became of the recording."""


class OpsEvent(TypedDict):
    """An operator event: a CloudEvents 1.0 event in structured JSON."""

    specversion: Literal["1.0"]
    """Version of CloudEvents."""
    id: str
    """Identifies the event. Deduplicate by it."""
    source: Literal["/callfold/ops"]
    """`/callfold/ops`."""
    subject: str
    """What the condition is about: a machine, a source, a queue or a server."""
    type: str
    """Type of the event with the major version of its schema."""
    time: Time
    """When the condition began or was over: RFC 3339 UTC with microseconds."""
    datacontenttype: Json
    """Media type of `data`."""
    dataschema: str
    """URI of this schema. What follows `docs/schemas/` is its path below `/schemas/` of the console."""
    data: OpsData
    """The condition."""


class AuditEvent(TypedDict):
    """An audited action: a CloudEvents 1.0 event in structured JSON. Only the stream `audit.journal` has these events."""

    specversion: Literal["1.0"]
    """Version of CloudEvents."""
    id: str
    """Identifies the event."""
    source: str
    """`/callfold`, and the name of the source if the action concerns one."""
    type: str
    """Type of the event with the major version of its schema."""
    time: Time
    """When the action was recorded: RFC 3339 UTC with microseconds."""
    datacontenttype: Json
    """Media type of `data`."""
    dataschema: str
    """URI of this schema. What follows `docs/schemas/` is its path below `/schemas/` of the console."""
    data: AuditData
    """The action."""
    subject: NotRequired[str]
    """The call that the action concerns; absent if it concerns none."""
