"""Looking calls up: a page of calls out of Redis and the history together, and everything about one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from console.call_query import CallQuery, CallRow, Calls, Position
from console.history.engine import DEFAULT_URL
from console.history.queries import CallHistory
from console.history.store import History
from console.lookup.detail import Detail, detail_of, past_detail, revisions_of
from console.lookup.redis_calls import RecentCalls
from shared.archive.archive import Archive
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import HistoryUnavailableError
from shared.log import get_logger
from shared.runtime.store import open_store
from shared.state.keys import parse_call_key
from shared.state.store import Store

log = get_logger(__name__)

# So many calls are looked at for one answer at most: a filter that matches little is asked for in several requests.
_LOOKED_AT = 5000
_ASKED_AT_ONCE = 50

_Row = tuple[Position, CallRow | None]


@dataclass(frozen=True, slots=True)
class Page:
    """Calls that match, newest start first; `next` is where to go on, also after an empty page. None: there is no more.

    `problem` says what could not be asked, where the page is not all there is.
    """

    rows: Sequence[CallRow]
    next: Position | None
    problem: str | None = None


class Lookup:
    """Answers out of Redis, which has what is open and what was completed lately, and out of the history, where there is one."""

    def __init__(self, settings: Settings, sources: Sources, store: Store, archive: Archive, history: History | None) -> None:
        self._settings = settings
        self.sources = sources
        self._store = store
        self._archive = archive
        self._history = history
        self.has_history = history is not None
        self.recent = RecentCalls(store, settings.policy)

    async def find(self, query: CallQuery) -> Page:
        """Look a page of calls up; without the history, where that is away.

        Raises:
            UnavailableError: Redis cannot answer.
        """
        if self._history is None:
            return await find_calls(query, [self.recent])
        try:
            return await find_calls(query, [self.recent, Beyond(self._history, self._store)])
        except HistoryUnavailableError as error:
            log.warning("history_not_asked", detail=str(error))
            return replace(await find_calls(query, [self.recent]), problem="The history is away: older calls are not listed.")

    async def knows(self, source: str) -> bool:
        """Tell whether a source is configured, or a call of it is kept: in Redis or, as far as can be told now, the history.

        Raises:
            UnavailableError: Redis cannot answer.
        """
        if SourceName(source) in self.sources:
            return True
        page = await self.find(CallQuery(source=source, limit=1))
        return bool(page.rows or page.next or page.problem)

    async def named(self, call: CallRef) -> Sequence[CallRow]:
        """List the calls of that name, one for each source that has it.

        Raises:
            UnavailableError: Redis cannot answer.
        """
        keys = [CallKey(source, call) for source in self.sources]
        kept = await self._store.read_many(keys)
        rows = [self.recent.row(key, state) for key, state in kept.items()]
        pasts = [await self._past(key) for key in keys if key not in kept]
        rows += [past.row for past in pasts if past]
        return sorted(rows, key=lambda row: row.position, reverse=True)

    async def detail(self, key: CallKey) -> Detail | None:
        """Gather everything that is known of a call; None where nothing is.

        Raises:
            UnavailableError: Redis, the journal or the archive cannot answer, or the history, where only it could.
        """
        source = self.sources.get(key.source)
        state = await self._store.read(key)
        past = await self._past(key, is_needed=state is None)
        if state is not None and source is not None:
            found = await detail_of(self._settings, self._archive, source, key, state)
            return found if past is None else replace(found, revisions=revisions_of(past))
        return None if past is None else past_detail(key, past)

    async def _past(self, key: CallKey, *, is_needed: bool = False) -> CallHistory | None:
        """Ask the history for a call; None where it has none, or is away and the answer is not `is_needed`."""
        if self._history is None:
            return None
        try:
            return await self._history.call(key.source, key.call)
        except HistoryUnavailableError as error:
            if is_needed:
                raise
            log.warning("history_not_asked", detail=str(error))
            return None


@asynccontextmanager
async def looking_up(settings: Settings) -> AsyncIterator[Lookup]:
    """Have calls looked up for a command: with the history that the settings name, or the one `callfold history` writes here."""
    url = settings.history_url.get_secret_value() if settings.history_url else DEFAULT_URL
    async with AsyncExitStack() as closing:
        store = await closing.enter_async_context(open_store(settings))
        history = None
        is_there = await asyncio.to_thread(Path(url.removeprefix("sqlite:///")).exists)
        if settings.history_url or is_there:
            history = await closing.enter_async_context(aclosing(History(url)))
        archive = await asyncio.to_thread(Archive, settings.archive_url)
        yield Lookup(settings, settings.load_sources(), store, archive, history)


class Beyond:
    """What only the history has. A call that Redis lists is Redis' to tell of: late callbacks can have moved its start since."""

    def __init__(self, history: Calls, store: Store) -> None:
        self._history = history
        self._store = store

    async def newest(self, query: CallQuery, before: Position | None) -> AsyncIterator[_Row]:
        """Go through the calls, the newest start first; see `Calls`."""
        rows: list[_Row] = []
        async for row in self._history.newest(query, before):
            rows.append(row)
            if len(rows) == _ASKED_AT_ONCE:
                for known in await self._without_listed(rows):
                    yield known
                rows = []
        for known in await self._without_listed(rows):
            yield known

    async def _without_listed(self, rows: Sequence[_Row]) -> Sequence[_Row]:
        listed = await self._store.listed([parse_call_key(position.call) for position, row in rows if row is not None])
        return [(position, None if parse_call_key(position.call) in listed else row) for position, row in rows]


async def find_calls(query: CallQuery, places: Sequence[Calls]) -> Page:
    """Look a page of calls up in several places; of a call that is in more than one, the first place's row counts."""
    rows: list[CallRow] = []
    looked_at = 0
    seen: Position | None = None
    streams = [place.newest(query, query.before) for place in places]
    async for position, row in _merged(streams):
        looked_at += 1
        if position != seen and row is not None:
            rows.append(row)
        seen = position
        if len(rows) == query.limit or looked_at == _LOOKED_AT:
            return Page(rows, position)
    return Page(rows, None)


async def _merged(streams: Sequence[AsyncIterator[_Row]]) -> AsyncIterator[_Row]:
    """Merge streams that each go down; of equal positions that of the first stream comes first."""
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
