"""The questions in SQL. They narrow down; `CallQuery.matches` decides, so that Redis and the history answer alike."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, Json
from sqlalchemy import ColumnElement, Connection, Select, select, tuple_

from console.call_query import CallQuery, CallRow, JsonObject, Position, row_of
from console.history.batch import CALL_EVENTS, indexed
from console.history.tables import AUDIT, CALLS, EVENTS, RECORDINGS
from shared.domain.call import Status

_ESCAPE = "\\"
_RECORDING_COLUMNS = [column for column in RECORDINGS.columns if column.name not in {"leg_id", "event"}]


class Recording(BaseModel):
    """What became of the recording of a leg, as the last event about it told. Times are RFC 3339 UTC, durations seconds."""

    model_config = ConfigDict(frozen=True)

    id: str
    source: str
    call: str
    call_id: str
    guid: str | None
    leg: str
    state: str = Field(description="`stored`, `absent`, `failed` or `expired`.")
    at: str
    uri: str | None
    bytes: int | None
    sha256: str | None
    seconds: float | None
    channels: int | None
    sample_rate: int | None
    encryption: Json[dict[str, Any]] | None
    attempts: int | None
    reason: str | None


class AuditLine(BaseModel):
    """Something somebody did."""

    model_config = ConfigDict(frozen=True)

    id: str
    at: str
    who: str
    action: str
    source: str | None
    call: str | None
    detail: dict[str, Any]  # of whatever kind of action


class CallHistory(BaseModel):
    """Everything the history has of one call: its record, the event of each revision, its recordings."""

    model_config = ConfigDict(frozen=True)

    row: CallRow
    record: JsonObject
    revisions: tuple[JsonObject, ...]
    recordings: tuple[Recording, ...]


def page(connection: Connection, query: CallQuery, before: Position | None, size: int) -> list[CallRow]:
    """Read calls after a position, newest start first; some may not match."""
    rows = connection.execute(_page(query, before).limit(size))
    return [_row(row.call, row.record) for row in rows]


def _page(query: CallQuery, before: Position | None) -> Select[tuple[str, str]]:
    place = tuple_(CALLS.c.started_at, CALLS.c.name)
    wanted = list(_narrowed(query))
    if before is not None:
        wanted.append(place < tuple_(before.started_at, before.call))
    return select(CALLS.c.call, CALLS.c.record).where(*wanted).order_by(CALLS.c.started_at.desc(), CALLS.c.name.desc())


def _narrowed(query: CallQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if query.outcome is not None:
        wanted.append(CALLS.c.outcome == str(query.outcome))
    if query.source is not None:
        wanted.append(CALLS.c.source == _clean(query.source))
    if query.reference is not None:
        wanted.append(CALLS.c.reference == _clean(indexed(query.reference) or ""))
    if query.recorded is not None:
        wanted.append(CALLS.c.recorded.is_(query.recorded))
    if query.since is not None:
        wanted.append(CALLS.c.started_at >= query.since)
    if query.until is not None:
        wanted.append(CALLS.c.started_at < query.until)
    if query.agent is not None:
        wanted.append(CALLS.c.agents.like(_like(query.agent), escape=_ESCAPE))
    if query.number is not None:
        wanted.append(CALLS.c.numbers.like(_like(query.number), escape=_ESCAPE))
    return wanted


def _like(pattern: str) -> str:
    """Write a pattern with `*` for LIKE, of one of the values between line ends."""
    escaped = _clean(pattern.casefold())
    for special in (_ESCAPE, "%", "_"):
        escaped = escaped.replace(special, _ESCAPE + special)
    return f"%\n{escaped.replace('*', '%')}\n%"


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _row(name: str, record: str) -> CallRow:
    return row_of(orjson.loads(record), name, Status.COMPLETE)


def call(connection: Connection, source: str, name: str) -> CallHistory | None:
    """Read all of one call; None where the history has none."""
    source, name = _clean(source), _clean(name)
    found = connection.execute(
        select(CALLS.c.call, CALLS.c.record).where(CALLS.c.source == source, CALLS.c.call == name)
    ).one_or_none()
    if found is None:
        return None
    bodies = connection.execute(
        select(EVENTS.c.body).where(EVENTS.c.source == source, EVENTS.c.call == name, EVENTS.c.type.in_(CALL_EVENTS))
    ).scalars()
    revisions = sorted((orjson.loads(body) for body in bodies), key=lambda told: int(told["data"]["revision"]))
    return CallHistory(
        row=_row(found.call, found.record),
        record=orjson.loads(found.record),
        revisions=tuple(revisions),
        recordings=tuple(_recordings(connection, RECORDINGS.c.call == name, RECORDINGS.c.source == source)),
    )


def recordings(connection: Connection, source: str, guid: str) -> list[Recording]:
    """Read what became of the recordings with a GUID; empty where there are none."""
    return _recordings(connection, RECORDINGS.c.source == _clean(source), RECORDINGS.c.guid == _clean(guid))


def _recordings(connection: Connection, *wanted: ColumnElement[bool]) -> list[Recording]:
    rows = connection.execute(select(*_RECORDING_COLUMNS).where(*wanted).order_by(RECORDINGS.c.id))
    return [Recording.model_validate(dict(row)) for row in rows.mappings()]


def audit(connection: Connection, since: str | None, limit: int) -> list[AuditLine]:
    """Read what people did, the newest first."""
    wanted = [] if since is None else [AUDIT.c.at >= since]
    rows = connection.execute(select(AUDIT).where(*wanted).order_by(AUDIT.c.at.desc(), AUDIT.c.id.desc()).limit(limit))
    return [AuditLine.model_validate({**row, "detail": orjson.loads(row["detail"])}) for row in rows.mappings()]
