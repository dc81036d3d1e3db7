"""Attempts to deliver events to webhooks: reading their messages, and the queries on their table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Connection, delete, select

from console.history.tables import ATTEMPTS, has_table
from console.history.values import At, Int, Row, Short, without_nul
from shared.domain.ids import CALL_REF, SOURCE_NAME
from shared.domain.times import rfc3339

KEPT = timedelta(days=90)
"""How long attempts are kept. There can be many more of them than events."""

_Status = Annotated[int, Field(ge=100, le=999)]
_NO_CALL = ("", "")


class Attempt(BaseModel):
    """One attempt to deliver an event to a webhook."""

    model_config = ConfigDict(frozen=True)

    endpoint: Short
    event_id: Annotated[str, Field(min_length=1, max_length=400)]
    type: Short
    attempt: Int = Field(description="Number of the attempt for this event, from 1.")
    at: At
    status: _Status | None = Field(description="HTTP status of the answer; null if there was none.")
    error: str | None = Field(description="Why there was no answer; null if there was one.")
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(description="Time from the request to the answer.")
    answer: Annotated[str, Field(max_length=4096)] = Field(description="First bytes of the answer, with credentials masked.")
    next_at: At | None = Field(description="When the next attempt is due; null if there is none.")
    result: Literal["delivered", "retry", "dead", "disabled"] = Field(
        description="`delivered`, `retry`, `dead` (a dead letter), or `disabled` (the endpoint answered 410)."
    )


_NAMES = tuple(Attempt.model_fields)
_COLUMNS = [ATTEMPTS.c[name] for name in _NAMES]


def read_attempt(body: bytes) -> Row:
    """Return the row of a message of the stream of attempts.

    Raises:
        ValueError: it is no attempt.
    """
    attempt = Attempt.model_validate(orjson.loads(body))
    source, call = _call_of(attempt.event_id)
    return without_nul({**attempt.model_dump(), "source": source, "call": call})


def _call_of(event_id: str) -> tuple[str, str]:
    """Return source and call of an event: `acme/513/1` and `acme/513/recording/...` are of `acme` and `513`."""
    source, _, rest = event_id.partition("/")
    call, _, of_call = rest.partition("/")
    if of_call and SOURCE_NAME.fullmatch(source) and CALL_REF.fullmatch(call):
        return source, call
    return _NO_CALL


def of_endpoint(
    connection: Connection, endpoint: str, *, limit: int, before: str | None = None, failed: bool = False
) -> list[Attempt]:
    """Read the attempts of an endpoint, newest first, optionally before a time, or only those that failed."""
    conditions = [ATTEMPTS.c.endpoint == endpoint]
    if before is not None:
        conditions.append(ATTEMPTS.c.at < before)
    if failed:
        conditions.append(ATTEMPTS.c.result != "delivered")
    return _newest(connection, conditions, limit)


def last_of(connection: Connection, endpoints: Iterable[str]) -> dict[str, Attempt]:
    """Read the last attempt of each endpoint that has one."""
    last = {name: of_endpoint(connection, name, limit=1) for name in endpoints}
    return {name: attempts[0] for name, attempts in last.items() if attempts}


def of_call(connection: Connection, source: str, call: str, *, limit: int) -> list[Attempt]:
    """Read the attempts to deliver events of a call, newest first."""
    return _newest(connection, [ATTEMPTS.c.source == source, ATTEMPTS.c.call == call], limit)


def _newest(connection: Connection, conditions: list[ColumnElement[bool]], limit: int) -> list[Attempt]:
    if not has_table(connection, ATTEMPTS):
        return []
    newest = select(*_COLUMNS).where(*conditions).order_by(ATTEMPTS.c.at.desc(), ATTEMPTS.c.event_id).limit(limit)
    return [Attempt.model_construct(**dict(row)) for row in connection.execute(newest).mappings()]


def expire(connection: Connection) -> None:
    """Delete the attempts that are too old."""
    oldest = rfc3339(datetime.now(UTC) - KEPT)
    connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.at < oldest))
