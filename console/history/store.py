"""Access to the history. SQLite and PostgreSQL give the same results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from console.call_query import CallQuery, CallRow, Position
from console.history import attempts, queries, schema, writes
from console.history.attempts import Attempt
from console.history.batch import Batch, Checkpoint
from console.history.database_errors import translated_errors
from console.history.engine import (
    MAX_READERS,
    READ_TIMEOUT_S,
    WRITE_TIMEOUT_S,
    PostgresSockets,
    display_url,
    open_engine,
    sqlite_time_limit,
)
from console.history.queries import AuditLine, CallHistory, Recording
from shared.crash_points import crash_point
from shared.errors import HistoryUnavailableError

_TIMEOUT_MARGIN_S = 5  # added to the database's own timeout: connecting, and returning the result
_FIRST_PAGE_SIZE = 50
_PAGE_SIZE = 500

_T = TypeVar("_T")


class History:
    """All calls, recordings and audit lines ever written.

    Every method raises HistoryUnavailableError while the database is unavailable. Statements block, so they run in
    threads. A writer has one thread, and therefore one connection.
    """

    def __init__(self, url: str, *, is_writer: bool = False) -> None:
        """Prepare the connection pool without connecting.

        Raises:
            ConfigError: the URL is invalid, or its driver is not installed.
        """
        self._engine = open_engine(url, is_writer=is_writer)
        self._sockets = PostgresSockets(self._engine)
        self.name = display_url(url)
        self._limit_s = WRITE_TIMEOUT_S if is_writer else READ_TIMEOUT_S
        self._threads = ThreadPoolExecutor(1 if is_writer else MAX_READERS, thread_name_prefix="history")

    async def prepare(self) -> None:
        """Create the tables, or run the migrations that are missing.

        Raises:
            ConfigError: the database has tables of another version or another program, or is not UTF-8.
        """
        await self._do(schema.migrate)

    async def check(self) -> None:
        """Check that the history can be read.

        Raises:
            ConfigError: the tables have another version.
        """
        await self._do(schema.check_version)

    async def checkpoint(self, stream: str) -> Checkpoint | None:
        """Return the last event of a stream that was written; None if there is none."""
        return await self._do(lambda connection: queries.read_checkpoint(connection, stream))

    async def write(self, batch: Batch) -> None:
        """Write a batch atomically. Writing it again changes nothing.

        Raises:
            ValueRejectedError: the database rejects one of its rows.
        """

        def work(connection: Connection) -> None:
            writes.write(connection, batch)
            crash_point("history.before_commit")

        await self._do(work)

    async def newest(self, query: CallQuery, before: Position | None) -> AsyncIterator[tuple[Position, CallRow | None]]:
        """Yield calls after a position, newest start first. A call that does not match yields its position and None."""
        if query.state not in {None, "complete"}:
            return  # open calls are not in the history
        size = _FIRST_PAGE_SIZE
        while True:
            rows = await self._do(partial(queries.page, query=query, before=before, size=size))
            for row in rows:
                yield row.position, row if query.matches(row) else None
            if len(rows) < size:
                return
            before, size = rows[-1].position, _PAGE_SIZE

    async def call(self, source: str, call: str) -> CallHistory | None:
        """Read one call: its record, the event of each revision, and its recordings. Return None if it is unknown."""
        return await self._do(lambda connection: queries.call(connection, source, call))

    async def recordings(self, source: str, guid: str) -> list[Recording]:
        """Read the recordings with a GUID."""
        return await self._do(lambda connection: queries.recordings(connection, source, guid))

    async def audit(self, since: str | None = None, limit: int = 100) -> list[AuditLine]:
        """Read audit lines since a time (RFC 3339 UTC), newest first."""
        return await self._do(lambda connection: queries.audit(connection, since, limit))

    async def attempts(self, endpoint: str, *, limit: int, before: str | None = None, failed: bool = False) -> list[Attempt]:
        """Read the attempts of a webhook, newest first, optionally before a time, or only those that failed."""
        return await self._do(
            lambda connection: attempts.of_endpoint(connection, endpoint, limit=limit, before=before, failed=failed)
        )

    async def last_attempts(self, endpoints: Iterable[str]) -> dict[str, Attempt]:
        """Read the last attempt of each webhook that has one."""
        names = list(endpoints)
        return await self._do(lambda connection: attempts.last_of(connection, names))

    async def _do(self, work: Callable[[Connection], _T]) -> _T:
        """Run statements in one transaction, in a thread."""
        timeout_s = self._limit_s + _TIMEOUT_MARGIN_S
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._transaction, work)
        except TimeoutError:
            self._sockets.shut_down()
            raise HistoryUnavailableError(f"The history did not answer within {timeout_s} s.") from None

    def _transaction(self, work: Callable[[Connection], _T]) -> _T:
        with translated_errors(), self._engine.begin() as connection, sqlite_time_limit(connection, self._limit_s):
            return work(connection)

    async def aclose(self) -> None:
        """Finish the current transaction and close the connections."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        self._engine.dispose()
