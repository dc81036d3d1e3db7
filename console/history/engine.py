"""Connections to the history's database, and which of its errors mean that it is away."""

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
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from shared.config.settings import HISTORY_SCHEMES
from shared.errors import CallfoldError, ConfigError, HistoryUnavailableError

DEFAULT_URL = "sqlite:///.callfold/history.sqlite"
"""Where `callfold history` writes unless told otherwise."""

WRITE_TIMEOUT_S = 30
READ_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 5
_LOCK_TIMEOUT_S = 5
_READERS = 4
_STEPS_BETWEEN_CHECKS = 50_000  # of SQLite's machine; some milliseconds
_UNDEFINED_TABLE = "42P01"
_AWAY = (OperationalError, InterfaceError, InternalError)
_REFUSED = ("22", "23", "54")  # classes of SQLSTATE: data, constraints, limits of the program


class RefusedError(CallfoldError):
    """The database takes no such value, now or ever; the text names the database's own error, and no value."""


class _Line(Protocol):
    """What is needed of the driver's connection."""

    @property
    def closed(self) -> bool: ...
    def fileno(self) -> int: ...


def open_engine(url: str, *, is_writer: bool) -> Engine:
    """Prepare connections; none is made yet. A reader of SQLite makes no file where there is none.

    Raises:
        ConfigError: the URL is not understood, or its driver is not installed.
    """
    if not url.startswith(HISTORY_SCHEMES):
        raise ConfigError(f"CALLFOLD_HISTORY_URL is neither a {HISTORY_SCHEMES[0]} nor a {HISTORY_SCHEMES[1]} URL.")
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed.database, is_writer=is_writer)
        return _postgresql(url, is_writer=is_writer)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError(f"CALLFOLD_HISTORY_URL cannot be used: {type(error).__name__}.") from None
    except ImportError:
        raise ConfigError(
            "CALLFOLD_HISTORY_URL: the driver of PostgreSQL is missing. Install it with `pip install 'callfold[postgres]'`."
        ) from None


def shown(url: str) -> str:
    """Write a URL for people: without password and options."""
    parsed = make_url(url)
    return parsed.set(query={}).render_as_string(hide_password=True)


def _sqlite(database: str | None, *, is_writer: bool) -> Engine:
    if not database or database == ":memory:":
        raise ConfigError("CALLFOLD_HISTORY_URL names no file: expected sqlite:///relative/path or sqlite:////absolute/path.")
    path = Path(database).absolute()

    def connect() -> sqlite3.Connection:
        if is_writer and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # phone numbers
        # SQLAlchemy begins the transactions, see _begin: the driver's own come too late for reads.
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
        pool_size=1 if is_writer else _READERS,
        max_overflow=0,
        pool_timeout=READ_TIMEOUT_S,
        hide_parameters=True,
    )

    def prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_LOCK_TIMEOUT_S * 1000}")
        cursor.execute("PRAGMA synchronous=FULL")  # a committed offset outlives the power: the events before it do, too
        if is_writer:
            cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
        cursor.close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _postgresql(url: str, *, is_writer: bool) -> Engine:
    limit_s = WRITE_TIMEOUT_S if is_writer else READ_TIMEOUT_S
    ours = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "keepalives_idle": 10,  # with the next two, a host that is gone is noticed within 25 s
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "options": f"-c statement_timeout={limit_s * 1000} -c lock_timeout={limit_s * 1000} -c timezone=UTC",
        "application_name": "callfold history",
    }
    given = make_url(url).query
    return create_engine(
        url,
        connect_args={name: value for name, value in ours.items() if name not in given},
        pool_size=1 if is_writer else _READERS,
        max_overflow=0,
        pool_timeout=READ_TIMEOUT_S,
        pool_pre_ping=True,
        # What is read of one call in several statements is of one moment.
        isolation_level="READ COMMITTED" if is_writer else "REPEATABLE READ",
        hide_parameters=True,
    )


class Lines:
    """The connections to a PostgreSQL, so that a thread that waits for one that hangs can be freed."""

    def __init__(self, engine: Engine) -> None:
        self._sockets: WeakSet[_Line] = WeakSet()
        if engine.dialect.name == "postgresql":
            event.listen(engine, "connect", self._add)

    def _add(self, connection: _Line, _: ConnectionPoolEntry) -> None:
        self._sockets.add(connection)

    def cut(self) -> None:
        """Cut them all: a server that answered one would have answered in time."""
        for connection in list(self._sockets):
            if not connection.closed:
                with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the database says when it is away into our own error.

    Raises:
        HistoryUnavailableError: it is away, busy, full, or not set up yet.
        RefusedError: it does not take what is written, or asked for.
        ConfigError: what is there is no database of ours.
    """
    try:
        yield
    except (UnicodeError, OverflowError) as error:  # of the driver
        raise RefusedError(type(error).__name__) from error
    except DBAPIError as error:
        if _is_refused(error):
            raise RefusedError(" ".join(filter(None, (type(error.orig).__name__, _sqlstate(error))))) from error
        _explain(error)
        raise
    except PoolTimeoutError as error:
        raise HistoryUnavailableError(f"The history cannot be reached: {_words(error)}") from error
    except OSError as error:  # the directory of SQLite's file
        raise HistoryUnavailableError(f"The history cannot be reached: {error.strerror or type(error).__name__}") from error


def _explain(error: DBAPIError) -> None:
    if isinstance(error, _AWAY):
        raise HistoryUnavailableError(f"The history cannot be reached: {_words(error)}") from error
    if isinstance(error.orig, sqlite3.DatabaseError) and error.orig.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
        raise ConfigError("CALLFOLD_HISTORY_URL names a file that is no SQLite database.") from error
    if _sqlstate(error) == _UNDEFINED_TABLE:
        raise HistoryUnavailableError("The history has no tables yet: `callfold history` makes them as it starts.") from error


def _is_refused(error: DBAPIError) -> bool:
    return isinstance(error, DataError | IntegrityError) or (_sqlstate(error) or "").startswith(_REFUSED)


def _sqlstate(error: DBAPIError) -> str | None:
    found = getattr(error.orig, "sqlstate", None)
    return found if isinstance(found, str) else None


def _words(error: Exception) -> str:
    """Take the driver's own first sentence: SQLAlchemy's text quotes the statement."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(original or type(error).__name__).split())[:200]


@contextmanager
def limited(connection: Connection, limit_s: float) -> Iterator[None]:
    """Interrupt what takes longer in SQLite; PostgreSQL keeps its statement_timeout itself."""
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
