"""What the HTTP API answers, as types: `openapi.json` is made of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from console.call_query import CallRow
from console.dead_letters.queue import Which
from shared.domain.ids import CALL_REF


class CallList(BaseModel):
    """A page of calls."""

    calls: list[CallRow]
    next: str | None = Field(description="The `cursor` of the next page; null where there is none.")
    problem: str | None = Field(description="What could not be asked, where these are not all; null otherwise.")


class CallDetail(BaseModel):
    """Everything that is known of one call; credentials are masked."""

    call: str
    source: str
    request_id: int | None
    status: str
    why: str = Field(description="Why the call is in its state, and what would change it.")
    published_revision: int
    record: dict[str, Any] = Field(description="As published, or what is known so far.")
    legs: list[dict[str, Any]]
    facts: dict[str, str]
    timeline: list[dict[str, str]] = Field(description="Raw events in the order of their arrival.")
    is_timeline_whole: bool
    timeline_problem: str | None = Field(description="Why the raw events could not be read.")
    revisions: list[dict[str, Any]]
    recordings: list[dict[str, Any]]


class RecordingQuery(BaseModel):
    """What `GET /recordings/...` can be asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    call: str | None = Field(
        default=None,
        pattern=f"^{CALL_REF.pattern}$",
        description="Its call: found sooner, and 404 where it is another's.",
    )


class EventsQuery(BaseModel):
    """What `GET /events` can be asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = Field(default="#", max_length=255, description="Topic pattern: `*` is one word, `#` any number.")
    after: int | None = Field(default=None, ge=0, lt=10**18, description="Go on after this event, as Last-Event-ID does.")


class Dialed(BaseModel):
    """A dial request that FocalScope accepted."""

    request_id: int
    source: str
    dial_state: Literal["accepted"]


class DialProblem(BaseModel):
    """Why there is no RequestID. `unknown`: a phone may be ringing, and Callfold does not try again."""

    type: str
    status: int
    title: str
    dial_state: Literal["refused", "unknown"] | None = None
    parameter: str | None = None


class DeadLetter(BaseModel):
    """What could not be understood or done."""

    id: str
    reason: str
    detail: str
    first_seen: str
    sources: list[str]
    body: str


class DeadLetterList(BaseModel):
    """Dead letters of one queue."""

    queue: Which
    found: int = Field(description="How many match; at most `limit` are listed.")
    letters: list[DeadLetter]


class DeadLettersDone(BaseModel):
    """What was done."""

    action: Literal["redrive", "drop"]
    dry_run: bool
    letters: int
    spared: int = Field(description="How many match, but would make a call be published a second time: they stay.")
