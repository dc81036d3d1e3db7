"""Which events were handled: an event can be delivered twice, with the same id."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from os import PathLike
from typing import Protocol, Self

DEFAULT_LIMIT = 200_000
_PRUNED_AT_ONCE = 1000


class SeenIds(Protocol):
    """Remembers handled events. Write your own to keep them in the database of your work.

    `add` is called after the body of the loop and before the ack. Calls are named `<source>/<subject>`.
    """

    def has(self, event_id: str, /) -> bool:
        """Return whether an event was handled."""

    def revision(self, call: str, /) -> int:
        """Return the highest revision of a call that was handled; 0 if none was."""

    def add(self, event_id: str, call: str, revision: int, /) -> None:
        """Remember an event; the revision of a recording's event is 0."""


class MemorySeenIds:
    """Remembers the last events of this process, as many as `limit`."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._revisions: OrderedDict[str, int] = OrderedDict()

    def has(self, event_id: str, /) -> bool:
        return event_id in self._ids

    def revision(self, call: str, /) -> int:
        return self._revisions.get(call, 0)

    def add(self, event_id: str, call: str, revision: int, /) -> None:
        self._ids[event_id] = None
        self._ids.move_to_end(event_id)
        if revision:
            self._revisions[call] = max(revision, self.revision(call))
            self._revisions.move_to_end(call)
        for remembered in (self._ids, self._revisions):
            while len(remembered) > self._limit:
                remembered.popitem(last=False)


class SqliteSeenIds:
    """Remembers the last events in a file, so that a restart or a later replay repeats nothing. Use it with `with`."""

    def __init__(self, path: str | PathLike[str], limit: int = 10 * DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = full")
        self._database.execute("create table if not exists seen (number integer primary key, id text unique not null)")
        self._database.execute(
            "create table if not exists revisions (call text primary key, revision integer not null) without rowid"
        )
        self._added = 0
        self._prune()

    def has(self, event_id: str, /) -> bool:
        return self._database.execute("select 1 from seen where id = ?", (event_id,)).fetchone() is not None

    def revision(self, call: str, /) -> int:
        row = self._database.execute("select revision from revisions where call = ?", (call,)).fetchone()
        return int(row[0]) if row else 0

    def add(self, event_id: str, call: str, revision: int, /) -> None:
        self._database.execute("begin immediate")
        try:
            self._database.execute("insert or ignore into seen (id) values (?)", (event_id,))
            if revision:
                self._database.execute(
                    "insert into revisions values (?, ?) on conflict do update set revision = excluded.revision "
                    "where excluded.revision > revisions.revision",
                    (call, revision),
                )
        except BaseException:
            self._database.execute("rollback")
            raise
        self._database.execute("commit")
        self._added += 1
        if self._added >= _PRUNED_AT_ONCE:
            self._prune()

    def _prune(self) -> None:
        """Delete the oldest ids beyond the limit. Revisions stay: one row for each call."""
        self._added = 0
        self._database.execute("delete from seen where number <= (select coalesce(max(number), 0) from seen) - ?", (self._limit,))

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
