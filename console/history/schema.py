"""Migration and version check of the history's tables.

Each migration is a revision of Alembic in `migrations/versions`. Alembic is imported only if there is something to migrate.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from sqlalchemy import Connection, func, inspect, select

from console.history.database_errors import NO_TABLES
from console.history.tables import FIRST_REVISION, METADATA, REVISION, REVISIONS, VERSION, VERSIONS, migration_lock
from shared.errors import ConfigError, HistoryUnavailableError
from shared.log import get_logger

log = get_logger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"
_ALEMBIC = threading.Lock()  # its context is a global of the process


def migrate(connection: Connection) -> None:
    """Bring the tables to the revision of this program: create them, or run the migrations that are missing.

    Several processes may start at once: a lock lets one after the other in, and the later ones find nothing to do.
    Tables with a revision that this program does not know belong to a newer release. They are used as they are if their version
    is known, because then only columns were added.

    Raises:
        ConfigError: the database has tables of another version or another program, or is not UTF-8.
    """
    lock = migration_lock(connection.dialect.name)
    if lock is not None:
        connection.execute(lock)
    present = set(inspect(connection).get_table_names())
    revision = _revision(connection) if REVISIONS.name in present else None
    if VERSIONS.name in present:
        check_version(connection)
        _upgrade(connection, revision or FIRST_REVISION, is_recorded=revision is not None)
        return
    foreign = sorted(present & {table.name for table in METADATA.sorted_tables})
    if foreign or revision is not None:
        name = foreign[0] if foreign else REVISIONS.name
        raise ConfigError(
            f"CALLFOLD_HISTORY_URL: table {name} belongs to another program. Use a separate database for the history."
        )
    _require_utf8(connection)
    _upgrade(connection, None, is_recorded=True)


def check_version(connection: Connection) -> None:
    """Check that the tables have the version of this program.

    Raises:
        HistoryUnavailableError: there are no tables yet.
        ConfigError: the tables have another version.
    """
    if not inspect(connection).has_table(VERSIONS.name):
        raise HistoryUnavailableError(NO_TABLES)
    version = connection.execute(select(VERSIONS.c.version)).scalar_one()
    if version > VERSION:
        raise ConfigError(
            f"CALLFOLD_HISTORY_URL: the tables have version {version}, this program knows {VERSION}. "
            "A newer release has migrated them, and there is no way back. Use that release, or restore a backup."
        )
    if version < VERSION:
        raise ConfigError(
            f"CALLFOLD_HISTORY_URL: the tables have version {version} of a development version, and cannot be migrated."
        )


def _upgrade(connection: Connection, revision: str | None, *, is_recorded: bool) -> None:
    """Run the migrations after a revision. One that is not recorded is that of tables from before there were migrations."""
    if revision == REVISION:
        return
    from alembic import command  # noqa: PLC0415 - most starts migrate nothing
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    if revision is not None and revision not in {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}:
        log.info("history_tables_newer", revision=revision, known=REVISION)
        return
    with _ALEMBIC:
        if not is_recorded and revision is not None:
            command.stamp(config, revision)
        command.upgrade(config, "head")
    log.info("history_migrated", before=revision, after=REVISION)


def _revision(connection: Connection) -> str | None:
    return connection.execute(select(REVISIONS.c.version_num)).scalar_one_or_none()


def _require_utf8(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        encoding = connection.execute(select(func.current_setting("server_encoding"))).scalar_one()
        if encoding != "UTF8":
            raise ConfigError(f"CALLFOLD_HISTORY_URL: the database uses {encoding}. Create one with ENCODING 'UTF8'.")
