"""Calls with a RequestID or CallID that was used before: their events go on to a new call, such as `513.2`.

Every event arrives at the first use, `513`. While that one has facts, they show the uses, and each later use gets a copy of
all of them (`shared/domain/uses.py`). When its facts have expired, the later uses that are left decide in its place. If there
are none, its tombstone distinguishes a new leg that comes much later from a late callback of an old one.

Each step can be repeated: copies are merged as minima, and an event that is delivered again takes the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from shared.domain.closing import Policy
from shared.domain.facts import LEG, Fact, leg_of
from shared.domain.ids import CallKey, first_use, later_use, use_number
from shared.domain.raw_event import RawEvent, TimerEvent
from shared.domain.times import milliseconds
from shared.domain.uses import (
    AFTER_CLOSED_S,
    Use,
    copies,
    first_number,
    guid_facts,
    has_other_guid,
    use_fact,
    uses_of,
    uses_of_events,
    with_own_legs,
)
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from shared.state.stored_call import PublicationState, StoredCall
from worker.folding.batch import Batch
from worker.folding.merging import Merging

# Later uses that are read if the first one is a tombstone. A callback of one before them counts as new.
_LOOKED_BACK = 8

# A rebuild restores tombstones without their legs. A callback this late is none of a leg that has ended.
_UNKNOWN_LEGS_S = 24 * 3600

_BY_CALL_ID = "call-"

Pair = tuple[RawEvent, list[Fact]]


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
        for key in keys:
            if max(uses_of_events(batch.facts[key], [known[key]], self._max_call_s)) > 1:
                await self._redirect(key, known[key], batch)

    async def _assign_legs(self, batch: Batch) -> None:
        """Name the legs of CallIDs that were used before with the same RequestID."""
        guids = {
            key: [name for name, _ in guid_facts(batch.facts[key])] for key in batch.facts if not key.call.startswith(_BY_CALL_ID)
        }
        names = {key: of_key for key, of_key in guids.items() if of_key}
        if not names:
            return
        known = await until_redis_answers(lambda: self._store.read_some_facts(names))
        keys = [key for key in names if has_other_guid(batch.facts[key], known[key])]
        facts = await until_redis_answers(lambda: self._store.read_facts(keys)) if keys else {}
        for key in keys:
            batch.facts[key] = with_own_legs(batch.facts[key], facts[key], self._max_call_s)

    async def _redirect(self, first: CallKey, known: Mapping[str, str], batch: Batch) -> None:
        count = (await until_redis_answers(lambda: self._store.count_uses([first])))[first]
        later = [CallKey(first.source, later_use(first.call, number)) for number in range(2, count + 1)]
        of_later = await until_redis_answers(lambda: self._store.read_facts(later))
        numbers = uses_of_events(batch.facts[first], [known, *(of_later[key] for key in later)], self._max_call_s)
        moved = [position for position, number in enumerate(numbers) if number > 1]
        for position, (event, facts) in zip(moved, batch.take(first, moved), strict=True):
            key = CallKey(first.source, later_use(first.call, numbers[position]))
            batch.events.setdefault(key, []).append(event)
            batch.facts.setdefault(key, []).append([*facts, use_fact(numbers[position])])
        await self._remember(first, max(numbers))

    async def route(self, batch: Batch, calls: Mapping[CallKey, StoredCall]) -> Routed:
        """Find events of later uses among those that were just merged, and merge these uses."""
        routed = Routed()
        for key, call in calls.items():
            if use_number(key.call) > 1:
                continue
            pairs = [
                pair for pair in zip(batch.events[key], batch.facts[key], strict=True) if not isinstance(pair[0], TimerEvent)
            ]
            if call.state is PublicationState.TOMBSTONED:
                await self._route_behind_tombstone(key, call, pairs, routed)
            elif call.facts:
                await self._route(key, key, call, pairs, routed)
        return routed

    async def _route(self, first: CallKey, known: CallKey, call: StoredCall, pairs: Sequence[Pair], routed: Routed) -> None:
        """Copy facts of the call `known` to the uses after it, and share out the events."""
        uses, number = uses_of(call.facts, self._max_call_s), first_number(call.facts)
        own = use_number(known.call)
        if number + len(uses) - 1 <= own:
            return
        kept = [use for each, use in enumerate(uses, number) if each >= own]
        is_first = known == first
        facts = {
            CallKey(first.source, later_use(first.call, each)): copies(
                call.facts, uses if is_first else kept, None if is_first else own
            )
            for each in range(own + 1, number + len(uses))
        }
        begins = {key: uses[use_number(key.call) - number].first_at for key in facts}
        share = _share(known, dict(enumerate(uses, number)), pairs)
        routed.events[known] = share.pop(known, [])
        await self._merge(facts, begins, share, routed)
        await self._remember(first, number + len(uses) - 1)

    async def _route_behind_tombstone(self, first: CallKey, tombstone: StoredCall, pairs: Sequence[Pair], routed: Routed) -> None:
        if not pairs:
            return
        numbers = range(max(2, tombstone.uses - _LOOKED_BACK + 1), tombstone.uses + 1)
        keys = [CallKey(first.source, later_use(first.call, number)) for number in numbers]
        read = (await until_redis_answers(Merging(self._store, {key: [] for key in keys}).step)).calls if keys else {}
        known = {key: call for key, call in read.items() if call.facts or call.state is PublicationState.TOMBSTONED}
        known[first] = replace(tombstone, facts={})  # those of these events, which are not stored
        targets: dict[CallKey, list[Pair]] = {}
        expired: list[RawEvent] = []
        for pair in pairs:
            target = self._target(first, known, pair)
            if target is None:
                expired.append(pair[0])
            else:
                targets.setdefault(target, []).append(pair)
        routed.events[first] = expired
        for key, of_call in targets.items():
            number, is_new = use_number(key.call), key not in known
            events, facts = [event for event, _ in of_call], [facts for _, facts in of_call]
            if is_new:
                facts = [[*each, use_fact(number)] for each in facts]
            elif has_other_guid(facts, known[key].facts):
                facts = with_own_legs(facts, known[key].facts, self._max_call_s)
            begins = {key: min(event.received_at for event in events)} if is_new else {}
            await self._merge({key: facts}, begins, {key: events}, routed)
            await self._remember(first, number)
            if key in routed.calls:
                await self._route(first, key, routed.calls[key], list(zip(events, facts, strict=True)), routed)

    def _target(self, first: CallKey, known: Mapping[CallKey, StoredCall], pair: Pair) -> CallKey | None:
        """Return the use that an event belongs to when the first one has expired; None if that has expired as well."""
        event, facts = pair
        leg = leg_of(facts)
        for key, call in known.items():
            if leg and leg in self._legs(key, call):
                if call.facts:
                    if has_other_guid([facts], call.facts):
                        continue
                    return key
                is_other = first.call.startswith(_BY_CALL_ID) or _has_other_guid(facts, call)
                if not is_other or not _is_later(event, call, _UNKNOWN_LEGS_S):
                    return None
        last = max(known, key=lambda key: use_number(key.call))
        if known[last].facts:
            return last
        gap_s = AFTER_CLOSED_S if all(call.facts or call.summary for call in known.values()) else _UNKNOWN_LEGS_S
        if not _is_later(event, known[last], gap_s):
            return None
        return CallKey(first.source, later_use(first.call, known[first].uses + 1))

    def _legs(self, key: CallKey, call: StoredCall) -> set[str]:
        """Return the prefixes of the legs that a call has, without those before it, and with those after it."""
        if not call.facts:
            legs = orjson.loads(call.summary)["legs"] if call.summary else {}
            return {f"{LEG}{leg.replace('/', ':')}:" for leg in legs}
        uses = uses_of(call.facts, self._max_call_s)
        own = max(0, use_number(key.call) - first_number(call.facts))
        return {leg for use in uses[own:] for leg in use.legs}

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

    async def _remember(self, first: CallKey, number: int) -> None:
        await until_redis_answers(lambda: self._store.remember_uses({first: number}))


def _is_later(event: RawEvent, tombstone: StoredCall, gap_s: float) -> bool:
    over_ms = tombstone.merged_at_ms
    return over_ms is not None and milliseconds(event.received_at) - over_ms > gap_s * 1000


def _add_first_uses(batch: Batch) -> None:
    """Let the timer of a later use of a RequestID read the first use too: an earlier release merges all events there alone."""
    for key in [each for each in batch.events if use_number(each.call) > 1 and not each.call.startswith(_BY_CALL_ID)]:
        first = CallKey(key.source, first_use(key.call))
        batch.events.setdefault(first, [])
        batch.facts.setdefault(first, [])


def _has_other_guid(facts: Sequence[Fact], tombstone: StoredCall) -> bool:
    """Return whether an event has a GUID that no leg of an expired call had, although they had GUIDs."""
    known = orjson.loads(tombstone.summary).get("guids", {}) if tombstone.summary else {}
    return bool(known) and any(guid not in known for _, guid in guid_facts([facts]))


def _share(known: CallKey, uses: Mapping[int, Use], pairs: Iterable[Pair]) -> dict[CallKey, list[RawEvent]]:
    """Return the events of each use. Those of uses before `known` are its own."""
    share: dict[CallKey, list[RawEvent]] = {}
    for event, facts in pairs:
        leg = leg_of(facts)
        number = next((each for each, use in uses.items() if (leg in use.legs if leg else facts[0][1] in use.dials)), 0)
        key = CallKey(known.source, later_use(known.call, number)) if number > use_number(known.call) else known
        share.setdefault(key, []).append(event)
    return share
