"""SQL that writes events. Every statement is idempotent and independent of the order of events."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Table, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from console.history.batch import Batch, Row
from console.history.tables import AUDIT, CALLS, EVENTS, OFFSETS, RECORDINGS

Insert = postgresql.Insert | sqlite.Insert


def write(connection: Connection, batch: Batch) -> None:
    """Write the rows of a batch and its checkpoint in the current transaction."""
    if batch.events:
        connection.execute(_insert(connection, EVENTS).on_conflict_do_nothing(), batch.events)
    if batch.audit:
        connection.execute(_insert(connection, AUDIT).on_conflict_do_nothing(), batch.audit)
    if batch.calls:
        _upsert(connection, CALLS, list(batch.calls.values()))
    if batch.recordings:
        _upsert(connection, RECORDINGS, list(batch.recordings.values()))
        _expire_duplicates(connection, batch.legs)
    _upsert(connection, OFFSETS, [{"stream": batch.stream, **batch.checkpoint._asdict()}])


def _upsert(connection: Connection, table: Table, rows: list[Row]) -> None:
    statement = _insert(connection, table)
    keys = [column.name for column in table.primary_key]
    new = statement.excluded
    values = {column.name: new[column.name] for column in table.columns if column.name not in keys}
    is_newer: ColumnElement[bool] | None = None
    if table is CALLS:
        is_newer = new.revision > CALLS.c.revision
    elif table is RECORDINGS:
        later = (new.at == RECORDINGS.c.at) & (new.event > RECORDINGS.c.event)
        is_newer = or_(new.at > RECORDINGS.c.at, later)
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=values, where=is_newer), rows)


def _expire_duplicates(connection: Connection, legs: set[str]) -> None:
    """Expire the further recordings of legs whose first recording has expired: one event reports it for all."""
    first = RECORDINGS.alias()
    expired = select(first.c.id).where(
        first.c.id == RECORDINGS.c.leg_id, first.c.state == "expired", first.c.at >= RECORDINGS.c.at
    )
    connection.execute(
        update(RECORDINGS)
        .where(RECORDINGS.c.leg_id.in_(sorted(legs)), RECORDINGS.c.state == "stored", expired.exists())
        .values(state="expired", reason="retention")
    )


def _insert(connection: Connection, table: Table) -> Insert:
    match connection.dialect.name:
        case "postgresql":
            return postgresql.insert(table)
        case _:
            return sqlite.insert(table)
