"""The local spool: an sqlite file in which messages wait, fsynced, while the broker is away.

All ingress processes of a machine share one file. Whoever holds the lock file drains it, so that messages go out in order,
once (again where a process dies after the broker's confirm), and what a stopped process left is drained by the next one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import orjson

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
# Two spools of one name would take each other's news for their own, so a name is made once, with the file.
_IDENTITY = "create table if not exists identity (name text not null) strict"
_NAME_ONCE = "insert into identity (name) select ? where not exists (select 1 from identity)"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message without an id of its own: each publish attempt gets a fresh one."""

    exchange: str
    routing_key: str
    headers: Mapping[str, str | int]
    body: bytes


class Spool:
    """Messages on disk. sqlite is blocking, so one thread owns the connection."""

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
            ConfigError: the directory cannot be made or written.
        """
        try:
            await self._run(self._open)
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            raise ConfigError(f"The spool directory {self._directory} cannot be used: {error}.") from error
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
        """Write messages; on return they are on disk.

        Raises:
            SpoolUnavailableError: the spool is full or cannot be written.
        """
        rows = [(m.exchange, m.routing_key, orjson.dumps(dict(m.headers)), m.body) for m in messages]
        await self._guarded(lambda db: self._insert(db, rows))
        self.added.set()

    def _insert(self, db: sqlite3.Connection, rows: Sequence[tuple[str, str, bytes, bytes]]) -> None:
        with _transaction(db):
            db.executemany("insert into messages (exchange, routing_key, headers, body) values (?, ?, ?, ?)", rows)

    async def check(self) -> None:
        """Try a write without keeping it; raises SpoolUnavailableError as `add` would."""

        def probe(db: sqlite3.Connection) -> None:
            db.execute("begin immediate")
            try:
                db.execute("insert into messages (exchange, routing_key, headers, body) values ('', '', x'', zeroblob(65536))")
            finally:
                if db.in_transaction:
                    db.execute("rollback")

        await self._guarded(probe)

    async def count(self) -> int:
        return await self._guarded(lambda db: int(db.execute("select count(*) from messages").fetchone()[0]))

    async def oldest(self, at_most: int, *, max_bytes: int) -> list[tuple[int, OutgoingMessage]]:
        """Read the oldest messages in order, with the id to `remove` them by, until the bodies add up to `max_bytes`."""

        def read(db: sqlite3.Connection) -> list[tuple[int, OutgoingMessage]]:
            rows = db.execute("select id, exchange, routing_key, headers, body from messages order by id limit ?", (at_most,))
            found: list[tuple[int, OutgoingMessage]] = []
            size = 0
            for number, exchange, routing_key, headers, body in rows:
                found.append((number, OutgoingMessage(exchange, routing_key, orjson.loads(headers), body)))
                size += len(body)
                if size >= max_bytes:
                    break
            return found

        return await self._guarded(read)

    async def first(self, exchange: str, *, after: int) -> OutgoingMessage | None:
        """Read the oldest message for an exchange, of those that come after one that has been read."""

        def read(db: sqlite3.Connection) -> OutgoingMessage | None:
            query = "select exchange, routing_key, body from messages where id > ? and exchange = ? order by id limit 1"
            row = db.execute(query, (after, exchange)).fetchone()
            return None if row is None else OutgoingMessage(row[0], row[1], {}, row[2])

        return await self._guarded(read)

    async def remove(self, ids: Sequence[int]) -> None:
        """Forget messages that the broker has confirmed."""

        def delete(db: sqlite3.Connection) -> None:
            with _transaction(db):
                db.executemany("delete from messages where id = ?", [(number,) for number in ids])

        await self._guarded(delete)

    @asynccontextmanager
    async def drain_lock(self) -> AsyncIterator[bool]:
        """Try to become the one process of this machine that drains; the kernel frees the lock of a process that died."""
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

    async def _guarded(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
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
    """`begin immediate` ... `commit`, or `rollback`; sqlite has rolled back by itself when the disk was full."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("begin immediate")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.execute("commit")
        elif self._db.in_transaction:
            self._db.execute("rollback")
