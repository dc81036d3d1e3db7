"""Finding calls: pages of calls merged from Redis and the history, and everything about one call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from console.call_query import CallQuery, CallRow
from console.history.location import DEFAULT_URL
from console.ignored_values import UnreplacedProblem, find_unreplaced
from console.lookup.merge import HistoryOnlyCalls, Page, find_calls
from console.lookup.redis_calls import RedisCalls
from console.previous_secrets import find_previous_secrets
from console.request_ids import RequestIdProblem, find_request_id_problems
from console.vcon.published_call import PublishedCall
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.call import derive
from shared.domain.ids import CallKey, CallRef, SourceName, first_use, later_use, use_number
from shared.errors import HistoryUnavailableError, StoreUnavailableError
from shared.log import get_logger
from shared.runtime.store import open_store
from shared.state.keys import partition
from shared.state.store import Store

if TYPE_CHECKING:
    from console.history.queries import CallHistory
    from console.history.store import History
    from console.lookup.detail import Detail
    from console.lookup.timeline_reader import Timelines
    from shared.archive.storage import Archive

log = get_logger(__name__)

_OLDER_MISSING = "The history is unavailable, so older calls are missing. Try again later."
_REBUILDING = "Redis has lost state. Until a worker has rebuilt it, calls can be missing or incomplete."
_MAX_CONTINUATIONS = 20
_SEARCH_FOR_S = 5


class Lookup:
    """Finds calls in Redis, which has open and recently completed calls, and in the history if there is one."""

    def __init__(
        self, settings: Settings, sources: LiveSources, store: Store, archive: Archive | None, history: History | None
    ) -> None:
        """Without an `archive`, the one of the settings is opened when the detail of a call is needed."""
        self._settings = settings
        self._policy = settings.policy
        self._timelines: Timelines | None = None
        self._sources = sources
        self._store = store
        self._archive = archive
        self._history = history
        self.has_history = history is not None
        self.redis = RedisCalls(store, settings.policy, sources)

    @property
    def sources(self) -> Sources:
        """Return the sources in force."""
        return self._sources.current

    async def is_rebuilding(self, key: CallKey) -> bool:
        """Return whether Redis has lost state of the call's partition, so that what it has of the call may be incomplete."""
        return partition(key) in await self._store.partitions.waiting()

    async def find(self, query: CallQuery) -> Page:
        """Find a page of calls. Without the history it has those in Redis. It has a `problem` if calls can be missing.

        Raises:
            UnavailableError: Redis does not answer.
        """
        # Asked before the search: a rebuild that ends during the search may have restored calls too late for it.
        rebuild = _REBUILDING if await self._store.partitions.waiting() else None
        page = await self._find(query)
        return replace(page, problem=" ".join(filter(None, (page.problem, rebuild))) or None)

    async def _find(self, query: CallQuery) -> Page:
        if self._history is None:
            return await find_calls(query, [self.redis])
        try:
            return await find_calls(query, [self.redis, HistoryOnlyCalls(self._history, self._store)])
        except HistoryUnavailableError as error:
            log.warning("history_query_failed", detail=str(error))
            return replace(await find_calls(query, [self.redis]), problem=_OLDER_MISSING)

    async def find_at_least(self, query: CallQuery, count: int) -> Page:
        """Find calls until there are `count`, no more calls, or the search takes too long. One `find` scans a limited number.

        Raises:
            UnavailableError: Redis does not answer.
        """
        until = time.monotonic() + _SEARCH_FOR_S
        page = await self.find(query)
        rows, problem = [*page.rows], page.problem
        for _ in range(_MAX_CONTINUATIONS):
            if len(rows) >= count or page.next is None or time.monotonic() > until:
                break
            rest = {"cursor": query.cursor_at(page.next), "limit": query.limit - len(rows)}
            page = await self.find(query.model_copy(update=rest))
            rows += page.rows
            problem = problem or page.problem
        return Page(rows, page.next, problem)

    async def knows(self, source: str) -> bool:
        """Return whether a source is configured or has calls. True if calls can be missing, which might be of this source.

        Raises:
            UnavailableError: Redis does not answer.
        """
        if SourceName(source) in self.sources:
            return True
        page = await self.find(CallQuery(source=source, limit=1))
        return bool(page.rows or page.next or page.problem)

    async def find_by_ref(self, call: CallRef) -> Sequence[CallRow]:
        """List the calls with this reference: of each source one, or all uses of a RequestID that was used again.

        Raises:
            UnavailableError: Redis does not answer.
        """
        keys = [CallKey(source, call) for source in self.sources]
        keys += [other for key in keys for other in await self._other_uses(key) if use_number(call) == 1]
        states = await self._store.read_many(keys)
        rows = [self.redis.row(key, state) for key, state in states.items()]
        pasts = [await self._past(key) for key in keys if key not in states]
        rows += [past.row for past in pasts if past]
        return sorted(rows, key=lambda row: row.position, reverse=True)

    async def _other_uses(self, key: CallKey) -> list[CallKey]:
        """List the other calls of the same RequestID (or CallID) that are known, if it was used again."""
        first = CallKey(key.source, first_use(key.call))
        count = (await self._store.count_uses([first]))[first]
        calls = (CallKey(key.source, later_use(key.call, number)) for number in range(1, count + 1))
        return [call for call in calls if call != key]

    async def detail(self, key: CallKey) -> Detail | None:
        """Gather everything known about a call; None if it is unknown.

        Raises:
            UnavailableError: Redis, the journal or the archive does not answer, or the history for a call that Redis lacks.
        """
        # A list of calls needs neither archive nor journal, and must start quickly.
        from console.lookup.detail import deliveries_of, detail_of, past_detail, revisions_of  # noqa: PLC0415
        from console.lookup.timeline_reader import Timelines  # noqa: PLC0415

        self._timelines = self._timelines or Timelines(self._settings)
        archive = await self._opened_archive()
        source = self.sources.get(key.source)
        state = await self._store.read(key)
        past = await self._past(key, is_needed=state is None)
        if state is not None and source is not None:
            call = derive(key, state.facts, self._policy)
            digests = [annotation.digest for annotation in call.annotations]
            bodies = (await self._store.read_bodies({key: digests}))[key] if digests else {}
            detail = await detail_of(self._timelines, archive, source, call, state, bodies)
            others = tuple(map(str, await self._other_uses(key)))
            detail = replace(detail, other_uses=others)
            return detail if past is None else replace(detail, revisions=revisions_of(past), deliveries=deliveries_of(past))
        return None if past is None else past_detail(key, past)

    async def is_past(self, key: CallKey) -> bool:
        """Return whether the history has a call; False also while it is unavailable."""
        return await self._past(key) is not None

    async def published(self, key: CallKey, revision: int | None = None) -> PublishedCall:
        """Return a published revision of a call, the latest one unless it is given.

        Raises:
            NotPublishedError: there is no such revision, or its event is not kept any more.
            UnavailableError: Redis or the archive does not answer, or what keeps the events: the history, RabbitMQ.
        """
        from console.lookup.published import Published  # noqa: PLC0415 - as in `detail`

        archive = await self._opened_archive()
        source = self.sources.get(key.source)
        state = await self._store.read(key)
        past = await self._past(key, is_needed=state is None)
        call = None if state is None or source is None else derive(key, state.facts, self._policy)
        published = Published(self._settings, key, past, state, call)
        event, previous = await published.find(revision)
        recordings = await published.recordings(archive, source)
        return PublishedCall.of(key, event, previous, recordings)

    async def _opened_archive(self) -> Archive:
        from shared.archive.storage import Archive  # noqa: PLC0415 - as in `detail`

        if self._archive is None:
            self._archive = await asyncio.to_thread(Archive, self._settings.archive_url)
        return self._archive

    async def request_id_problem(self, key: CallKey) -> RequestIdProblem | None:
        """Return what to correct if this call has too many legs. None also while Redis is unavailable, which `detail` reports."""
        source = self.sources.get(key.source)
        if source is None:
            return None
        try:
            problems = await find_request_id_problems(self._store, {key.source: source})
        except StoreUnavailableError:
            return None
        return next((problem for problem in problems if problem.call == key), None)

    async def unreplaced(self, sources: Sources) -> list[UnreplacedProblem]:
        """Find the placeholders that arrived unreplaced. None also while Redis is unavailable."""
        try:
            return await find_unreplaced(self._store, sources)
        except StoreUnavailableError:
            return []

    async def previous_secrets(self, sources: Sources) -> list[str]:
        """Describe the sources that use a previous secret. None also while Redis is unavailable."""
        return await find_previous_secrets(self._store, sources)

    async def _past(self, key: CallKey, *, is_needed: bool = False) -> CallHistory | None:
        """Read a call from the history; None if it is not there, or the history is unavailable and not `is_needed`."""
        if self._history is None:
            return None
        try:
            return await self._history.call(key.source, key.call)
        except HistoryUnavailableError as error:
            if is_needed:
                raise
            log.warning("history_query_failed", detail=str(error))
            return None


@asynccontextmanager
async def open_lookup(settings: Settings) -> AsyncIterator[Lookup]:
    """Open a lookup for a command, with the configured history or else the local file of `callfold history`."""
    url = settings.history_url.get_secret_value() if settings.history_url else DEFAULT_URL
    async with AsyncExitStack() as closing:
        store = await closing.enter_async_context(open_store(settings))
        history = None
        has_file = await asyncio.to_thread(Path(url.removeprefix("sqlite:///")).exists)
        if settings.history_url or has_file:
            from console.history.store import History  # noqa: PLC0415 - most commands start without SQL

            history = await closing.enter_async_context(aclosing(History(url)))
        yield Lookup(settings, LiveSources.load(settings.sources_file), store, None, history)
