"""Calls as they are looked up: what can be asked, what one call looks like in a list, and in which order.

Redis and the history answer the same questions: both give `CallRow`s, newest start first; `CallQuery.matches` decides for both.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from console.durations import ago
from shared.domain.adapter_link import Placeholder
from shared.domain.call import CloseReason, Outcome, Status
from shared.domain.facts import rfc3339
from shared.errors import ConfigError

_AGO = re.compile(r"\d{1,6}[smhd]")

JsonObject = Mapping[str, Any]  # parsed JSON of our own
AnyState = Literal["open", "ringing", "talking", "ending", "complete"]


class Position(NamedTuple):
    """Where a call (`acme/513`) stands in the list: by the start, then by the name, both descending."""

    started_at: str
    call: str


class Cursor(NamedTuple):
    """Where to go on, and when the first page was asked for: `2h` ago is the same moment on every page."""

    position: Position
    asked_at: str

    def encode(self) -> str:
        text = f"{self.position.started_at} {self.position.call} {self.asked_at}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Read a cursor.

        Raises:
            ValueError: it is none of ours.
        """
        try:
            padded = text + "=" * (-len(text) % 4)
            started_at, call, asked_at = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(" ")
            return cls(Position(_time(started_at), call), _time(asked_at))
        except (binascii.Error, ValueError) as error:
            raise ValueError("is no cursor of ours: take it from `next` of an answer") from error


def _time(text: str, now: datetime | None = None) -> str:
    """Read a time, or how long ago: `2026-11-23T07:44:00Z`, `90s`, `15m`, `2h`, `7d`."""
    try:
        return rfc3339(ago(text, now) if _AGO.fullmatch(text) else _aware(datetime.fromisoformat(text)))
    except (ValueError, OverflowError, ConfigError) as error:
        raise ValueError("is no time: expected RFC 3339 like 2026-11-23T07:44:00Z, or how long ago like 2h") from error


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("a time without zone")
    return at.astimezone(UTC)


def _readable_cursor(text: str) -> str:
    Cursor.decode(text)
    return text


def _asked_at(cursor: object) -> datetime:
    """Tell when the first page was asked for: now, where there is no cursor that tells."""
    with suppress(ValueError):
        return datetime.fromisoformat(Cursor.decode(str(cursor)).asked_at)
    return datetime.now(UTC)


Text = Annotated[str, Field(min_length=1, max_length=256)]
Moment = Annotated[str, Field(max_length=64), AfterValidator(_time)]


class CallQuery(BaseModel):
    """What `GET /calls` can be asked. Everything that is given must agree; `*` stands for any characters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: AnyState | None = Field(default=None, description="`open` is everything that is not complete.")
    outcome: Outcome | None = Field(default=None, description="How the call ended.")
    source: Text | None = Field(
        default=None, description="The source's name: one that is configured, or of which calls are kept; any other is wrong."
    )
    agent: Text | None = Field(default=None, description="The agent's extension or name; `*` for any characters.")
    number: Text | None = Field(default=None, description="The dialed number, CallerID or DID; `*` for any characters.")
    reference: Text | None = Field(default=None, description="The reference of the dial request.")
    recorded: bool | None = Field(default=None, description="Whether a leg was recorded.")
    since: Moment | None = Field(default=None, description="Started then or later: RFC 3339, or how long ago like `2h`.")
    until: Moment | None = Field(default=None, description="Started before: RFC 3339, or how long ago like `2h`.")
    limit: int = Field(default=50, ge=1, le=500, description="Calls in one answer at most.")
    cursor: Annotated[str, Field(max_length=200), AfterValidator(_readable_cursor)] | None = Field(
        default=None, description="`next` of the answer before."
    )

    _asked_at: str = PrivateAttr(default="")

    @model_validator(mode="wrap")
    @classmethod
    def _frozen(cls, given: object, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Count how long ago something was from when the first page was asked for, so that the pages are of one search."""
        if not isinstance(given, Mapping):
            return read(given)
        now = _asked_at(given.get("cursor"))
        moments = {name: given[name] for name in ("since", "until") if _AGO.fullmatch(str(given.get(name)))}
        with suppress(ValueError):  # told of where the field is read
            moments = {name: _time(str(text), now) for name, text in moments.items()}
        query = read({**given, **moments})
        query._asked_at = rfc3339(now)  # noqa: SLF001 - its own
        return query

    @property
    def before(self) -> Position | None:
        """Where to go on."""
        return Cursor.decode(self.cursor).position if self.cursor else None

    def cursor_at(self, position: Position) -> str:
        """Write where this search goes on."""
        return Cursor(position, self._asked_at).encode()

    def matches(self, row: CallRow) -> bool:
        """Tell whether a call is what was asked for."""
        is_open = row.status is not Status.COMPLETE
        return (
            (self.state is None or self.state == row.status or (self.state == "open" and is_open))
            and self.outcome in (None, row.outcome)
            and self.source in (None, row.source)
            and self.reference in (None, row.reference)
            and self.recorded in (None, row.recorded)
            and (self.since is None or row.started_at >= self.since)
            and (self.until is None or row.started_at < self.until)
            and (self.agent is None or _any_like(row.agents, self.agent))
            and (self.number is None or _any_like(row.numbers, self.number))
        )

    @field_validator("until", mode="after")
    @classmethod
    def _ordered(cls, until: str | None, given: ValidationInfo) -> str | None:
        if until is not None and until < (given.data.get("since") or ""):
            raise ValueError("is earlier than since: nothing can match")
        return until


class CallRow(BaseModel):
    """One call in a list. Times are RFC 3339 UTC with microseconds, durations seconds; null where not known (yet)."""

    model_config = ConfigDict(frozen=True)

    source: str
    call: str = Field(description="RequestID, or `call-<CallID>` where the dial API did not start it.")
    request_id: int | None
    status: Status
    outcome: Outcome | None
    complete: bool | None
    close_reason: CloseReason | None
    revision: int = Field(description="The last published revision; 0 where none was.")
    reference: str | None
    agent: str | None
    number: str | None
    recorded: bool
    started_at: str
    answered_at: str | None
    ended_at: str | None
    ring_seconds: float | None
    talk_seconds: float | None
    agents: tuple[str, ...] = Field(default=(), exclude=True)
    numbers: tuple[str, ...] = Field(default=(), exclude=True)

    @property
    def position(self) -> Position:
        return Position(self.started_at, f"{self.source}/{self.call}")


class Calls(Protocol):
    """Somewhere that knows calls: Redis, the history."""

    def newest(self, query: CallQuery, before: Position | None) -> AsyncIterator[tuple[Position, CallRow | None]]:
        """Go through calls after a position, newest start first; None where one was looked at and does not match."""


def row_of(record: JsonObject, call: str, status: Status) -> CallRow:
    """Sum up a call record (see `shared.records.call_record`) as a row."""
    fields, dial = record["fields"], record.get("dial") or {}
    agents = [dial.get("agent"), fields.get(Placeholder.AGENT_EXTENSION), fields.get(Placeholder.AGENT)]
    numbers = [dial.get("number"), fields.get(Placeholder.CALLER_ID), fields.get(Placeholder.DID)]
    legs = [leg for leg in (record["agent"], record["dialed"], *record["other_legs"]) if leg]
    known = {name: record[name] for name in CallRow.model_fields if name in record and name not in {"agent", "revision"}}
    return CallRow(
        **known,
        call=call,
        status=status,
        revision=record["revision"],
        agent=next(filter(None, agents), None),
        number=next(filter(None, numbers), None),
        recorded=any(leg["recorded"] for leg in legs),
        agents=tuple(dict.fromkeys(filter(None, agents))),
        numbers=tuple(dict.fromkeys(filter(None, numbers))),
    )


def _any_like(values: tuple[str, ...], pattern: str) -> bool:
    escaped = re.sub(r"([?\[])", r"[\1]", pattern.casefold())
    return any(fnmatchcase(value.casefold(), escaped) for value in values)
