"""Replay of the callback journal into Redis, and restoring what was published of each replayed call.

While it runs, nothing else may write to the partitions of the scope. Every step may be repeated, so a replay that was cut short
is begun again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice

from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.crash_points import crash_point
from shared.domain.annotation import BODY
from shared.domain.facts import Fact
from shared.domain.ids import CallKey, use_number
from shared.rebuild.call_search import FoundCalls
from shared.rebuild.decisions import Decision, Decisions, decide
from shared.rebuild.journal_facts import facts_of_message
from shared.rebuild.later_uses import is_first_use_alone, merge_later_uses, redirect
from shared.rebuild.patient_store import RebuildStore
from shared.rebuild.published_calls import by_call
from shared.rebuild.scope import Scope, first_key
from shared.state.stored_call import PublicationState, StoredCall

BATCH_EVENTS = 1000
# So many characters of an event count as one more event, so that long annotations fill neither a merge nor the memory.
_CHARACTERS_OF_EVENT = 4 << 10
# The events of a call mostly come within minutes. Those that are kept so long need one round trip together.
_KEPT_EVENTS = 20_000
_DECIDED_TOGETHER = 100
# A flush waits for Redis and its replicas several times. Under load that takes longer than its work.
_FLUSHES_AT_ONCE = 4
# A flush gets its turn after so many messages.
_READ_TOGETHER = 20

Facts = Mapping[CallKey, list[list[Fact]]]


@dataclass(slots=True)
class Replayed:
    """Counts of a replay so far: events, those that are invalid, calls, and how often each decision was made."""

    events: int = 0
    invalid: int = 0
    calls: set[CallKey] = field(default_factory=set)
    done: Counter[Decision] = field(default_factory=Counter)


class Replay:
    """One replay of the calls that a search has found."""

    def __init__(
        self,
        settings: Settings,
        store: RebuildStore,
        sources: Sources,
        scope: Scope,
        candidates: FoundCalls,
        *,
        on_events: Callable[[int], None] = lambda _: None,
        on_step: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Take what was found.

        `on_events` gets the number of events that were read since its last call. `on_step` is called now and then, and may raise
        an error to end the replay.
        """
        self._policy = settings.policy
        self._store, self._sources, self._scope, self._candidates = store, sources, scope, candidates
        self._on_events, self._on_step = on_events, on_step
        self._kept: dict[CallKey, list[list[Fact]]] = {}
        self._kept_events = 0
        self._flushing: dict[asyncio.Task[None], frozenset[CallKey]] = {}
        self._undecided: set[CallKey] = set()
        self._outside: dict[CallKey, dict[str, str]] = {}
        self.replayed = Replayed()

    async def run(self, is_to_publish: Callable[[], Awaitable[bool]] | None = None) -> Replayed:
        """Replay the events, then decide about each call.

        `is_to_publish` is called when all events are merged. It says whether workers publish complete calls that were never
        published; else they are marked as published. Without it they do.
        """
        decides = is_to_publish is None
        async with self._flushes():
            for number, body in enumerate(chain.from_iterable(self._candidates.messages)):
                await self._read(body, decides=decides)
                if number % _READ_TOGETHER == 0:
                    await asyncio.sleep(0)
            while self._kept:
                await self._begin_flush(decides=decides)
        crash_point("rebuild.replayed")
        publish = is_to_publish is None or await is_to_publish()
        calls = sorted(key for key in self._undecided | self._unseen() if self._has_first_use(key))
        for first in range(0, len(calls), BATCH_EVENTS):
            await self._decide(calls[first : first + BATCH_EVENTS], publish=publish)
        await self._decide_outside(publish=publish)
        crash_point("rebuild.decided")
        return self.replayed

    def _has_first_use(self, key: CallKey) -> bool:
        """Return whether a call is no later use of one outside the scope, which is decided with the facts of its first use."""
        return use_number(key.call) == 1 or self._scope.has(first_key(key))

    def _unseen(self) -> set[CallKey]:
        """Return the candidates without a replayed event: Redis may have them in a state that is older than the journals."""
        return {key for key in self._scope.only(self._candidates.calls) if key not in self.replayed.calls}

    async def _read(self, body: bytes, *, decides: bool) -> None:
        rows, invalid = facts_of_message(body, self._sources, datetime.now(UTC))
        self.replayed.invalid += invalid
        facts: dict[CallKey, list[list[Fact]]] = {}
        events = 0
        for key, of_event in rows:
            if first_key(key) in self._candidates.calls:
                facts.setdefault(key, []).append(of_event)
                events += 1
                self._kept_events += _weight(of_event)
        for key, of_call in facts.items():
            self._kept.setdefault(key, []).extend(of_call)
        self.replayed.events += events
        self._on_events(events)
        while self._kept_events > _KEPT_EVENTS:
            await self._begin_flush(decides=decides)

    @asynccontextmanager
    async def _flushes(self) -> AsyncIterator[None]:
        """Let flushes go on while the next messages are read."""
        try:
            yield
            while self._flushing:
                await self._end_flush()
        finally:
            for flush in self._flushing:
                flush.cancel()
            await asyncio.gather(*self._flushing, return_exceptions=True)

    async def _begin_flush(self, *, decides: bool) -> None:
        """Begin to merge the calls that have been kept for longest, as soon as few other flushes are under way."""
        while len(self._flushing) >= _FLUSHES_AT_ONCE or not (taken := self._take()):
            await self._end_flush()
        self._flushing[asyncio.create_task(self._flush(taken, decides=decides))] = frozenset(map(first_key, taken))

    async def _end_flush(self) -> None:
        done, _ = await asyncio.wait(self._flushing, return_when=asyncio.FIRST_COMPLETED)
        for flush in done:
            del self._flushing[flush]
            flush.result()

    def _take(self) -> dict[CallKey, list[list[Fact]]]:
        """Take calls that no flush has under way. So the events of a call, and the uses of a RequestID, are merged in order."""
        busy = frozenset[CallKey]().union(*self._flushing.values())
        taken: dict[CallKey, list[list[Fact]]] = {}
        events = 0
        for key, of_call in self._kept.items():
            if events >= BATCH_EVENTS:
                break
            if first_key(key) not in busy:
                taken[key] = of_call
                events += sum(map(_weight, of_call))
        for key in taken:
            del self._kept[key]
        self._kept_events -= events
        return taken

    async def _flush(self, taken: Facts, *, decides: bool) -> None:
        self._keep_outside(taken)
        merged = await redirect(self._store, taken, self._policy.max_call_s, self._scope)
        again = self.replayed.calls & merged.keys()
        self.replayed.calls |= merged.keys()
        self._undecided |= again if decides else merged.keys()
        if decides:
            await self._decide_early({key: call for key, call in merged.items() if key not in again})

    def _keep_outside(self, taken: Facts) -> None:
        """Keep the facts of calls outside the scope: Redis may have no more than a tombstone of a first use."""
        for key in taken.keys() if not self._scope.is_whole else ():
            if not self._scope.has(key):
                facts = self._outside.setdefault(key, {})
                for name, value in (fact for event in taken[key] for fact in event if not fact[0].startswith(BODY)):
                    facts[name] = min(value, facts.get(name, value))

    async def _decide_early(self, calls: Mapping[CallKey, StoredCall]) -> None:
        """Decide about calls before all events are merged, where more events cannot make the decision wrong.

        What is restored then has every event that was published. Events that follow set the wake-up at the end.
        """
        published = self._candidates.published.read({first_key(key) for key in calls})
        early = {
            key: call
            for key, call in calls.items()
            if use_number(key.call) == 1 and is_first_use_alone(call.facts, published.get(key, {}))
        }
        self._undecided |= calls.keys() - early.keys()
        for part in _parts(early):
            decisions = decide(self._policy, self._sources, part, by_call(published), publish=True)
            for key, decision in decisions.of.items():
                if decision is Decision.TOMBSTONED:  # more events can complete its facts
                    del decisions.publications[key]
                    decisions.counts[decision] -= 1
                    self._undecided.add(key)
            await self._write(decisions)

    async def _decide(self, keys: Sequence[CallKey], *, publish: bool) -> None:
        """Decide about calls of which all events are merged."""
        calls = (await self._store.merge({key: [] for key in keys})).calls
        published = self._candidates.published.read({first_key(key) for key in calls})
        later = await merge_later_uses(self._store, calls, published, self._policy.max_call_s, self._scope)
        await self._store.restore_publications(later.moved)
        calls = {key: call for key, call in calls.items() if key not in later.moved} | later.calls
        for part in _parts(calls):
            await self._write(decide(self._policy, self._sources, part, by_call(published), publish=publish))

    async def _write(self, decisions: Decisions) -> None:
        if self._on_step is not None:
            await self._on_step()
        self.replayed.done += decisions.counts
        if decisions.publications:
            await self._store.restore_publications(decisions.publications)
        if decisions.wake_ups:
            await self._store.schedule(decisions.wake_ups)

    async def _decide_outside(self, *, publish: bool) -> None:
        """Decide about later uses in the scope of calls outside it. Redis has the facts of these, or a tombstone."""
        keys = [key for key in self._candidates.calls if not self._scope.has(key)]
        for first in range(0, len(keys), BATCH_EVENTS):
            part = keys[first : first + BATCH_EVENTS]
            stored = await self._store.read_many(part)
            expired = [key for key in part if key not in stored and key in self._outside]
            uses = await self._store.count_uses(expired) if expired else {}
            behind = {
                key: StoredCall(self._outside[key], 0, PublicationState.NONE, "", "", None, uses=uses[key]) for key in expired
            }
            published = self._candidates.published.read(part)
            later = await merge_later_uses(self._store, stored | behind, published, self._policy.max_call_s, self._scope)
            await self._write(decide(self._policy, self._sources, later.calls, by_call(published), publish=publish))


def _weight(event: list[Fact]) -> int:
    """Return as how many events an event counts."""
    return 1 + sum(len(value) for _, value in event) // _CHARACTERS_OF_EVENT


def _parts(calls: Mapping[CallKey, StoredCall]) -> Iterator[dict[CallKey, StoredCall]]:
    """Split calls into parts whose decisions do not keep the event loop busy for long."""
    rest = iter(calls.items())
    while part := dict(islice(rest, _DECIDED_TOGETHER)):
        yield part
