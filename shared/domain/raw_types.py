"""The JSON of raw messages and of the headers of dead letters, as types. Their JSON Schemas are made from these types.

The docstring of each field is its description in the schema (`shared/schemas/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

# Years before 1000 and after 9999 do not occur. The form is fixed, so that text order is time order.
Time = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", json_schema_extra={"format": "date-time"}),
]
"""RFC 3339 UTC with microseconds, such as `2026-11-23T07:44:34.500000Z`."""

Source = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Side = Literal["agent", "dialed", "other"]
"""The side of a leg in the record of its call."""
Call = Annotated[str, Field(pattern=r"^(?:call-)?[0-9]{1,20}(?:\.[0-9]{1,5})?$")]


class RawCallback(TypedDict):
    """One HTTP callback of FocalScope, as ingress received it."""

    v: Literal[1]
    """Version of the format."""
    source: Source
    """Name of the source."""
    received_at: Time
    """When ingress received it: RFC 3339 UTC with microseconds."""
    kind: Literal["callback"]
    """`callback`."""
    query: str
    """The query string without the secret."""
    secret: NotRequired[Literal["previous"]]
    """`previous` if the callback came with a previous secret of its source; absent otherwise."""


class RawDial(TypedDict):
    """One dial request that FocalScope has accepted."""

    v: Literal[1]
    """Version of the format."""
    source: Source
    """Name of the source."""
    received_at: Time
    """When the console sent the request: RFC 3339 UTC with microseconds."""
    kind: Literal["dial"]
    """`dial`."""
    request_id: Annotated[int, Field(ge=1)]
    """RequestID that FocalScope assigned."""
    fields: Annotated[Mapping[str, str | int | float | None], Field(max_length=64)]
    """`agent`, `number`, `queue_prefix`, `reference`, and each entry of the metadata as `metadata.<name>`."""


class RawTimer(TypedDict):
    """A timer of a call: `received_at` is the current time of that call."""

    v: Literal[1]
    """Version of the format."""
    source: Source
    """Name of the source."""
    received_at: Time
    """The current time for the call: RFC 3339 UTC with microseconds."""
    kind: Literal["timer"]
    """`timer`."""
    call: Call
    """The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on."""


class RawAnnotation(TypedDict):
    """Something that a program or a person adds to a call."""

    v: Literal[1]
    """Version of the format."""
    source: Source
    """Name of the source."""
    received_at: Time
    """When the console received it first: RFC 3339 UTC with microseconds."""
    kind: Literal["annotation"]
    """`annotation`."""
    call: Call
    """The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on."""
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Id of the annotation."""
    type: Literal["transcript", "disposition", "consent", "note"]
    """What it is, which decides the names in `body`."""
    by: Annotated[str, Field(max_length=128)]
    """The program or person that made it."""
    body: Mapping[str, object]
    """The content, at most 256 KiB of JSON."""


class DeadLetterHeaders(TypedDict):
    """Headers that Callfold sets on a dead letter. The body is that of the original message."""

    reason: str
    """Why the message was dead-lettered (docs/dead-letters.md). Further reasons may be added."""
    detail: Annotated[str, Field(max_length=500)]
    """A sentence for people. It may change."""
    first_seen: Time | Literal[""]
    """When Callfold first saw the message: RFC 3339 UTC with microseconds. Empty if that is unknown."""
    round: NotRequired[Annotated[int, Field(ge=1)]]
    """How often the recording was requested by hand, plus 1. Only in `recordings.dead`."""


class UnreadBody(TypedDict):
    """A callback whose body could not be understood. It occurs only in dead letters."""

    v: Literal[1]
    """Version of the format."""
    kind: Literal["unread"]
    """`unread`."""
    source: Source
    """Name of the source."""
    received_at: Time
    """When ingress received it: RFC 3339 UTC with microseconds."""
    query: str
    """The query string without the secret."""
    content_type: str
    """The header `Content-Type`; empty without one."""
    content_encoding: str
    """The header `Content-Encoding`; empty without one."""
    is_cut: bool
    """Whether the body had more bytes."""
    body_base64: str
    """The body in base64, at most 64 KiB."""


class RecordingJobBody(TypedDict):
    """A job to archive the recording of one leg, as a dead letter of `recordings.dead` keeps it."""

    v: Literal[1]
    """Version of the format."""
    source: Source
    """Name of the source."""
    call: Call
    """The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on."""
    request_id: int | None
    """RequestID of the call; null if the dial API did not start it."""
    call_id: str
    """CallID of the leg."""
    guid: str | None
    """GUID of the leg; null if none was sent."""
    name: str
    """Name of the leg's files in the archive."""
    leg: Side
    """The side of the leg in the record of the call."""
    fetch: bool
    """Whether the recording is downloaded."""
    state: str
    """State of the recording in a new sidecar."""
    recording_url: str | None
    """RecordingURL as it was sent, or null. It is a credential."""
    started_at: str
    """When the call began: RFC 3339 UTC."""
    record: Mapping[str, object]
    """The record of the call."""
