"""Which calls a rebuild replays, and where in `callbacks.journal` their events begin.

Every call with an event since some time is a candidate. So is each call that Redis still has as open, or in an older state than
it was published in. The journal is then read backwards in steps, until a whole step has no event of a candidate. An earlier event
of a call that was never published makes it a candidate too: timers may have been late.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.amqp.topology import CALLBACKS_JOURNAL
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.ids import CallKey, later_use, use_number
from shared.domain.raw_event import AnnotationEvent, RawEvent, TimerEvent, Undecodable, decode
from shared.domain.sender_clock import latest_time
from shared.rebuild.event_calls import EventCalls
from shared.rebuild.kept_bytes import KeptBytes, KeptMessages
from shared.rebuild.patient_store import RebuildStore
from shared.rebuild.published_calls import Revisions, read_revisions
from shared.rebuild.published_index import PublishedIndex
from shared.rebuild.scope import Scope, first_key
from shared.state.stored_call import PublicationState, RestoredPublication, WakeUp
from shared.streams.journal import Offset, journal_until_now

_BATCH_CALLS = 1000
_STEP_MESSAGES = 2000
# Machines' clocks differ, and the start of a replay is found by the clock of RabbitMQ.
CLOCK_MARGIN = timedelta(minutes=1)
_SHORTEST_STEP = timedelta(hours=1)


@dataclass(slots=True)
class FoundCalls:
    """The calls to replay, each named by its first use, and everything that the journals have of them.

    Attributes:
        messages: the messages of their events, the oldest part first.
        earliest_offset: in the journal, of what was read; None if nothing was.
        is_cut: the journal no longer reaches back far enough.
    """

    calls: set[CallKey]
    published: PublishedIndex
    messages: list[KeptMessages] = field(default_factory=list)
    earliest_offset: int | None = None
    is_cut: bool = False


class CallSearch:
    """Reads the journals for one rebuild. What it keeps is deleted when `resources` is closed."""

    def __init__(
        self,
        settings: Settings,
        store: RebuildStore,
        sources: Sources,
        scope: Scope,
        resources: ExitStack,
        *,
        directory: Path | None = None,
        on_messages: Callable[[int], None] = lambda _: None,
        on_step: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare.

        `on_messages` gets the number of messages that were read since its last call. `on_step` is called now and then, and may
        raise an error to end the search.
        """
        self._settings, self._store, self._scope = settings, store, scope
        self._resources, self._directory = resources, directory
        self._on_messages, self._on_step = on_messages, on_step
        self._unreported = 0
        self._calls_of = EventCalls(sources)
        self._published: set[CallKey] = set()
        self._candidates = FoundCalls(set(), PublishedIndex(resources.enter_context(KeptBytes(directory))))

    async def find(self, start: datetime, *, is_extended: bool) -> FoundCalls:
        """Find the calls with an event since `start`. Without `is_extended`, only events of these calls are read before it."""
        candidates = self._candidates
        outside = await self._read_window(start)
        candidates.calls |= await self._first_uses_of_lost(outside)
        candidates.calls |= await self._open_in_redis()
        while stale := await self._read_published():
            candidates.calls |= stale
        earliest = candidates.published.earliest
        begins = min(start, datetime.fromisoformat(earliest) - CLOCK_MARGIN) if earliest else start
        if is_extended or begins < start:
            await self._read_backwards(start, begins, is_extended=is_extended)
        return candidates

    async def _read_window(self, start: datetime) -> set[CallKey]:
        """Read the events since a time; returns the calls outside the scope, of which a later use may be inside."""
        part = self._keep(at_end=True)
        outside: set[CallKey] = set()
        async for body in self._bodies(start, None):
            for event in decode(body):
                key = self._calls_of.of(event)
                if key is not None and self._scope.has_source(key):
                    first = first_key(key)
                    (self._candidates.calls if self._scope.has(key) or self._scope.has(first) else outside).add(first)
            part.add(body)
        return outside

    async def _first_uses_of_lost(self, outside: Iterable[CallKey]) -> set[CallKey]:
        """Return the calls outside the scope of which a later use is inside."""
        keys, first_uses = list(outside), set[CallKey]()
        for at in range(0, len(keys), _BATCH_CALLS):
            counts = await self._store.count_uses(keys[at : at + _BATCH_CALLS])
            for key, uses in counts.items():
                if any(self._scope.has(CallKey(key.source, later_use(key.call, number))) for number in range(2, uses + 1)):
                    first_uses.add(key)
        return first_uses

    async def _open_in_redis(self) -> set[CallKey]:
        return {first_key(key) for key in await self._store.open_calls() if self._scope.has(key)}

    async def _read_published(self) -> set[CallKey]:
        """Read what was published. Publications of calls that are not replayed are restored.

        Returns the calls of which Redis has facts and an earlier publication. They must be replayed too.
        """
        candidates, stale, uses = self._candidates, set[CallKey](), dict[CallKey, int]()
        candidates.published = PublishedIndex(self._resources.enter_context(KeptBytes(self._directory)))

        async def restore(revisions: Revisions) -> None:
            await self._report()
            for key in revisions:
                uses[first_key(key)] = max(uses.get(first_key(key), 1), use_number(key.call))
            stored = await self._store.publications(self._scope.only(revisions))
            older = {
                key
                for key, (revision, state, has_facts) in stored.items()
                if has_facts and (revision < revisions[key].revision or state is not PublicationState.PUBLISHED)
            }
            stale.update(first_key(key) for key in older)
            # These calls are not replayed. A late callback for one of them is recognized by its publication.
            rows = {
                key: RestoredPublication(last.revision, "", WakeUp(None, ""), last_event_ms=last.last_event_ms)
                for key, last in revisions.items()
                if key in stored and key not in older
            }
            self._published |= rows.keys() | {first_key(key) for key in rows}
            await self._store.restore_publications(rows)

        def is_candidate(key: CallKey) -> bool:
            return first_key(key) in candidates.calls

        def is_other(key: CallKey) -> bool:
            return self._scope.has(key) or self._scope.has(first_key(key))

        await read_revisions(self._settings, is_candidate, candidates.published.add, is_other, restore)
        await self._remember_uses({key: number for key, number in uses.items() if number > 1 and self._scope.has(key)})
        return stale

    async def _remember_uses(self, uses: dict[CallKey, int]) -> None:
        """Restore how many uses RequestIDs had, at their first uses. One that the journal no longer has was published too."""
        stored = await self._store.publications(uses)
        gone = [key for key, (revision, _, has_facts) in stored.items() if not revision and not has_facts]
        await self._store.restore_publications({key: RestoredPublication(1, "", WakeUp(None, "")) for key in gone})
        await self._store.remember_uses(uses)

    async def _read_backwards(self, start: datetime, begins: datetime, *, is_extended: bool) -> None:
        candidates = self._candidates
        step = max(timedelta(seconds=self._settings.max_call_seconds), _SHORTEST_STEP)
        until, has_hit = start, True
        while has_hit or until > begins:
            before = candidates.earliest_offset
            latest = None if before == 0 else await self._time_before(before)
            if latest is None:
                candidates.is_cut = bool(before) and has_hit
                return
            until = min(min(until, latest) - step, begins) if is_extended else begins
            has_hit = await self._read_step(until, before, is_extended=is_extended) and is_extended

    async def _time_before(self, offset: int | None) -> datetime | None:
        """Return when the last message before an offset, or the last one of all, was received; None if there is none."""
        since: Offset = "last" if offset is None else offset - 1
        at = None
        async for body in self._bodies(since, offset, is_read=False):
            latest = latest_time(decode(body), "")
            at = datetime.fromisoformat(latest) if latest else datetime.now(UTC)
        return at

    async def _read_step(self, begin: datetime, before: int | None, *, is_extended: bool) -> bool:
        """Read a part of the journal before an offset; returns whether it has an event of a candidate."""
        part, calls, has_hit = self._keep(at_end=False), self._candidates.calls, False
        async for body in self._bodies(begin, before):
            hits = 0
            for event in decode(body):
                key = self._calls_of.of(event)
                first = None if key is None else first_key(key)
                if first is None:
                    continue
                if first not in calls and is_extended and self._is_left_open(event, first):
                    calls.add(first)
                hits += first in calls
            if hits:
                has_hit = True
                part.add(body)
        return has_hit

    def _is_left_open(self, event: RawEvent | Undecodable, first: CallKey) -> bool:
        if (
            first in self._published
            or not self._scope.has(first)
            or isinstance(event, TimerEvent | AnnotationEvent | Undecodable)
        ):
            return False
        return self._calls_of.certain(event) is not None

    async def _bodies(self, since: Offset, before: int | None, *, is_read: bool = True) -> AsyncIterator[bytes]:
        first = True
        async with journal_until_now(self._settings, since, stream=CALLBACKS_JOURNAL, before=before) as deliveries:
            async for delivery in deliveries:
                if is_read and first:
                    self._candidates.earliest_offset = delivery.offset
                first = False
                yield delivery.body
                self._unreported += 1
                if self._unreported >= _STEP_MESSAGES:
                    await self._report()
        await self._report()

    async def _report(self) -> None:
        self._on_messages(self._unreported)
        self._unreported = 0
        if self._on_step is not None:
            await self._on_step()

    def _keep(self, *, at_end: bool) -> KeptMessages:
        part = self._resources.enter_context(KeptMessages(self._directory))
        self._candidates.messages.insert(len(self._candidates.messages) if at_end else 0, part)
        return part
