"""SQL queries. They preselect; `CallQuery.matches` decides, so Redis and the history give the same results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json
from sqlalchemy import ColumnElement, Connection, Select, or_, select, tuple_

from console.call_query import CallQuery, CallRow, JsonObject, Position, row_of
from console.history.attempts import Attempt, of_call
from console.history.batch import CALL_EVENTS, Checkpoint
from console.history.tables import AUDIT, CALLS, EVENTS, OFFSETS, RECORDINGS, has_column
from console.history.values import truncated
from console.number_search import number_patterns
from shared.domain.call import Status
from shared.phone_numbers import spellings

_ESCAPE = "\\"
_MAX_DELIVERIES = 200
_RECORDING_COLUMNS = [column for column in RECORDINGS.columns if column.name not in {"leg_id", "event"}]


def _read_flags(value: object) -> object:
    """Read the flags of a row; a row of a previous release has none."""
    return orjson.loads(value) if isinstance(value, str) else value or []


class Recording(BaseModel):
    """The state of a leg's recording according to its last event. Times are RFC 3339 UTC, durations are in seconds."""

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
    flags: Annotated[list[str], BeforeValidator(_read_flags)] = Field(default=[], description="What is unusual about it.")
    sha512: str | None = Field(default=None, description="Null if a previous release stored the recording.")


class AuditLine(BaseModel):
    """One action of a user or of the daily retention."""

    model_config = ConfigDict(frozen=True)

    id: str
    at: str
    who: str
    action: str
    source: str | None
    call: str | None
    detail: dict[str, Any]  # depends on the action


class CallHistory(BaseModel):
    """A call in the history: its record, the event of each revision, its recordings, and its deliveries to webhooks."""

    model_config = ConfigDict(frozen=True)

    row: CallRow
    record: JsonObject
    revisions: tuple[JsonObject, ...]
    recordings: tuple[Recording, ...]
    deliveries: tuple[Attempt, ...] = ()


def page(connection: Connection, query: CallQuery, before: Position | None, size: int) -> list[CallRow]:
    """Read calls after a position, newest start first. The query may not match all of them."""
    conditions = _conditions(query)
    if query.type is not None and has_column(connection, CALLS.c.call_type):
        # A row of the first release has no type; its record is asked.
        conditions.append(or_(CALLS.c.call_type == str(query.type), CALLS.c.call_type.is_(None)))
    rows = connection.execute(_page(conditions, before).limit(size))
    return [_row(row.call, row.record) for row in rows]


def _page(conditions: list[ColumnElement[bool]], before: Position | None) -> Select[tuple[str, str]]:
    if before is not None:
        conditions.append(tuple_(CALLS.c.started_at, CALLS.c.name) < tuple_(before.started_at, before.call))
    return select(CALLS.c.call, CALLS.c.record).where(*conditions).order_by(CALLS.c.started_at.desc(), CALLS.c.name.desc())


def _conditions(query: CallQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.outcome is not None:
        conditions.append(CALLS.c.outcome == str(query.outcome))
    if query.source is not None:
        conditions.append(CALLS.c.source == _without_nul(query.source))
    if query.reference is not None:
        conditions.append(CALLS.c.reference == _without_nul(truncated(query.reference) or ""))
    if query.recorded is not None:
        conditions.append(CALLS.c.recorded.is_(query.recorded))
    if query.since is not None:
        conditions.append(CALLS.c.started_at >= query.since)
    if query.until is not None:
        conditions.append(CALLS.c.started_at < query.until)
    if query.agent is not None:
        conditions.append(CALLS.c.agents.like(_like(query.agent), escape=_ESCAPE))
    if query.number is not None:
        # Rows of an earlier version have the numbers only as they were received.
        pattern, *digits = number_patterns(query.number)
        patterns = {pattern, *spellings(digits[0] if digits else pattern)}
        conditions.append(or_(*(CALLS.c.numbers.like(_like(each), escape=_ESCAPE) for each in sorted(patterns))))
    return conditions


def _like(pattern: str) -> str:
    """Translate a pattern with `*` into one for LIKE that matches a value between line ends."""
    escaped = _without_nul(pattern.casefold())
    for special in (_ESCAPE, "%", "_"):
        escaped = escaped.replace(special, _ESCAPE + special)
    return f"%\n{escaped.replace('*', '%')}\n%"


def _without_nul(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _row(name: str, record: str) -> CallRow:
    return row_of(orjson.loads(record), name, Status.COMPLETE)


def call(connection: Connection, source: str, name: str) -> CallHistory | None:
    """Read one call; None if the history does not have it."""
    source, name = _without_nul(source), _without_nul(name)
    record = connection.execute(
        select(CALLS.c.call, CALLS.c.record).where(CALLS.c.source == source, CALLS.c.call == name)
    ).one_or_none()
    if record is None:
        return None
    bodies = connection.execute(
        select(EVENTS.c.body).where(EVENTS.c.source == source, EVENTS.c.call == name, EVENTS.c.type.in_(CALL_EVENTS))
    ).scalars()
    revisions = sorted((orjson.loads(body) for body in bodies), key=lambda event: int(event["data"]["revision"]))
    return CallHistory(
        row=_row(record.call, record.record),
        record=_with_annotations(orjson.loads(record.record), revisions),
        revisions=tuple(revisions),
        recordings=tuple(_recordings(connection, RECORDINGS.c.call == name, RECORDINGS.c.source == source)),
        deliveries=tuple(of_call(connection, source, name, limit=_MAX_DELIVERIES)),
    )


def _with_annotations(record: JsonObject, revisions: Iterable[JsonObject]) -> JsonObject:
    """Add the annotations to the record of a call, from the event of its revision."""
    published = next((event["data"] for event in revisions if event["data"]["revision"] == record["revision"]), record)
    return {**record, "annotations": published["annotations"]} if "annotations" in published else record


def recordings(connection: Connection, source: str, guid: str) -> list[Recording]:
    """Read the recordings with a GUID."""
    return _recordings(connection, RECORDINGS.c.source == _without_nul(source), RECORDINGS.c.guid == _without_nul(guid))


def _recordings(connection: Connection, *conditions: ColumnElement[bool]) -> list[Recording]:
    columns = [column for column in _RECORDING_COLUMNS if column is not RECORDINGS.c.flags or has_column(connection, column)]
    events = RECORDINGS.outerjoin(EVENTS, EVENTS.c.id == RECORDINGS.c.event)
    rows = connection.execute(select(*columns, EVENTS.c.body).select_from(events).where(*conditions).order_by(RECORDINGS.c.id))
    return [Recording.model_validate({**row, "sha512": _sha512_of(row["body"])}) for row in rows.mappings()]


def _sha512_of(body: str | None) -> str | None:
    """Read the SHA-512 of a recording from the event that set its state, as it has no column."""
    sha512 = None if body is None else orjson.loads(body)["data"].get("sha512")
    return sha512 if isinstance(sha512, str) else None


def audit(connection: Connection, since: str | None, limit: int) -> list[AuditLine]:
    """Read audit lines, newest first."""
    conditions = [] if since is None else [AUDIT.c.at >= since]
    rows = connection.execute(select(AUDIT).where(*conditions).order_by(AUDIT.c.at.desc(), AUDIT.c.id.desc()).limit(limit))
    return [AuditLine.model_validate({**row, "detail": orjson.loads(row["detail"])}) for row in rows.mappings()]


def read_checkpoint(connection: Connection, stream: str) -> Checkpoint | None:
    """Read the checkpoint of a stream; None if no event was written yet."""
    row = connection.execute(select(OFFSETS.c.offset, OFFSETS.c.fingerprint).where(OFFSETS.c.stream == stream)).one_or_none()
    return None if row is None else Checkpoint(*row)
