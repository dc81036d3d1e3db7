"""The local spool: an fsynced SQLite file that keeps messages while RabbitMQ is unavailable.

All ingress processes of a machine share the file. The process that holds the lock file drains it, so messages are published in
order. A message is published twice only if the process dies between the broker's confirm and the removal. Messages of a stopped
process are drained by another.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar

import orjson

from ingress.outgoing_message import OutgoingMessage
from shared.errors import ConfigError, SpoolUnavailableError

_PAGE_BYTES = 4096
_BUSY_TIMEOUT_S = 5
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

_T = TypeVar("_T")


class Spool:
    """Messages on disk. SQLite blocks, so one thread owns the connection."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_pages = max_bytes // _PAGE_BYTES
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._connection: sqlite3.Connection | None = None
        self.added = asyncio.Event()
        self.name = ""

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            ConfigError: the directory cannot be created or written.
        """
        try:
            await self._run(self._open)
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            raise ConfigError(f"Cannot use the spool directory {self._directory}: {error}. Check CALLFOLD_SPOOL_DIR.") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._run(self._connection.close)
        self._thread.shutdown()

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._directory / "spool.sqlite", timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"pragma page_size = {_PAGE_BYTES}")
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")  # in WAL mode only `full` fsyncs every commit
        connection.execute(f"pragma max_page_count = {self._max_pages}")
        connection.execute(_SCHEMA)
        connection.execute(_IDENTITY)
        connection.execute(_NAME_ONCE, (uuid.uuid4().hex,))
        self.name = str(connection.execute("select name from identity").fetchone()[0])
        self._connection = connection

    async def add(self, messages: Sequence[OutgoingMessage]) -> None:
        """Write messages and fsync them.

        Raises:
            SpoolUnavailableError: the spool is full or cannot be written.
        """
        rows = [(m.exchange, m.routing_key, orjson.dumps(dict(m.headers)), m.body) for m in messages]
        await self._checked(lambda db: self._insert(db, rows))
        self.added.set()

    def _insert(self, db: sqlite3.Connection, rows: Sequence[tuple[str, str, bytes, bytes]]) -> None:
        with _transaction(db):
            db.executemany("insert into messages (exchange, routing_key, headers, body) values (?, ?, ?, ?)", rows)

    async def check(self) -> None:
        """Write and roll back; raises SpoolUnavailableError if `add` would."""

        def probe(db: sqlite3.Connection) -> None:
            db.execute("begin immediate")
            try:
                db.execute("insert into messages (exchange, routing_key, headers, body) values ('', '', x'', zeroblob(65536))")
            finally:
                if db.in_transaction:
                    db.execute("rollback")

        await self._checked(probe)

    async def count(self) -> int:
        return await self._checked(lambda db: int(db.execute("select count(*) from messages").fetchone()[0]))

    async def oldest(self, at_most: int, *, max_bytes: int) -> list[tuple[int, OutgoingMessage]]:
        """Read the oldest messages and their ids, in order, until the bodies add up to `max_bytes`."""

        def read(db: sqlite3.Connection) -> list[tuple[int, OutgoingMessage]]:
            rows = db.execute("select id, exchange, routing_key, headers, body from messages order by id limit ?", (at_most,))
            messages: list[tuple[int, OutgoingMessage]] = []
            size = 0
            for row_id, exchange, routing_key, headers, body in rows:
                messages.append((row_id, OutgoingMessage(exchange, routing_key, orjson.loads(headers), body)))
                size += len(body)
                if size >= max_bytes:
                    break
            return messages

        return await self._checked(read)

    async def first(self, exchange: str, *, after: int) -> OutgoingMessage | None:
        """Read the oldest message for an exchange whose id is greater than `after`; without its headers."""

        def read(db: sqlite3.Connection) -> OutgoingMessage | None:
            query = "select exchange, routing_key, body from messages where id > ? and exchange = ? order by id limit 1"
            row = db.execute(query, (after, exchange)).fetchone()
            return None if row is None else OutgoingMessage(row[0], row[1], {}, row[2])

        return await self._checked(read)

    async def remove(self, ids: Sequence[int]) -> None:
        """Delete messages that RabbitMQ has confirmed."""

        def delete(db: sqlite3.Connection) -> None:
            with _transaction(db):
                db.executemany("delete from messages where id = ?", [(row_id,) for row_id in ids])

        await self._checked(delete)

    @asynccontextmanager
    async def drain_lock(self) -> AsyncIterator[bool]:
        """Try to acquire the drain lock of this machine; the kernel releases it when the process dies."""
        handle = os.open(self._directory / "drain.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    async def _checked(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        db = self._connection
        if db is None:
            raise SpoolUnavailableError("the spool is not open")
        try:
            return await self._run(lambda: work(db))
        except (sqlite3.Error, OSError) as error:
            raise SpoolUnavailableError(f"the spool cannot be written: {error}") from error

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class _transaction:  # noqa: N801 - reads as the statement it is
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
