"""Translation of the database's errors into those of Callfold."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.errors import CallfoldError, ConfigError, HistoryUnavailableError

_UNDEFINED_TABLE = "42P01"
_UNAVAILABLE = (OperationalError, InterfaceError, InternalError)
_REJECTED = ("22", "23", "54")  # classes of SQLSTATE: data, constraints, program limits
_MAX_DETAIL_CHARACTERS = 200

NO_TABLES = "The history has no tables yet. `callfold history` creates them when it starts."


class ValueRejectedError(CallfoldError):
    """The database will never accept this value. The text names the database's error and quotes no value."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate the errors of the database.

    Raises:
        HistoryUnavailableError: the database is unavailable, busy, full or not set up yet.
        ValueRejectedError: the database rejects a value that is written or queried.
        ConfigError: the file is not a database.
    """
    try:
        yield
    except (UnicodeError, OverflowError) as error:  # raised by the driver
        raise ValueRejectedError(type(error).__name__) from error
    except DBAPIError as error:
        if _is_rejected(error):
            raise ValueRejectedError(" ".join(filter(None, (type(error.orig).__name__, _sqlstate(error))))) from error
        _raise_translated(error)
        raise
    except PoolTimeoutError as error:
        raise _unreachable(_driver_message(error)) from error
    except OSError as error:  # the directory of the SQLite file
        raise _unreachable(error.strerror or type(error).__name__) from error


def _raise_translated(error: DBAPIError) -> None:
    if isinstance(error, _UNAVAILABLE):
        raise _unreachable(_driver_message(error)) from error
    if isinstance(error.orig, sqlite3.DatabaseError) and error.orig.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
        raise ConfigError("CALLFOLD_HISTORY_URL names a file that is not a SQLite database.") from error
    if _sqlstate(error) == _UNDEFINED_TABLE:
        raise HistoryUnavailableError(NO_TABLES) from error


def _unreachable(detail: str) -> HistoryUnavailableError:
    return HistoryUnavailableError(f"The history cannot be reached: {detail}")


def _is_rejected(error: DBAPIError) -> bool:
    return isinstance(error, DataError | IntegrityError) or (_sqlstate(error) or "").startswith(_REJECTED)


def _sqlstate(error: DBAPIError) -> str | None:
    code = getattr(error.orig, "sqlstate", None)
    return code if isinstance(code, str) else None


def _driver_message(error: Exception) -> str:
    """Return the driver's own message, because SQLAlchemy's quotes the statement."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(original or type(error).__name__).split())[:_MAX_DETAIL_CHARACTERS]
