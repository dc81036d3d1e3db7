"""The one door to the history's database: SQLite or PostgreSQL, the same questions and the same answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from console.call_query import CallQuery, CallRow, Position
from console.history import queries, writing
from console.history.batch import Batch, Mark
from console.history.engine import READ_TIMEOUT_S, WRITE_TIMEOUT_S, Lines, explained, limited, open_engine, shown
from console.history.queries import AuditLine, CallHistory, Recording
from shared.crash_points import crash_point
from shared.errors import HistoryUnavailableError

_READERS = 4
_MARGIN_S = 5  # beyond what the database allows itself: the connection, the way back
_FIRST_PAGE = 50
_PAGE = 500

_T = TypeVar("_T")


class History:
    """All there ever was: calls, recordings, audit lines. Every method raises HistoryUnavailableError while it cannot do it.

    Its work blocks, so it is done in threads of its own; a writer has one, and so one connection.
    """

    def __init__(self, url: str, *, is_writer: bool = False) -> None:
        """Prepare connections; none is made yet.

        Raises:
            ConfigError: the URL is not understood, or its driver is not installed.
        """
        self._engine = open_engine(url, is_writer=is_writer)
        self._lines = Lines(self._engine)
        self.name = shown(url)
        self._limit_s = WRITE_TIMEOUT_S if is_writer else READ_TIMEOUT_S
        self._threads = ThreadPoolExecutor(1 if is_writer else _READERS, thread_name_prefix="history")

    async def prepare(self) -> None:
        """Create the tables where there are none.

        Raises:
            ConfigError: there are tables of another version, or of somebody else.
        """
        await self._do(writing.prepare)

    async def check(self) -> None:
        """See whether the history can be read.

        Raises:
            ConfigError: its tables are of another version.
        """
        await self._do(writing.check)

    async def mark(self, stream: str) -> Mark | None:
        """Tell the last event of a stream that was written; None where none was."""
        return await self._do(lambda connection: writing.read_mark(connection, stream))

    async def write(self, batch: Batch) -> None:
        """Write a batch, whole or not at all. Writing one again changes nothing.

        Raises:
            RefusedError: the database does not take one of its rows.
        """

        def work(connection: Connection) -> None:
            writing.write(connection, batch)
            crash_point("history.before_commit")

        await self._do(work)

    async def newest(self, query: CallQuery, before: Position | None) -> AsyncIterator[tuple[Position, CallRow | None]]:
        """Go through calls after a position, newest start first; None where one was looked at and does not match."""
        if query.state not in {None, "complete"}:
            return  # what is open has not been published
        size = _FIRST_PAGE
        while True:
            found = await self._do(partial(queries.page, query=query, before=before, size=size))
            for row in found:
                yield row.position, row if query.matches(row) else None
            if len(found) < size:
                return
            before, size = found[-1].position, _PAGE

    async def call(self, source: str, call: str) -> CallHistory | None:
        """Read all of one call: its record, the event of each revision, its recordings; None where there is none."""
        return await self._do(lambda connection: queries.call(connection, source, call))

    async def recordings(self, source: str, guid: str) -> list[Recording]:
        """Read what became of the recordings with a GUID; empty where there are none."""
        return await self._do(lambda connection: queries.recordings(connection, source, guid))

    async def audit(self, since: str | None = None, limit: int = 100) -> list[AuditLine]:
        """Read what people did since a time (RFC 3339 UTC), the newest first."""
        return await self._do(lambda connection: queries.audit(connection, since, limit))

    async def _do(self, work: Callable[[Connection], _T]) -> _T:
        """Do some work in one transaction, in a thread."""
        try:
            async with asyncio.timeout(self._limit_s + _MARGIN_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._transaction, work)
        except TimeoutError:
            self._lines.cut()
            raise HistoryUnavailableError(f"The history did not answer within {self._limit_s + _MARGIN_S} s.") from None

    def _transaction(self, work: Callable[[Connection], _T]) -> _T:
        with explained(), self._engine.begin() as connection, limited(connection, self._limit_s):
            return work(connection)

    async def aclose(self) -> None:
        """Close the connections; a transaction that is under way ends first."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        self._engine.dispose()
