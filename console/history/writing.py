"""The statements that write: each can be repeated, in any order, and ends in the same rows."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Table, func, inspect, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from console.history.batch import Batch, Mark, Row
from console.history.tables import ALL, AUDIT, CALLS, EVENTS, OFFSETS, RECORDINGS, VERSION, VERSIONS, serializer
from shared.errors import ConfigError, HistoryUnavailableError

Insert = postgresql.Insert | sqlite.Insert


def write(connection: Connection, batch: Batch) -> None:
    """Write rows and where they came from, in the transaction of the connection."""
    if batch.events:
        connection.execute(_insert(connection, EVENTS).on_conflict_do_nothing(), batch.events)
    if batch.audit:
        connection.execute(_insert(connection, AUDIT).on_conflict_do_nothing(), batch.audit)
    if batch.calls:
        _upsert(connection, CALLS, list(batch.calls.values()))
    if batch.recordings:
        _upsert(connection, RECORDINGS, list(batch.recordings.values()))
        _expire_copies(connection, batch.legs)
    _upsert(connection, OFFSETS, [{"stream": batch.stream, **batch.mark._asdict()}])


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


def _expire_copies(connection: Connection, legs: set[str]) -> None:
    """Let the end of a leg's recordings, told once, count for each of those that differ."""
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


def read_mark(connection: Connection, stream: str) -> Mark | None:
    """Tell the last event of a stream that was written."""
    found = connection.execute(select(OFFSETS.c.offset, OFFSETS.c.fingerprint).where(OFFSETS.c.stream == stream)).one_or_none()
    return None if found is None else Mark(*found)


def prepare(connection: Connection) -> None:
    """Create the tables where there are none.

    Raises:
        ConfigError: there are tables of another version, or of somebody else.
    """
    turn = serializer(connection.dialect.name)
    if turn is not None:
        connection.execute(turn)
    present = set(inspect(connection).get_table_names())
    if VERSIONS.name not in present:
        others = sorted(present & {table.name for table in ALL.sorted_tables})
        if others:
            raise ConfigError(
                f"CALLFOLD_HISTORY_URL: the database has a table {others[0]} that is not ours. Give the history one of its own."
            )
        _require_utf8(connection)
        ALL.create_all(connection)
        connection.execute(VERSIONS.insert().values(id=1, version=VERSION))
    check(connection)


def check(connection: Connection) -> None:
    """Compare the version of the tables with ours.

    Raises:
        HistoryUnavailableError: there are no tables yet.
        ConfigError: it is another.
    """
    if not inspect(connection).has_table(VERSIONS.name):
        raise HistoryUnavailableError("The history has no tables yet: `callfold history` makes them as it starts.")
    version = connection.execute(select(VERSIONS.c.version)).scalar_one()
    if version != VERSION:
        raise ConfigError(
            f"CALLFOLD_HISTORY_URL: the tables are of version {version}, this program knows {VERSION}. See the changelog."
        )


def _require_utf8(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        encoding = connection.execute(select(func.current_setting("server_encoding"))).scalar_one()
        if encoding != "UTF8":
            raise ConfigError(f"CALLFOLD_HISTORY_URL: the database is encoded in {encoding}; make one with ENCODING 'UTF8'.")
