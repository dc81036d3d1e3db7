"""Parameters and answers of the HTTP API as types, from which `openapi.json` is generated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from callfold_client.errors import WhereError
from callfold_client.where import MAX_CHARACTERS, Where
from console.call_query import CallRow, Moment
from console.dead_letters.queue import DeadLetterQueue
from console.history.attempts import Attempt
from shared.domain.ids import CALL_REF


class CallList(BaseModel):
    """A page of calls."""

    calls: list[CallRow]
    next: str | None = Field(description="The `cursor` of the next page; null on the last page.")
    problem: str | None = Field(description="Why calls may be missing; null if the list is complete.")


class CallDetail(BaseModel):
    """Everything known about one call; credentials are masked."""

    call: str
    source: str
    request_id: int | None
    status: str
    why: str = Field(description="Why the call has this status, and what would change it.")
    published_revision: int
    record: dict[str, Any] = Field(description="The record as published, or as known so far.")
    legs: list[dict[str, Any]]
    facts: dict[str, str]
    timeline: list[dict[str, str]] = Field(description="Raw events in order of arrival.")
    is_timeline_whole: bool
    timeline_problem: str | None = Field(description="Why the raw events could not be read.")
    pbx_ahead_seconds: float | None = Field(
        description="Seconds by which the clock of the PBX is ahead of the times of receipt; null if unknown."
    )
    other_uses: list[str] = Field(description="Other calls of the same RequestID, such as `acme/513.2`, of a PBX that was reset.")
    revisions: list[dict[str, Any]]
    recordings: list[dict[str, Any]]
    deliveries: list[Attempt] = Field(description="Attempts to deliver its events to webhooks, newest first.")


class AnnotationAccepted(BaseModel):
    """An accepted annotation."""

    id: str = Field(description="The annotation in the record of the call.")
    source: str
    call: str
    type: str
    at: str = Field(description="When it was received first: RFC 3339 UTC.")
    by: str


class SchemaRow(BaseModel):
    """One schema of `GET /schemas`."""

    path: str = Field(description="Path below `/schemas/`.")
    id: str = Field(description="The `$id` of the schema, which is the `dataschema` of its events.")
    title: str
    description: str


class SchemaList(BaseModel):
    """The schemas of published messages."""

    schemas: list[SchemaRow]


class CallDetailQuery(BaseModel):
    """The parameters of `GET /calls/{source}/{call}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Revision of the vCon, the latest one unless it is given. Only for a vCon."
    )


class RecordingQuery(BaseModel):
    """The parameters of `GET /recordings/...`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    call: str | None = Field(
        default=None,
        pattern=f"^{CALL_REF.pattern}$",
        description="The call of the recording. Speeds up the search; 404 if the recording belongs to another call.",
    )


def _readable(text: str) -> str:
    """Check a filter; the text itself is parsed again by who uses it.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        Where(text)
    except WhereError as error:
        raise ValueError(f"cannot be read at character {error.position + 1}") from None
    return text


class EventsQuery(BaseModel):
    """The parameters of `GET /events`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = Field(default="#", max_length=255, description="Topic pattern: `*` is one word, `#` any number.")
    where: Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_readable)] | None = Field(
        default=None, description="Filter on the content, such as `talk_seconds > 60 and outcome == 'answered'`."
    )
    after: int | None = Field(default=None, ge=0, lt=10**18, description="Start after this event id, like Last-Event-ID.")
    since: Moment | None = Field(
        default=None, description="Without an event id, start with the events since: RFC 3339, or an age like `2h`."
    )


class Dialed(BaseModel):
    """A dial request that FocalScope accepted."""

    request_id: int
    source: str
    dial_state: Literal["accepted"]


class DialProblem(BaseModel):
    """Why there is no RequestID. `unknown`: a phone may be ringing, and Callfold does not retry."""

    type: str
    status: int
    title: str
    dial_state: Literal["refused", "unknown"] | None = None
    parameter: str | None = None


class DeadLetter(BaseModel):
    """A message that could not be processed."""

    id: str
    reason: str
    detail: str
    first_seen: str
    sources: list[str]
    endpoint: str | None = Field(description="The webhook to which an event could not be delivered; null in other queues.")
    body: str


class DeadLetterList(BaseModel):
    """Dead letters of one queue."""

    queue: DeadLetterQueue
    match_count: int = Field(
        serialization_alias="found", description="Number of matching dead letters, of which at most `limit` are listed."
    )
    more: bool = Field(description="True if there can be more than `found`: a filter reads about the first 20,000 messages.")
    scanned: int = Field(description="Number of messages read, from the front of the queue.")
    dead_letters: list[DeadLetter] = Field(serialization_alias="letters")


class DeadLettersDone(BaseModel):
    """The result of a redrive or drop."""

    action: Literal["redrive", "drop"]
    dry_run: bool
    count: int = Field(serialization_alias="letters", description="Number of dead letters redriven or dropped.")
    spared: int = Field(
        description="Number of matching dead letters left in the queue because a redrive would publish their call a second time."
    )
    at_least: Literal[True] | None = Field(
        default=None, description="Only in a dry run of a long queue: the numbers are of about its first 20,000 messages."
    )
