"""Creation, upgrade and version check of the history's tables."""

from __future__ import annotations

from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.schema import CreateColumn

from console.history.database_errors import NO_TABLES
from console.history.tables import METADATA, VERSION, VERSIONS, column_names, creation_lock
from shared.errors import ConfigError, HistoryUnavailableError


def create_tables(connection: Connection) -> None:
    """Create the tables if there are none, and add the columns that a release before this one did not have.

    Raises:
        ConfigError: the database has tables of another version or another program, or is not UTF-8.
    """
    lock = creation_lock(connection.dialect.name)
    if lock is not None:
        connection.execute(lock)
    present = set(inspect(connection).get_table_names())
    if VERSIONS.name not in present:
        foreign = sorted(present & {table.name for table in METADATA.sorted_tables})
        if foreign:
            raise ConfigError(
                f"CALLFOLD_HISTORY_URL: table {foreign[0]} belongs to another program. Use a separate database for the history."
            )
        _require_utf8(connection)
        METADATA.create_all(connection)
        connection.execute(VERSIONS.insert().values(id=1, version=VERSION))
    check_version(connection)
    for table in METADATA.sorted_tables:
        names = column_names(connection, table)
        for column in table.columns:
            if column.name not in names:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def check_version(connection: Connection) -> None:
    """Check that the tables have the version of this program.

    Raises:
        HistoryUnavailableError: there are no tables yet.
        ConfigError: the tables have another version.
    """
    if not inspect(connection).has_table(VERSIONS.name):
        raise HistoryUnavailableError(NO_TABLES)
    version = connection.execute(select(VERSIONS.c.version)).scalar_one()
    if version != VERSION:
        raise ConfigError(
            f"CALLFOLD_HISTORY_URL: the tables have version {version}, this program needs {VERSION}. See CHANGELOG.md to migrate."
        )


def _require_utf8(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        encoding = connection.execute(select(func.current_setting("server_encoding"))).scalar_one()
        if encoding != "UTF8":
            raise ConfigError(f"CALLFOLD_HISTORY_URL: the database uses {encoding}. Create one with ENCODING 'UTF8'.")
