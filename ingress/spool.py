"""The local spool: an fsynced SQLite file that keeps messages while RabbitMQ is unavailable.

All ingress processes of a machine share the file. The process that holds the lock file drains it, so messages are published in
order. A message is published twice only if the process dies between the broker's confirm and the removal. Messages of a stopped
process are drained by another.

The spool is a fallback: no fault of its disk or its file ends the process. `problem` says what is wrong while something is.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from itertools import chain
from pathlib import Path
from typing import Self, TypeVar

import orjson

from callfold_client.envelope import is_time
from ingress.outgoing_message import OutgoingMessage
from ingress.spool_file import ReplacedError, SpoolFile
from ingress.spool_problems import SpoolProblems
from ingress.spool_rows import DamagedRow, read_row
from ingress.spool_sqlite import is_full, is_read_error, transaction
from shared.amqp.topology import CALLBACKS
from shared.domain.raw_event import receipt_times
from shared.errors import SpoolUnavailableError
from shared.file_lock import open_lock_file, try_lock

SPOOL_FILE = "spool.sqlite"
_DRAIN_LOCK = "drain.lock"
# A failure of the disk that passes must not cost a file.
_SALVAGE_S = 10.0
# A text that is not UTF-8 would otherwise fail the whole query.
_ROW = "id, cast(exchange as blob), cast(routing_key as blob), headers, body"

_T = TypeVar("_T")


class Spool:
    """Messages on disk. SQLite blocks, so one thread owns the connection.

    Attributes:
        added: set when this process has written messages.
        has_undeleted: whether messages are removed that could not be deleted in the file.
    """

    def __init__(self, directory: Path, *, max_bytes: int, file_name: str = SPOOL_FILE) -> None:
        """Prepare; spools with different file names are independent and may share a directory."""
        self._file = SpoolFile(directory / file_name, max_bytes=max_bytes)
        self._drain_lock = directory / (_DRAIN_LOCK if file_name == SPOOL_FILE else f"{file_name}.{_DRAIN_LOCK}")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._file.path.stem)
        self._problems = SpoolProblems(self._file.path)
        self.added = asyncio.Event()
        self.has_undeleted = False
        self._unreadable_since: float | None = None
        self._read = (0, 0)  # the generation of the file that `oldest` read, and the last id that is removed

    @property
    def name(self) -> str:
        """The identity of the spool in reports to the workers; '' until the file was open."""
        return self._file.name

    @property
    def generation(self) -> int:
        """The number of files so far, of which each replaced the one before; 0 until one was open."""
        return self._file.generation

    @property
    def problem(self) -> str:
        """Why the spool cannot be used, or ''."""
        return self._problems.first

    async def __aenter__(self) -> Self:
        """Open the file if possible; if not, every later use attempts it again."""
        with suppress(SpoolUnavailableError):
            await self.check()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown()

    async def add(self, messages: Sequence[OutgoingMessage]) -> None:
        """Write messages and fsync them.

        Raises:
            SpoolUnavailableError: the spool is full or cannot be written.
        """
        rows = [(m.exchange, m.routing_key, orjson.dumps(dict(m.headers)), m.body) for m in messages]

        def insert(db: sqlite3.Connection) -> None:
            with transaction(db):
                db.executemany("insert into messages (exchange, routing_key, headers, body) values (?, ?, ?, ?)", rows)

        await self._write(insert)
        self.added.set()

    async def check(self) -> None:
        """Write as `add` would, without a message.

        Raises:
            SpoolUnavailableError: as `add` does.
        """

        def probe(db: sqlite3.Connection) -> None:
            db.execute("pragma shrink_memory")  # without its cache SQLite reads the file, and notices damage
            db.execute("begin immediate")
            try:
                db.execute("insert into messages (exchange, routing_key, headers, body) values ('', '', x'', zeroblob(65536))")
            finally:
                if db.in_transaction:
                    db.execute("rollback")
            with transaction(db):
                db.execute("update identity set name = name")

        await self._write(probe)

    async def count(self) -> int:
        """Count the messages that are not published yet."""

        def count(db: sqlite3.Connection) -> int:
            return int(db.execute("select count(*) from messages where id > ?", (self._skipped(),)).fetchone()[0])

        return await self._attempt_read(lambda: self._file.run(count))

    async def is_drained(self) -> bool:
        """Return whether no message is left: each one is published, and deleted in the file.

        Raises:
            SpoolUnavailableError: the file cannot be read.
        """
        return not self.has_undeleted and await self._attempt(lambda: self._file.run(_is_empty))

    async def delete_if_empty(self) -> None:
        """Delete the file if it has no messages, at the end of its use. No process may use it at that time."""
        with suppress(SpoolUnavailableError):
            await self._attempt(lambda: self._file.delete_if(_is_empty))

    async def size(self) -> int:
        """Return the bytes that the messages take in the file, as good as SQLite knows; 0 if there are none."""

        def read(db: sqlite3.Connection) -> int:
            if db.execute("select 1 from messages where id > ? limit 1", (self._skipped(),)).fetchone() is None:
                return 0
            pages, free, page_bytes = (
                int(db.execute(f"pragma {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
            )
            return (pages - free) * page_bytes

        return await self._attempt(lambda: self._file.run(read))

    async def oldest(self, at_most: int, *, max_bytes: int) -> list[tuple[int, OutgoingMessage | DamagedRow]]:
        """Read the oldest messages and their ids, in order, until the bodies add up to `max_bytes`."""

        def read(db: sqlite3.Connection) -> list[tuple[int, OutgoingMessage | DamagedRow]]:
            self._read = (self._file.generation, self._skipped())
            rows = db.execute(f"select {_ROW} from messages where id > ? order by id limit ?", (self._read[1], at_most))  # noqa: S608
            messages: list[tuple[int, OutgoingMessage | DamagedRow]] = []
            size = 0
            for row_id, *columns in rows:
                row = read_row(*columns)
                messages.append((row_id, row))
                size += len(row.body)
                if size >= max_bytes:
                    break
            return messages

        rows = await self._attempt_read(lambda: self._file.run(read))
        self._unreadable_since = None
        return rows

    async def oldest_receipt(self, *, after: int = 0) -> str:
        """Return when the oldest callback was received, of those after the id `after` that was read; '' if there is none.

        A damaged row, or a time that is none, does not count: the fold never sees it.
        """

        def read(db: sqlite3.Connection) -> str:
            query = f"select {_ROW} from messages where id > ? and exchange = ? order by id"  # noqa: S608 - a constant
            with closing(db.execute(query, (max(after, self._skipped()), CALLBACKS))) as rows:
                intact = (row for _, *columns in rows if not isinstance(row := read_row(*columns), DamagedRow))
                return next(filter(is_time, chain.from_iterable(receipt_times(row.body) for row in intact)), "")

        return await self._attempt_read(lambda: self._file.run(read, generation=self._read[0] if after else None))

    async def remove(self, ids: Sequence[int]) -> None:
        """Remove messages that RabbitMQ has confirmed: the oldest ones, as `oldest` returned them.

        If they cannot be deleted, as on a full disk, `oldest` skips them and `has_undeleted` is true. Call it again later then,
        with or without ids. Another process would publish them again, so keep the drain lock as long as that.
        """
        generation, skipped = self._read
        until = max([skipped, *ids])
        self._read = (generation, until)

        def delete(db: sqlite3.Connection) -> None:
            with transaction(db):
                db.execute("delete from messages where id <= ?", (until,))

        def is_done(db: sqlite3.Connection) -> bool:
            return db.execute("select 1 from messages where id > ? limit 1", (until,)).fetchone() is None

        def work() -> None:
            try:
                self._file.run(delete, generation=generation)
            except ReplacedError:
                return  # so these rows are not in the spool any more
            except sqlite3.Error as error:
                if not is_full(error) or not self._file.replace_if(is_done):
                    raise

        try:
            await self._attempt(work)
        except SpoolUnavailableError as error:
            self._problems.note("remove", str(error))
            self.has_undeleted = True
        else:
            self._problems.note("remove", "")
            self.has_undeleted = False

    @asynccontextmanager
    async def drain_lock(self) -> AsyncIterator[bool]:
        """Try to acquire the drain lock of this machine; the kernel releases it when the process dies."""
        try:
            handle = open_lock_file(self._drain_lock)
        except OSError as error:
            self._problems.note("lock", self._problems.sentence(error))
            yield False
            return
        try:
            yield self._is_locked(handle)
        finally:
            os.close(handle)

    def _is_locked(self, handle: int) -> bool:
        try:
            is_ours = try_lock(handle)
        except OSError as error:  # the file system has no locks, so nothing would ever be drained
            self._problems.note("lock", self._problems.sentence(error))
            return False
        self._problems.note("lock", "")
        return is_ours

    def _skipped(self) -> int:
        """Return the last id that is removed, deleted or not; 0 in another file."""
        generation, until = self._read
        return until if generation == self._file.generation else 0

    async def _write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        try:
            await self._attempt(lambda: self._file.run(work))
        except SpoolUnavailableError as error:
            self._problems.note("write", str(error))
            raise
        self._problems.note("write", "")

    async def _attempt_read(self, work: Callable[[], _T]) -> _T:
        """Read; if the disk has failed to read some rows for a while, the others move to a new file, so that they are drained."""
        try:
            return await self._attempt(work)
        except SpoolUnavailableError as error:
            now = time.monotonic()
            if isinstance(error.__cause__, sqlite3.Error) and is_read_error(error.__cause__):
                self._unreadable_since = self._unreadable_since or now
                if now - self._unreadable_since >= _SALVAGE_S:
                    self._unreadable_since = now
                    await self._attempt(self._file.salvage)
            raise

    async def _attempt(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise SpoolUnavailableError(self._problems.sentence(error)) from error


def _is_empty(db: sqlite3.Connection) -> bool:
    return db.execute("select 1 from messages limit 1").fetchone() is None
