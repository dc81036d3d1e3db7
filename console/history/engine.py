"""Connections to the history's database: SQLite or PostgreSQL."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import quote
from weakref import WeakSet

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from shared.config.settings import HISTORY_SCHEMES
from shared.errors import ConfigError

WRITE_TIMEOUT_S = 30
READ_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 5
_LOCK_TIMEOUT_S = 5
MAX_READERS = 4
_STEPS_BETWEEN_CHECKS = 50_000  # of SQLite's virtual machine: some milliseconds


class _DriverConnection(Protocol):
    """The driver's connection, as far as it is used here."""

    @property
    def closed(self) -> bool: ...
    def fileno(self) -> int: ...


def open_engine(url: str, *, is_writer: bool) -> Engine:
    """Prepare the connection pool without connecting. A SQLite reader never creates a missing file.

    Raises:
        ConfigError: the URL is invalid, or its driver is not installed.
    """
    if not url.startswith(HISTORY_SCHEMES):
        raise ConfigError(f"CALLFOLD_HISTORY_URL must begin with {HISTORY_SCHEMES[0]} or {HISTORY_SCHEMES[1]}.")
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed.database, is_writer=is_writer)
        return _postgresql(url, is_writer=is_writer)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError(f"CALLFOLD_HISTORY_URL is invalid: {type(error).__name__}.") from None
    except ImportError:
        raise ConfigError(
            "CALLFOLD_HISTORY_URL needs the PostgreSQL driver. Install it with `pip install 'callfold[postgres]'`."
        ) from None


def display_url(url: str) -> str:
    """Write a URL without its password and options."""
    parsed = make_url(url)
    return parsed.set(query={}).render_as_string(hide_password=True)


def _sqlite(database: str | None, *, is_writer: bool) -> Engine:
    if not database or database == ":memory:":
        raise ConfigError("CALLFOLD_HISTORY_URL names no file. Use sqlite:///relative/path or sqlite:////absolute/path.")
    path = Path(database).absolute()

    def connect() -> sqlite3.Connection:
        if is_writer and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # it will hold phone numbers
        # SQLAlchemy begins the transactions (see `_configure_sqlite`), because the driver begins none for reads.
        return sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=_LOCK_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=1 if is_writer else MAX_READERS,
        max_overflow=0,
        pool_timeout=READ_TIMEOUT_S,
        hide_parameters=True,
    )
    _configure_sqlite(engine, is_writer=is_writer)
    return engine


def _configure_sqlite(engine: Engine, *, is_writer: bool) -> None:
    def set_pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_LOCK_TIMEOUT_S * 1000}")
        cursor.execute("PRAGMA synchronous=FULL")  # a committed offset survives a power failure, and so do its events
        if is_writer:
            cursor.execute("PRAGMA journal_mode=WAL")  # the writer does not block readers
        cursor.close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    event.listen(engine, "connect", set_pragmas)
    event.listen(engine, "begin", begin)


def _postgresql(url: str, *, is_writer: bool) -> Engine:
    limit_s = WRITE_TIMEOUT_S if is_writer else READ_TIMEOUT_S
    defaults = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "keepalives_idle": 10,  # these three detect a lost host within 25 s
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "options": f"-c statement_timeout={limit_s * 1000} -c lock_timeout={limit_s * 1000} -c timezone=UTC",
        "application_name": "callfold history",
    }
    url_options = make_url(url).query
    return create_engine(
        url,
        connect_args={name: value for name, value in defaults.items() if name not in url_options},
        pool_size=1 if is_writer else MAX_READERS,
        max_overflow=0,
        pool_timeout=READ_TIMEOUT_S,
        pool_pre_ping=True,
        # The statements that read one call see one snapshot.
        isolation_level="READ COMMITTED" if is_writer else "REPEATABLE READ",
        hide_parameters=True,
    )


class PostgresSockets:
    """The sockets of PostgreSQL connections. Shutting them down frees threads that wait for a hung server."""

    def __init__(self, engine: Engine) -> None:
        self._connections: WeakSet[_DriverConnection] = WeakSet()
        if engine.dialect.name == "postgresql":
            event.listen(engine, "connect", self._add)

    def _add(self, connection: _DriverConnection, _: ConnectionPoolEntry) -> None:
        self._connections.add(connection)

    def shut_down(self) -> None:
        """Shut down all sockets. The server hangs for all of them, or it would have answered in time."""
        for connection in list(self._connections):
            if not connection.closed:
                with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
                    duplicate.shutdown(socket.SHUT_RDWR)


@contextmanager
def sqlite_time_limit(connection: Connection, limit_s: float) -> Iterator[None]:
    """Interrupt SQLite statements that exceed a time limit. PostgreSQL enforces its statement_timeout itself."""
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        yield
        return
    end = time.monotonic() + limit_s
    raw.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_CHECKS)
    try:
        yield
    finally:
        raw.set_progress_handler(None, 0)
