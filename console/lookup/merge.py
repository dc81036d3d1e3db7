"""One page of calls from several stores, without duplicates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from console.call_query import CallQuery, CallRow, Calls, Position
from shared.state.keys import parse_call_key
from shared.state.store import Store

# Calls scanned for one page. A search that matches few of many calls takes several requests.
_MAX_SCANNED = 5000
# Calls scanned after a full page to find out whether another one matches. If none of them does, the next page may be empty.
_MAX_AHEAD = 200
_BATCH = 50

_Row = tuple[Position, CallRow | None]


@dataclass(frozen=True, slots=True)
class Page:
    """Matching calls, newest start first.

    Attributes:
        next: where the next page begins, also after an empty page; None on the last one.
        problem: why calls may be missing.
    """

    rows: Sequence[CallRow]
    next: Position | None
    problem: str | None = None


class HistoryOnlyCalls:
    """The calls that only the history has. Calls in Redis are left out: late callbacks may have changed their start there."""

    def __init__(self, history: Calls, store: Store) -> None:
        self._history = history
        self._store = store

    async def newest(self, query: CallQuery, before: Position | None) -> AsyncIterator[_Row]:
        """Iterate over the calls, newest start first; see `Calls`."""
        rows: list[_Row] = []
        async for row in self._history.newest(query, before):
            rows.append(row)
            if len(rows) == _BATCH:
                for kept in await self._without_redis(rows):
                    yield kept
                rows = []
        for kept in await self._without_redis(rows):
            yield kept

    async def _without_redis(self, rows: Sequence[_Row]) -> Sequence[_Row]:
        in_redis = await self._store.listed([parse_call_key(position.call) for position, row in rows if row is not None])
        return [(position, None if parse_call_key(position.call) in in_redis else row) for position, row in rows]


async def find_calls(query: CallQuery, stores: Sequence[Calls]) -> Page:
    """Find a page of calls in several stores. If a call is in more than one, the first store's row counts."""
    rows: list[CallRow] = []
    scanned = ahead = 0
    previous: Position | None = None
    streams = [store.newest(query, query.before) for store in stores]
    async for position, row in _merged(streams):
        scanned += 1
        is_full = len(rows) == query.limit
        ahead += is_full
        if position != previous and row is not None:
            if is_full:
                return Page(rows, previous)
            rows.append(row)
        previous = position
        if ahead == _MAX_AHEAD or scanned == _MAX_SCANNED:
            return Page(rows, position)
    return Page(rows, None)


async def _merged(streams: Sequence[AsyncIterator[_Row]]) -> AsyncIterator[_Row]:
    """Merge descending streams. Of equal positions, the first stream's comes first."""
    heads: list[_Row | None] = [await anext(stream, None) for stream in streams]
    while True:
        waiting = [(head[0], -index) for index, head in enumerate(heads) if head is not None]
        if not waiting:
            return
        index = -max(waiting)[1]
        head = heads[index]
        if head is not None:
            yield head
        heads[index] = await anext(streams[index], None)
