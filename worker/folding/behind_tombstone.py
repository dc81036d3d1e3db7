"""Which use of a RequestID or CallID an event belongs to if the first use has expired from Redis. It does no I/O.

The later uses that still have facts decide. Another event is a late callback of an expired leg, or it comes so much later that
it begins a new use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import orjson

from shared.domain.facts import LEG, Fact, leg_of
from shared.domain.ids import CallKey, is_request_id, later_use, use_number
from shared.domain.raw_event import RawEvent
from shared.domain.reused_legs import guid_facts, has_other_guid, may_be_reused, with_own_legs
from shared.domain.times import milliseconds
from shared.domain.uses import AFTER_CLOSED_S, first_number, is_of_next_use, use_fact, uses_of, uses_of_events
from shared.state.stored_call import PublicationState, StoredCall

# Later uses that are read. A callback of one before them counts as new.
_LOOKED_BACK = 8

# A rebuild restores tombstones without their legs. A callback this late is none of a leg that has ended.
_UNKNOWN_LEGS_S = 24 * 3600

Pair = tuple[RawEvent, list[Fact]]


@dataclass(frozen=True, slots=True)
class Assigned:
    """The events of each use, with facts for that use, and the events that belong to expired calls."""

    of_uses: dict[CallKey, list[Pair]] = field(default_factory=dict)
    expired: list[RawEvent] = field(default_factory=list)


def later_keys(first: CallKey, tombstone: StoredCall) -> list[CallKey]:
    """Return the later uses that must be read before events can be assigned."""
    numbers = range(max(2, tombstone.uses - _LOOKED_BACK + 1), tombstone.uses + 1)
    return [CallKey(first.source, later_use(first.call, number)) for number in numbers]


class BehindTombstone:
    """The uses of a RequestID or CallID whose first use is a tombstone."""

    def __init__(self, first: CallKey, tombstone: StoredCall, later: Mapping[CallKey, StoredCall], max_call_s: float) -> None:
        """Take the tombstone, and what was read of the later uses, in their order."""
        self._first = first
        self._uses = tombstone.uses
        self._max_call_s = max_call_s
        self.live = {key: call for key, call in later.items() if call.facts}
        # The tombstone was returned with the facts of these events, which are not stored.
        self._tombstones = {first: tombstone} | {
            key: call for key, call in later.items() if not call.facts and call.state is PublicationState.TOMBSTONED
        }

    def assign(self, pairs: Iterable[Pair]) -> Assigned:
        """Assign events, each with its facts."""
        assigned = Assigned()
        left: list[Pair] = []
        for pair in pairs:
            if self._is_expired(*pair):
                assigned.expired.append(pair[0])
            else:
                left.append(pair)
        facts = [facts for _, facts in left]
        targets = self._by_request_id(facts) if is_request_id(self._first.call) else self._by_call_id(facts)
        for (event, _), (key, of_event) in zip(left, targets, strict=True):
            more = [] if key in self.live else [use_fact(use_number(key.call))]
            assigned.of_uses.setdefault(key, []).append((event, [*of_event, *more]))
        return assigned

    def _by_request_id(self, events: Sequence[list[Fact]]) -> list[tuple[CallKey, list[Fact]]]:
        """Return the use of each event: the one that has its leg, else the last one, or a new one if that has expired."""
        named = self._with_own_legs(events)
        return [(self._with_leg(leg_of(facts)) or self._last_live or self._new(1), facts) for facts in named]

    def _by_call_id(self, events: Sequence[list[Fact]]) -> list[tuple[CallKey, list[Fact]]]:
        live = list(self.live)
        numbers = uses_of_events(events, [self.live[key].facts for key in live], self._max_call_s)
        keys = [live[number - 1] if number <= len(live) else self._new(number - len(live)) for number in numbers]
        return list(zip(keys, events, strict=True))

    def _is_expired(self, event: RawEvent, facts: list[Fact]) -> bool:
        if leg := leg_of(facts):
            if self._is_of_live(facts):
                return False
            for tombstone in self._tombstones.values():
                if leg in _legs_of_tombstone(tombstone):
                    is_other = not is_request_id(self._first.call) or _has_other_guid(facts, tombstone)
                    if not is_other or not _is_later(event, tombstone, _UNKNOWN_LEGS_S):
                        return True
        if self._last_live is not None:
            return False
        last = max(self._tombstones, key=lambda key: use_number(key.call))
        are_legs_known = all(tombstone.summary for tombstone in self._tombstones.values())
        return not _is_later(event, self._tombstones[last], AFTER_CLOSED_S if are_legs_known else _UNKNOWN_LEGS_S)

    def _is_of_live(self, facts: list[Fact]) -> bool:
        if is_request_id(self._first.call):
            [named] = self._with_own_legs([facts])
            return self._with_leg(leg_of(named)) is not None and not has_other_guid([named], self._facts)
        leg = leg_of(facts)
        return any(
            leg in self._legs[key] and not is_of_next_use(facts, call.facts, self._max_call_s) for key, call in self.live.items()
        )

    def _with_own_legs(self, events: Sequence[list[Fact]]) -> Sequence[list[Fact]]:
        return (
            with_own_legs(events, self._facts, self._max_call_s)
            if may_be_reused(events, self._facts, self._max_call_s)
            else events
        )

    def _with_leg(self, leg: str) -> CallKey | None:
        return next((key for key, legs in self._legs.items() if leg in legs), None)

    def _new(self, which: int) -> CallKey:
        return CallKey(self._first.source, later_use(self._first.call, self._uses + which))

    @property
    def _last_live(self) -> CallKey | None:
        """Return the last use, if it has facts."""
        last = max((*self.live, *self._tombstones), key=lambda key: use_number(key.call))
        return last if last in self.live else None

    @cached_property
    def _facts(self) -> dict[str, str]:
        """Return the facts of all uses."""
        facts: dict[str, str] = {}
        for call in self.live.values():
            for name, value in call.facts.items():
                facts[name] = min(value, facts.get(name, value))
        return facts

    @cached_property
    def _legs(self) -> dict[CallKey, set[str]]:
        """Return the prefixes of the legs that each use with facts has, without those before it, and with those after it."""
        legs: dict[CallKey, set[str]] = {}
        for key, call in self.live.items():
            before = max(0, use_number(key.call) - first_number(call.facts))
            legs[key] = {leg for use in uses_of(call.facts, self._max_call_s)[before:] for leg in use.legs}
        return legs


def _legs_of_tombstone(tombstone: StoredCall) -> set[str]:
    legs = orjson.loads(tombstone.summary)["legs"] if tombstone.summary else {}
    return {f"{LEG}{leg.replace('/', ':')}:" for leg in legs}


def _has_other_guid(facts: Sequence[Fact], tombstone: StoredCall) -> bool:
    """Return whether an event has a GUID that no leg of an expired call had, although they had GUIDs."""
    known = orjson.loads(tombstone.summary).get("guids", {}) if tombstone.summary else {}
    return bool(known) and any(guid not in known for _, guid in guid_facts([facts]))


def _is_later(event: RawEvent, tombstone: StoredCall, gap_s: float) -> bool:
    over_ms = tombstone.merged_at_ms
    return over_ms is not None and milliseconds(event.received_at) - over_ms > gap_s * 1000
