"""Searching calls: the query, the row of one call, and the order of rows.

Redis and the history both answer a `CallQuery` with `CallRow`s, newest start first. `CallQuery.matches` decides for both.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from console.durations import ago
from console.number_search import international_forms, number_patterns, spelled
from shared.domain.adapter_link import Placeholder
from shared.domain.call import Status
from shared.domain.closing import CloseReason, Outcome
from shared.domain.leg_event import CallType
from shared.domain.parties import EndedBy
from shared.domain.times import rfc3339
from shared.errors import ConfigError
from shared.phone_numbers import with_plus

_AGO = re.compile(r"\d{1,6}[smhd]")

JsonObject = Mapping[str, Any]  # parsed JSON that Callfold wrote
AnyState = Literal["open", "ringing", "talking", "ending", "complete"]


class Position(NamedTuple):
    """The sort key of a call (`acme/513`): its start, then its name, both descending."""

    started_at: str
    call: str


class Cursor(NamedTuple):
    """The position where the next page begins, and the time of the first page, from which ages like `2h` count."""

    position: Position
    first_page_at: str

    def encode(self) -> str:
        text = f"{self.position.started_at} {self.position.call} {self.first_page_at}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Read a cursor.

        Raises:
            ValueError: it is not a valid cursor.
        """
        try:
            padded = text + "=" * (-len(text) % 4)
            started_at, call, first_page_at = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(" ")
            return cls(Position(_time(started_at), call), _time(first_page_at))
        except (binascii.Error, ValueError) as error:
            raise ValueError("is not a valid cursor. Use the value of `next` in an answer") from error


def _time(text: str, now: datetime | None = None) -> str:
    """Parse a time like `2026-11-23T07:44:00Z`, or an age like `90s`, `15m`, `2h`, `7d`; returns RFC 3339 UTC."""
    try:
        return rfc3339(ago(text, now) if _AGO.fullmatch(text) else _aware(datetime.fromisoformat(text)))
    except (ValueError, OverflowError, ConfigError) as error:
        raise ValueError("is not a time. Expected RFC 3339 like 2026-11-23T07:44:00Z, or an age like 2h") from error


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("a time without zone")
    return at.astimezone(UTC)


def _valid_cursor(text: str) -> str:
    Cursor.decode(text)
    return text


def _first_page_at(cursor: object) -> datetime:
    """Return the time of the first page from the cursor, or now if there is no valid cursor."""
    with suppress(ValueError):
        return datetime.fromisoformat(Cursor.decode(str(cursor)).first_page_at)
    return datetime.now(UTC)


def _known_type(text: object) -> object:
    """Return the call type of this name in any letter case, else the text, which the validator of the field refuses."""
    return next((kind for kind in CallType if kind.casefold() == str(text).casefold()), text)


Text = Annotated[str, Field(min_length=1, max_length=256)]
Moment = Annotated[str, Field(max_length=64), AfterValidator(_time)]


class CallQuery(BaseModel):
    """The parameters of `GET /calls`. A call must match all that are given; `*` matches any characters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: AnyState | None = Field(default=None, description="State of the call; `open` is every state but `complete`.")
    outcome: Outcome | None = Field(default=None, description="Outcome of the call.")
    type: Annotated[CallType, BeforeValidator(_known_type)] | None = Field(
        default=None, description="Kind of call, in any letter case. A call with a RequestID is `API`."
    )
    source: Text | None = Field(default=None, description="Source name. It must be configured, or have stored calls.")
    agent: Text | None = Field(default=None, description="Extension or name of an agent on any leg; `*` matches any characters.")
    number: Text | None = Field(
        default=None, description="Dialed number, or CallerID or DID of any leg; `*` matches any characters."
    )
    reference: Text | None = Field(default=None, description="Reference of the dial request.")
    recorded: bool | None = Field(default=None, description="Whether a leg was recorded.")
    since: Moment | None = Field(default=None, description="Earliest start: RFC 3339, or an age like `2h`.")
    until: Moment | None = Field(default=None, description="Latest start (exclusive): RFC 3339, or an age like `2h`.")
    limit: int = Field(default=50, ge=1, le=500, description="Maximum number of calls in the answer.")
    cursor: Annotated[str, Field(max_length=200), AfterValidator(_valid_cursor)] | None = Field(
        default=None, description="The value of `next` in the previous answer."
    )

    _first_page_at: str = PrivateAttr(default="")

    @model_validator(mode="wrap")
    @classmethod
    def _resolve_ages(cls, given: object, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Resolve ages from the time of the first page, so that all pages belong to the same search."""
        if not isinstance(given, Mapping):
            return validate(given)
        now = _first_page_at(given.get("cursor"))
        moments = {name: given[name] for name in ("since", "until") if _AGO.fullmatch(str(given.get(name)))}
        with suppress(ValueError):  # the validator of the field reports it
            moments = {name: _time(str(text), now) for name, text in moments.items()}
        query = validate({**given, **moments})
        query._first_page_at = rfc3339(now)  # noqa: SLF001 - its own
        return query

    @property
    def before(self) -> Position | None:
        """The position after which this page begins."""
        return Cursor.decode(self.cursor).position if self.cursor else None

    def cursor_at(self, position: Position) -> str:
        """Return the cursor of the next page, which begins after a position."""
        return Cursor(position, self._first_page_at).encode()

    def matches(self, row: CallRow) -> bool:
        """Return whether a call matches every parameter."""
        is_open = row.status is not Status.COMPLETE
        return (
            (self.state is None or self.state == row.status or (self.state == "open" and is_open))
            and self.outcome in (None, row.outcome)
            and self.type in (None, row.call_type)
            and self.source in (None, row.source)
            and self.reference in (None, row.reference)
            and self.recorded in (None, row.recorded)
            and (self.since is None or row.started_at >= self.since)
            and (self.until is None or row.started_at < self.until)
            and (self.agent is None or _any_like(row.agents, self.agent))
            and (self.number is None or any(_any_like(row.numbers, pattern) for pattern in number_patterns(self.number)))
        )

    @field_validator("until", mode="after")
    @classmethod
    def _ordered(cls, until: str | None, given: ValidationInfo) -> str | None:
        if until is not None and until < (given.data.get("since") or ""):
            raise ValueError("is earlier than since, so no call can match")
        return until


class CallRow(BaseModel):
    """One call in a list. Times are RFC 3339 UTC with microseconds, durations are seconds, unknown values are null."""

    model_config = ConfigDict(frozen=True)

    source: str
    call: str = Field(description="RequestID, or `call-<CallID>` if the dial API did not start the call.")
    request_id: int | None
    status: Status
    outcome: Outcome | None
    complete: bool | None
    close_reason: CloseReason | None
    revision: int = Field(description="The last published revision; 0 if none was published.")
    reference: str | None
    agent: str | None = Field(
        description="Extension of the agent who answered, else of the first one; the name if it is unknown."
    )
    number: str | None = Field(description="Number of the far party.")
    number_e164: str | None = Field(default=None, description="International form of the number, if the source has a `country`.")
    recorded: bool
    started_at: str
    answered_at: str | None
    ended_at: str | None
    ring_seconds: float | None
    talk_seconds: float | None
    call_type: CallType | None = Field(default=None, description="Kind of call; null in records of the first release.")
    queue: str | None = None
    agent_name: str | None = None
    ended_by: EndedBy | None = Field(default=None, description="The side that hung up first; null without a conversation.")
    agents: tuple[str, ...] = Field(default=(), exclude=True)
    numbers: tuple[str, ...] = Field(default=(), exclude=True)

    @property
    def position(self) -> Position:
        return Position(self.started_at, f"{self.source}/{self.call}")


class Calls(Protocol):
    """A store of calls: Redis or the history."""

    def newest(self, query: CallQuery, before: Position | None) -> AsyncIterator[tuple[Position, CallRow | None]]:
        """Yield calls after a position, newest start first, with None for each call that was read but does not match."""


def row_of(record: JsonObject, call: str, status: Status) -> CallRow:
    """Return the row of a call record, which `shared.domain.call_event.call_record` builds.

    A record of the first release has neither people nor the adapter values of each leg.
    """
    dial = record.get("dial") or {}
    legs = [leg for leg in (record["agent"], record["dialed"], *record["other_legs"]) if leg]
    all_fields = [record["fields"], *(leg.get("fields", {}) for leg in legs)]
    agent, number = _agent(record, dial), with_plus(_number(record, dial) or "") or None
    agents = [agent, dial.get("agent"), *_values(legs, "extension", "name")]
    agents += _values(all_fields, Placeholder.AGENT_EXTENSION, Placeholder.AGENT)
    numbers = [number, dial.get("number"), *_values(legs, "number")]
    numbers += _values(all_fields, Placeholder.CALLER_ID, Placeholder.DID)
    international = international_forms([dial, *legs])
    known = {name: record[name] for name in CallRow.model_fields if name in record and name not in {"agent", "revision"}}
    return CallRow(
        **{"call_type": CallType.API if record["request_id"] else None} | known,
        call=call,
        status=status,
        revision=record["revision"],
        agent=agent,
        agent_name=(record["agent"] or {}).get("name"),
        number=number,
        number_e164=international.get(number or ""),
        recorded=any(leg["recorded"] for leg in legs),
        agents=tuple(dict.fromkeys(filter(None, agents))),
        numbers=spelled(numbers, international),
    )


def _values(sources: Iterable[Mapping[str, str | None]], *names: str) -> list[str | None]:
    return [source.get(name) for source in sources for name in names]


def _agent(record: JsonObject, dial: Mapping[str, str]) -> str | None:
    """Return the agent's extension or name; that of the dial request if it is no other agent's."""
    leg, fields = record["agent"] or {}, record["fields"]
    is_only_one = sum(each.get("call_type") == CallType.API for each in record["other_legs"]) == 0
    known = [leg.get("extension"), leg.get("name"), dial.get("agent") if is_only_one else None]
    if "fields" not in leg:  # there is no leg yet, or the first release has written it
        known += [fields.get(Placeholder.AGENT_EXTENSION), fields.get(Placeholder.AGENT)]
    return next(filter(None, known), None)


def _number(record: JsonObject, dial: Mapping[str, str]) -> str | None:
    """Return the number of the far party; that of the dial request if it is not the number of another leg."""
    agent, dialed, fields = record["agent"] or {}, record["dialed"] or {}, record["fields"]
    is_only_one = sum(each.get("call_type") == CallType.OUTGOING for each in record["other_legs"]) == 0
    known = [dialed.get("number"), agent.get("number"), dial.get("number") if is_only_one else None]
    if "fields" not in agent and "fields" not in dialed:  # as above
        known += [fields.get(Placeholder.CALLER_ID), fields.get(Placeholder.DID)]
    return next(filter(None, known), None)


def _any_like(values: tuple[str, ...], pattern: str) -> bool:
    escaped = re.sub(r"([?\[])", r"[\1]", pattern.casefold())
    return any(fnmatchcase(value.casefold(), escaped) for value in values)
