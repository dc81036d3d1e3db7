"""Reads a spool file without changing it, row by row, as far as its rows are readable. It blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ingress.outgoing_message import OutgoingMessage
from ingress.spool_rows import DamagedRow, read_row
from ingress.spool_sqlite import is_passing

# A text that is not UTF-8 would otherwise fail the whole query.
_ROWS = "select id, cast(exchange as blob), cast(routing_key as blob), headers, body from messages where id"
_LAST_IDS = ("select max(id) from messages", "select seq from sqlite_sequence where name = 'messages'")


class SpoolReader:
    """The rows of one file.

    Attributes:
        problem: why some rows, or all, could not be read; '' if all were.
        unreadable: the number of rows that could not be read, as far as it is known.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem = ""
        self.unreadable = 0

    def rows(self) -> Iterator[OutgoingMessage | DamagedRow]:
        """Read the rows in their order. A row that cannot be read is skipped and counted.

        Raises:
            sqlite3.Error: the file cannot be read now, for example because it is locked.
        """
        try:
            with closing(sqlite3.connect(self._uri(), uri=True, isolation_level=None, check_same_thread=False)) as db:
                yield from self._rows(db)
        except sqlite3.DatabaseError as error:
            self._note(error)

    def _uri(self) -> str:
        # Without a log no process has the file open, and SQLite need not create one, which would belong to the user of a command.
        log = self._path.with_name(f"{self._path.name}-wal")
        return f"{self._path.absolute().as_uri()}?mode=ro{'' if log.exists() else '&immutable=1'}"

    def _rows(self, db: sqlite3.Connection) -> Iterator[OutgoingMessage | DamagedRow]:
        after = 0
        while True:
            try:
                for row_id, *columns in db.execute(f"{_ROWS} > ? order by id", (after,)):
                    after = row_id
                    yield read_row(*columns)
            except sqlite3.DatabaseError as error:
                self._note(error)
            else:
                return
            following = self._next(db, after)
            if following is None:
                return
            after, row = following
            yield row

    def _next(self, db: sqlite3.Connection, after: int) -> tuple[int, OutgoingMessage | DamagedRow] | None:
        """Return the next row that can be read after an id, and its id: a scan cannot pass a page that is damaged."""
        for row_id in range(after + 1, _last_id(db) + 1):
            try:
                row = db.execute(f"{_ROWS} = ?", (row_id,)).fetchone()
            except sqlite3.DatabaseError:
                self.unreadable += 1
            else:
                if row is not None:
                    return row_id, read_row(*row[1:])
        return None

    def _note(self, error: sqlite3.DatabaseError) -> None:
        if is_passing(error):
            raise error
        self.problem = self.problem or str(error)


def _last_id(db: sqlite3.Connection) -> int:
    """Return the last id that was given to a row; 0 if that cannot be read either."""
    last = 0
    for query in _LAST_IDS:
        try:
            last = max(last, *(row_id or 0 for (row_id,) in db.execute(query)))
        except (sqlite3.DatabaseError, TypeError):
            continue
    return last
