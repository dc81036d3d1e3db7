"""Calls with a RequestID or CallID that was used before: their events go on to a new call, such as `513.2`.

Every event arrives at the first use, `513`. While that one has facts, they show the uses, and each later use gets a copy of
all of them (`shared/domain/uses.py`). When its facts have expired, the later uses that are left decide in its place. If there
are none, its tombstone distinguishes a new leg that comes much later from a late callback of an old one (`behind_tombstone.py`).

Each step can be repeated: copies are merged as minima, and an event that is delivered again takes the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.domain.closing import Policy
from shared.domain.facts import Fact, leg_of
from shared.domain.ids import CallKey, first_use, later_use, use_number
from shared.domain.raw_event import RawEvent
from shared.domain.reused_legs import deciding_facts, may_be_reused, with_own_legs
from shared.domain.uses import Use, copies, first_number, may_be_several, use_fact, uses_of, uses_of_events
from shared.errors import StateWaitsError
from shared.state.keys import partition
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from shared.state.stored_call import PublicationState, StoredCall
from worker.folding.batch import NAMED, Batch
from worker.folding.behind_tombstone import BehindTombstone, Pair, later_keys
from worker.folding.merging import Merging

_BY_CALL_ID = "call-"


@dataclass(slots=True)
class Routed:
    """The result of routing.

    Attributes:
        calls: the later uses, merged.
        events: of each call that is concerned, the events that belong to it.
        refused: events for which a later use has no room.
    """

    calls: dict[CallKey, StoredCall] = field(default_factory=dict)
    events: dict[CallKey, list[RawEvent]] = field(default_factory=dict)
    refused: dict[CallKey, list[RawEvent]] = field(default_factory=dict)


class LaterUses:
    """Sends events on to later uses of their RequestID. It keeps no state."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self._store = store
        self._max_call_s = policy.max_call_s

    async def redirect(self, batch: Batch) -> None:
        """Move events of CallIDs that were used before to their later use, before they are merged.

        Such a call is named by its CallID, so its leg cannot be known by a new one. Events that arrive more than the maximum call
        time out of order are assigned as they arrive.
        """
        _add_first_uses(batch)
        await self._assign_legs(batch)
        keys = [key for key in batch.events if key.call.startswith(_BY_CALL_ID) and use_number(key.call) == 1]
        if not keys:
            return
        known = await until_redis_answers(lambda: self._store.read_facts(keys))
        again = [key for key in keys if max(uses_of_events(batch.facts[key], [known[key]], self._max_call_s)) > 1]
        expired = await self._expired([key for key in again if not known[key]])
        for key in again:
            if key not in expired:
                await self._redirect(key, known[key], batch)

    async def _assign_legs(self, batch: Batch) -> None:
        """Name the legs of CallIDs that were used before with the same RequestID."""
        of_pairs = {key: deciding_facts(events) for key, events in batch.facts.items() if not key.call.startswith(_BY_CALL_ID)}
        names = {key: of_key for key, of_key in of_pairs.items() if of_key}
        if not names:
            return
        known = await until_redis_answers(lambda: self._store.read_some_facts(names))
        keys = [key for key in names if may_be_reused(batch.facts[key], known[key], self._max_call_s)]
        facts = await until_redis_answers(lambda: self._store.read_facts(keys)) if keys else {}
        expired = await self._expired([key for key in keys if not facts[key]])
        for key in keys:
            if key not in expired:
                batch.facts[key] = with_own_legs(batch.facts[key], facts[key], self._max_call_s)

    async def _expired(self, keys: Sequence[CallKey]) -> set[CallKey]:
        """Return which of the calls without facts are tombstones. `route` assigns what comes behind these."""
        stored = (await until_redis_answers(Merging(self._store, {key: [] for key in keys}).step)).calls if keys else {}
        return {key for key, call in stored.items() if call.state is PublicationState.TOMBSTONED}

    async def _redirect(self, first: CallKey, known: Mapping[str, str], batch: Batch) -> None:
        count = (await until_redis_answers(lambda: self._store.count_uses([first])))[first]
        later = [CallKey(first.source, later_use(first.call, number)) for number in range(2, count + 1)]
        self._check_ready(first, later)
        of_later = await until_redis_answers(lambda: self._store.read_facts(later))
        numbers = uses_of_events(batch.facts[first], [known, *(of_later[key] for key in later)], self._max_call_s)
        moved = [position for position, number in enumerate(numbers) if number > 1]
        for position, (event, facts) in zip(moved, batch.take(first, moved), strict=True):
            key = CallKey(first.source, later_use(first.call, numbers[position]))
            self._check_ready(first, [key])
            batch.events.setdefault(key, []).append(event)
            batch.facts.setdefault(key, []).append([*facts, use_fact(numbers[position])])
        await self._remember(first, max(numbers))

    async def route(self, batch: Batch, calls: Mapping[CallKey, StoredCall]) -> Routed:
        """Find events of later uses among those that were just merged, and merge these uses."""
        routed = Routed()
        for key, call in calls.items():
            if use_number(key.call) > 1:
                continue
            pairs = [pair for pair in zip(batch.events[key], batch.facts[key], strict=True) if not isinstance(pair[0], NAMED)]
            if call.state is PublicationState.TOMBSTONED:
                await self._route_behind_tombstone(key, call, pairs, routed)
            elif call.facts:
                await self._route(key, key, call, pairs, routed)
        return routed

    async def _route(self, first: CallKey, known: CallKey, call: StoredCall, pairs: Sequence[Pair], routed: Routed) -> None:
        """Copy facts of the call `known` to the uses after it, and share out the events."""
        known_number = use_number(known.call)
        if first_number(call.facts) <= known_number and not may_be_several(call.facts):
            return
        uses = dict(enumerate(uses_of(call.facts, self._max_call_s), first_number(call.facts)))
        later = {
            CallKey(first.source, later_use(first.call, number)): use for number, use in uses.items() if number > known_number
        }
        if not later:
            return
        self._check_ready(first, later)
        if known == first:
            copied = copies(call.facts, uses.values(), None)
        else:
            copied = copies(call.facts, [use for number, use in uses.items() if number >= known_number], known_number)
        share = _share(known, uses, pairs)
        routed.events[known] = share.pop(known, [])
        begins = {key: use.first_at for key, use in later.items()}
        await self._merge(dict.fromkeys(later, copied), begins, share, routed)
        await self._remember(first, max(uses))

    async def _route_behind_tombstone(self, first: CallKey, tombstone: StoredCall, pairs: Sequence[Pair], routed: Routed) -> None:
        if not pairs:
            return
        keys = later_keys(first, tombstone)
        self._check_ready(first, keys)
        read = (await until_redis_answers(Merging(self._store, {key: [] for key in keys}).step)).calls if keys else {}
        later = {key: read[key] for key in keys if key in read}
        uses = BehindTombstone(first, tombstone, later, self._max_call_s)
        assigned = uses.assign(pairs)
        self._check_ready(first, assigned.of_uses)
        routed.events[first] = assigned.expired
        for key, of_use in assigned.of_uses.items():
            events = [event for event, _ in of_use]
            begins = {} if key in uses.live else {key: min(event.received_at for event in events)}
            await self._merge({key: [facts for _, facts in of_use]}, begins, {key: events}, routed)
            await self._remember(first, use_number(key.call))
            if key in routed.calls:
                await self._route(first, key, routed.calls[key], of_use, routed)

    async def _merge(
        self,
        facts: Mapping[CallKey, list[list[Fact]]],
        begins: Mapping[CallKey, str],
        events: Mapping[CallKey, list[RawEvent]],
        routed: Routed,
    ) -> None:
        merged = await until_redis_answers(Merging(self._store, facts, begins).step)
        routed.calls |= merged.calls
        for key in facts:
            routed.events.setdefault(key, []).extend(events.get(key, ()))
        for key in merged.refused:  # at the bounds, it is unknown which of the copied legs has no room
            routed.refused[key] = routed.events.pop(key)
            routed.calls.pop(key, None)

    def _check_ready(self, first: CallKey, keys: Iterable[CallKey]) -> None:
        """Let the events of a call wait if a later use is in a partition that is being rebuilt.

        Raises:
            StateWaitsError: the fold puts the events of `first` aside and begins again.
        """
        for key in keys:
            if not self._store.can_write(partition(key)):
                raise StateWaitsError(first, partition(key))

    async def _remember(self, first: CallKey, number: int) -> None:
        await until_redis_answers(lambda: self._store.remember_uses({first: number}))


def _add_first_uses(batch: Batch) -> None:
    """Let events that name a later use of a RequestID read the first use too, where an earlier release merges all events."""
    for key in [each for each in batch.events if use_number(each.call) > 1 and not each.call.startswith(_BY_CALL_ID)]:
        first = CallKey(key.source, first_use(key.call))
        batch.events.setdefault(first, [])
        batch.facts.setdefault(first, [])


def _share(known: CallKey, uses: Mapping[int, Use], pairs: Iterable[Pair]) -> dict[CallKey, list[RawEvent]]:
    """Return the events of each use. Those of uses before `known` are its own."""
    share: dict[CallKey, list[RawEvent]] = {}
    for event, facts in pairs:
        leg = leg_of(facts)
        number = next((each for each, use in uses.items() if (leg in use.legs if leg else facts[0][1] in use.dials)), 0)
        key = CallKey(known.source, later_use(known.call, number)) if number > use_number(known.call) else known
        share.setdefault(key, []).append(event)
    return share
