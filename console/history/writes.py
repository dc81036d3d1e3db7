"""SQL that writes events. Every statement is idempotent and independent of the order of events."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Table, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from console.history.attempts import expire
from console.history.batch import Batch
from console.history.tables import ATTEMPTS, AUDIT, CALLS, EVENTS, OFFSETS, RECORDINGS
from console.history.values import Row

# Tombstones live longer, and no revision moves the start of a call as far.
_FORGOTTEN = timedelta(days=8)

Insert = postgresql.Insert | sqlite.Insert


def write(connection: Connection, batch: Batch) -> None:
    """Write the rows of a batch and its checkpoint in the current transaction."""
    if batch.calls:
        _set_aside_reused(connection, batch)
    if batch.events:
        connection.execute(_insert(connection, EVENTS).on_conflict_do_nothing(), batch.events)
    if batch.audit:
        connection.execute(_insert(connection, AUDIT).on_conflict_do_nothing(), batch.audit)
    if batch.attempts:
        connection.execute(_insert(connection, ATTEMPTS).on_conflict_do_nothing(), batch.attempts)
        expire(connection)
    if batch.calls:
        _upsert(connection, CALLS, list(batch.calls.values()))
    if batch.recordings:
        _upsert(connection, RECORDINGS, list(batch.recordings.values()))
        _expire_duplicates(connection, batch.legs)
    _upsert(connection, OFFSETS, [{"stream": batch.stream, **batch.checkpoint._asdict()}])


def _set_aside_reused(connection: Connection, batch: Batch) -> None:
    """Rename calls whose ids a PBX that was reset has used again, after Callfold had forgotten them: `513~20261123`.

    Otherwise the new call would be taken for a repetition of the old one. The old one gets the day on which it began.
    """
    rows = {(str(row["source"]), str(row["call"])): str(row["started_at"]) for row in batch.calls.values()}
    known = select(CALLS.c.source, CALLS.c.call, CALLS.c.started_at).where(tuple_(CALLS.c.source, CALLS.c.call).in_(list(rows)))
    for source, call, started_at in connection.execute(known).all():
        again = datetime.fromisoformat(rows[source, call])
        if again - datetime.fromisoformat(started_at) > _FORGOTTEN:
            suffix = f"~{started_at[:10].replace('-', '')}"
            values = {"call": call + suffix}
            changes: list[tuple[Table, dict[str, object]]] = [
                (CALLS, {**values, "name": f"{source}/{call}{suffix}"}),
                (EVENTS, {**values, "id": EVENTS.c.id + suffix}),
                (ATTEMPTS, {**values, "event_id": ATTEMPTS.c.event_id + suffix}),
                (RECORDINGS, {**values, "id": RECORDINGS.c.id + suffix, "leg_id": RECORDINGS.c.leg_id + suffix}),
            ]
            for table, row in changes:
                connection.execute(update(table).where(table.c.source == source, table.c.call == call).values(row))


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
