"""How the spool uses SQLite: its transactions, and what an error says about the file."""

from __future__ import annotations

import sqlite3

# What a file reports that is no spool, or not any more: ERROR is a table or column that is missing.
_DAMAGED = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_CONSTRAINT,
    }
)
_PASSING = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM})


class transaction:  # noqa: N801 - reads as the statement it is
    """`begin immediate` and `commit`, or `rollback`; if the disk was full, SQLite has rolled back by itself."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("begin immediate")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.execute("commit")
        elif self._db.in_transaction:
            self._db.execute("rollback")


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file is damaged, or no spool."""
    return _primary_code(error) in _DAMAGED


def is_passing(error: sqlite3.Error) -> bool:
    """Return whether the connection is as good as it was before the error."""
    return _primary_code(error) in _PASSING


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another connection held SQLite's own lock for as long as an attempt waits."""
    return _primary_code(error) == sqlite3.SQLITE_BUSY


def is_read_error(error: sqlite3.Error) -> bool:
    """Return whether the disk failed. The file may have other rows that can be read."""
    return _primary_code(error) == sqlite3.SQLITE_IOERR


def is_full(error: sqlite3.Error) -> bool:
    """Return whether the disk or the spool is full."""
    return _primary_code(error) == sqlite3.SQLITE_FULL


def _primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary error code; None for an error of the Python module."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
