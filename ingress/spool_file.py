"""The SQLite file of a spool: opened under a lock, repaired when it is damaged, made again when it vanishes. It blocks.

A file that another process replaced still accepts commits, which no drain would ever find. So every use compares the open file
with the one in the directory, before and after, and is repeated in the new file. A message may then be written twice, never lost.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import orjson

from ingress.outgoing_message import OutgoingMessage
from ingress.spool_paths import NO_LOG, Identity, LockHeldError, SpoolPaths
from ingress.spool_reader import SpoolReader
from ingress.spool_rows import DamagedRow
from ingress.spool_sqlite import is_busy, is_damage, is_passing, transaction
from shared import metrics
from shared.log import get_logger

log = get_logger(__name__)

_PAGE_BYTES = 4096
_BUSY_TIMEOUT_S = 5
_QUICK_S, _SLOW_S, _REOPEN_S = 0.1, 1.0, 2.0
_ATTEMPTS, _OPEN_ATTEMPTS = 3, 2
_SCHEMA = """
create table if not exists messages (
    id integer primary key autoincrement,
    exchange text not null,
    routing_key text not null,
    headers blob not null,
    body blob not null
) strict
"""
# The name of a spool is created with its file. Under a shared name the reports of two spools would overwrite each other.
_IDENTITY = "create table if not exists identity (name text not null) strict"
_NAME_ONCE = "insert into identity (name) select ? where not exists (select 1 from identity)"
_NAME_AGAIN = "update identity set name = ? where length(name) <> 32 or name glob '*[^0-9a-f]*'"  # damaged
_COPIED = "exchange, routing_key, headers, body"
_T = TypeVar("_T")


class ReplacedError(OSError):
    """The file in which rows were read is not the file of the spool any more."""


class SpoolFile:
    """The file and its connection, used by one thread.

    Attributes:
        name: the identity of the spool in reports; '' until the file was open.
        generation: the number of files so far. Row ids of different files are unrelated.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path = path
        self._paths = SpoolPaths(path)
        self.name = ""
        self.generation = 0
        self._max_pages = max_bytes // _PAGE_BYTES
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._retry_at = 0.0
        self._failure: Exception | None = None

    def run(self, work: Callable[[sqlite3.Connection], _T], *, generation: int | None = None) -> _T:
        """Run `work` on the open file; it may run again in another file, unless it is about rows of one `generation`.

        Raises:
            OSError: the file cannot be opened or has no space, ReplacedError: it is not that of `generation`.
            sqlite3.Error: SQLite failed.
        """
        for _ in range(_ATTEMPTS):
            db = self._open()
            if generation not in {None, self.generation}:
                raise ReplacedError(f"{self.path} was replaced")
            try:
                result = work(db)
            except sqlite3.Error as error:
                if not self._repair(error):
                    raise
                continue
            if self._is_in_place():
                return result
        raise OSError(f"{self.path} is replaced again and again")

    def close(self) -> None:
        """Close the connection. What is written is complete in any case."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def replace_if(self, is_done: Callable[[sqlite3.Connection], bool]) -> bool:
        """Delete the file and begin a new one if nothing in it is needed; on a full disk rows cannot be deleted singly."""
        return self._delete_if(is_done, then=self._connect)

    def delete_if(self, is_done: Callable[[sqlite3.Connection], bool]) -> bool:
        """Delete the file if nothing in it is needed; the next use begins a new one."""
        return self._delete_if(is_done, then=lambda: None)

    def _delete_if(self, is_done: Callable[[sqlite3.Connection], bool], *, then: Callable[[], None]) -> bool:
        db = self._open()
        with self._paths.locked():
            if not self._is_in_place():
                return False
            with transaction(db):
                if not is_done(db):
                    return False
                self._paths.delete()
            self.close()
            self._identity = None  # a new file may get the number of the old one
            then()
        return True

    def salvage(self) -> None:
        """Set the file aside and begin a new one with the rows that can be read, if some can and others cannot.

        Raises:
            OSError: the lock is held for too long.
            sqlite3.Error: the new file cannot be written. The rows are then in the file that was set aside.
        """
        with self._paths.locked():
            if not self._is_in_place():
                return
            reader = SpoolReader(self.path)
            readable = sum(1 for _ in reader.rows())
            if not (readable and reader.problem):
                return
            target = self._set_aside(OSError(reader.problem))
            self._connect()
            rows = (_columns(row) for row in SpoolReader(target).rows())
            if (db := self._connection) is not None:
                with transaction(db):
                    db.executemany(f"insert into messages ({_COPIED}) values (?, ?, ?, ?)", rows)  # noqa: S608 - a constant
            log.error("spool_salvaged", file=str(target), messages=readable)

    def _repair(self, error: sqlite3.Error) -> bool:
        """Set a damaged file aside, or close it after another error; returns whether another attempt makes sense."""
        if is_passing(error):
            return False
        if not self._is_in_place():
            return True
        if not is_damage(error):
            self.close()
            return False
        with self._paths.locked():
            if self._is_in_place():  # else another process was first
                self._set_aside(error)
        return True

    def _open(self) -> sqlite3.Connection:
        """Return the connection to the file that is in the directory; opens, creates or restores the file if necessary."""
        if self._connection is not None and self._is_in_place():
            return self._connection
        if self._failure is not None and time.monotonic() < self._retry_at:
            raise OSError(str(self._failure)) from self._failure
        for attempt in range(1, _OPEN_ATTEMPTS + 1):
            began = time.monotonic()
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self._paths.locked():
                    self._open_or_restore()
                break
            except (OSError, sqlite3.Error) as error:
                now, is_held = time.monotonic(), _is_held(error)
                is_slow = now - began > (_QUICK_S if is_held else _SLOW_S)
                if attempt < _OPEN_ATTEMPTS and not is_held and not is_slow and self._has_vanished(error):
                    continue
                # What takes long, as with a lock that is held, must not cost each message as long. Else the next one tries again.
                self._failure, self._retry_at = error, now + (_REOPEN_S if is_slow else 0)
                raise
        self._failure = None
        if self._connection is None:
            raise AssertionError("a file that was opened has a connection")
        return self._connection

    def _open_or_restore(self) -> None:
        """Open the file in the directory, with the rows of the file that was open before if that one or its log was deleted."""
        before, self._connection = self._connection, None
        try:
            if before is not None and self._is_without_log():
                self._set_aside(OSError("its log was deleted"))
            if before is not None and self.path.exists():
                before.close()
                before = None
            self._connect_or_set_aside()
            if before is not None:
                self._copy_from(before)
        except BaseException:
            self.close()
            if before is not None:  # all that is left of its rows, and later there may be space for them
                self._connection, self._identity = before, None
                with suppress(OSError):  # the directory may have become a file
                    self._paths.delete()
            raise

    def _has_vanished(self, error: Exception) -> bool:
        """Return whether opening failed because the file or its directory was deleted in the middle of it."""
        if isinstance(error, sqlite3.Error) and is_passing(error):
            return False
        try:
            self._paths.identity()
        except OSError as missing:
            return isinstance(missing, FileNotFoundError | NotADirectoryError)
        return False

    def _connect_or_set_aside(self) -> None:
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._set_aside(error)
            self._connect()

    def _connect(self) -> None:
        """Open the file in the directory. The lock must be held."""
        if self._paths.is_without_file():
            self._set_aside(OSError("the file itself is missing"))
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.execute(f"pragma page_size = {_PAGE_BYTES}")
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")  # in WAL mode only `full` fsyncs every commit
        connection.execute(f"pragma max_page_count = {self._max_pages}")
        connection.execute(_SCHEMA)
        connection.execute(_IDENTITY)
        # The successor of a file keeps its name, so that its reports replace those of the old file.
        name = self.name or uuid.uuid4().hex
        connection.execute(_NAME_ONCE, (name,))
        connection.execute(_NAME_AGAIN, (name,))
        self.name = str(connection.execute("select name from identity").fetchone()[0])
        connection.execute(f"select id, {_COPIED} from messages limit 1").fetchone()  # noqa: S608 - a constant
        identity = self._paths.identity()
        self.generation += self._identity is None or identity[:2] != self._identity[:2]
        self._identity = identity

    def _copy_from(self, vanished: sqlite3.Connection) -> None:
        """Copy the rows of a file that was deleted while it was open; the kernel keeps it until it is closed.

        Raises:
            sqlite3.Error: not now, for example because the disk is full. `vanished` is still open.
        """
        db = self._connection
        try:
            with closing(vanished.execute(f"select {_COPIED} from messages order by id")) as rows:  # noqa: S608 - a constant
                if db is not None:
                    with transaction(db):
                        copied = db.executemany(f"insert into messages ({_COPIED}) values (?, ?, ?, ?)", rows).rowcount  # noqa: S608
                    log.error("spool_restored", file=str(self.path), messages=max(copied, 0))
        except sqlite3.Error as error:
            if is_passing(error):
                raise
            log.exception("spool_not_restored", file=str(self.path), detail=str(error))
        vanished.close()

    def _set_aside(self, reason: Exception) -> Path:
        """Set the file aside and close it; returns its new name. The lock must be held."""
        target = self._paths.set_aside()
        self.close()  # now that it is renamed: SQLite would otherwise write its log into it first
        self._identity = None
        metrics.SPOOL_SET_ASIDE.labels(self.path.stem).inc()
        log.error("spool_set_aside", file=str(target), detail=str(reason))
        return target

    def _is_without_log(self) -> bool:
        """Return whether the file that was open is in the directory without its log, where the latest rows are."""
        try:
            return self._identity is not None and self._paths.identity() == (*self._identity[:2], NO_LOG)
        except OSError:
            return False

    def _is_in_place(self) -> bool:
        """Return whether the open file and its log are those in the directory."""
        try:
            return self._identity == self._paths.identity()
        except OSError:
            return False


def _is_held(error: Exception) -> bool:
    return isinstance(error, LockHeldError) or (isinstance(error, sqlite3.Error) and is_busy(error))


def _columns(row: OutgoingMessage | DamagedRow) -> tuple[str, str, bytes, bytes]:
    message = row.dead_letter() if isinstance(row, DamagedRow) else row
    return message.exchange, message.routing_key, orjson.dumps(dict(message.headers)), message.body
