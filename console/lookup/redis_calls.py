"""Calls in Redis: the open ones, and complete ones for CALLFOLD_RETAIN_SECONDS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from console.call_query import CallQuery, CallRow, Position, row_of
from shared.config.live_sources import LiveSources
from shared.domain.call import derive
from shared.domain.call_event import call_record
from shared.domain.closing import Policy
from shared.domain.ids import CallKey
from shared.domain.times import at_microseconds, microseconds
from shared.state.keys import parse_call_key
from shared.state.store import Store
from shared.state.stored_call import StoredCall

_PAGE = 200
# About a millisecond of work.
_ROWS_A_STEP = 4
_LARGE_CHARACTERS = 4 << 10


def _is_large(state: StoredCall) -> bool:
    return sum(map(len, state.facts.values())) > _LARGE_CHARACTERS


class RedisCalls:
    """The calls in Redis (implements `console.call_query.Calls`)."""

    def __init__(self, store: Store, policy: Policy, sources: LiveSources) -> None:
        self._store = store
        self._policy = policy
        self._sources = sources
        self._turn = asyncio.Lock()

    async def _breathe(self) -> None:
        """Let dials and streams have their turn. Of several look-ups, one goes on after each turn."""
        async with self._turn:
            await asyncio.sleep(0)

    async def newest(self, query: CallQuery, before: Position | None) -> AsyncIterator[tuple[Position, CallRow | None]]:
        """Iterate over the calls, newest start first; see `Calls`."""
        until = min(filter(None, (query.until, before.started_at if before else None)), default=None)
        is_open = query.state not in {None, "complete"}
        before_us = microseconds(until) if until else None
        async for page in self._open_pages() if is_open else self._pages(before_us):
            states = await self._store.read_many([key for key, position in page if before is None or position < before])
            for number, (key, position) in enumerate(page):
                if number % _ROWS_A_STEP == 0 or (key in states and _is_large(states[key])):
                    await self._breathe()
                if key in states:
                    if query.since and position.started_at < query.since:
                        return
                    row = self.row(key, states[key])
                    yield position, row if query.matches(row) else None

    async def _open_pages(self) -> AsyncIterator[list[tuple[CallKey, Position]]]:
        """List the open calls in pages. Paging through all calls could pass very many complete ones before an old open one."""
        starts = await self._store.open_starts()
        for first in range(0, len(starts), _PAGE):
            page = starts[first : first + _PAGE]
            yield [(parse_call_key(name), Position(at_microseconds(at_us), name)) for at_us, name in page]

    async def _pages(self, before_us: int | None) -> AsyncIterator[list[tuple[CallKey, Position]]]:
        """List calls in pages. Calls with the same start microsecond are always on the same page."""
        size = _PAGE
        while True:
            starts, is_last = await self._store.newest(before_us, size)
            if not is_last:
                earliest_us = starts[-1][1]
                later = [start for start in starts if start[1] > earliest_us]
                if not later:  # more than a page in one microsecond
                    size *= 2
                    continue
                starts, before_us, size = later, earliest_us, _PAGE
            yield [(key, Position(at_microseconds(at_us), str(key))) for key, at_us in starts]
            if is_last:
                return

    def row(self, key: CallKey, state: StoredCall) -> CallRow:
        """Summarize a call."""
        call = derive(key, state.facts, self._policy)
        source = self._sources.known.get(key.source)
        record = call_record(call, state.revision, source.country if source else None)
        return row_of(record, key.call, call.status)
