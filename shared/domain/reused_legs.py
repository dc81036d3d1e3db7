"""Legs of a RequestID whose CallID was used before: a PBX that was reset can give the same CallIDs again.

Another GUID shows that, after a gap of more than the maximum call time. So does a GUID if the leg has none, but had this event
or a later one before the gap. Facts then name the leg `leg:API:77.2:`, since a minimum would lose its events. The record has its
CallID, 77. An event without GUID belongs to the leg of the nearest use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count

from shared.domain.annotation import PREFIX
from shared.domain.facts import GUID, Fact, is_receipt_of_leg, leg_of
from shared.domain.uses import AFTER_CLOSED_S, SAME_OR_LATER, Use, has_gap, is_of_next_use, uses_of

_GUID_FACT = f":{GUID}"
_SECOND_GUID = f".2:{GUID}"
_WITH_GUID = 3  # facts of an event, at most, of which one is its GUID


def guid_facts(events: Iterable[Sequence[Fact]]) -> list[Fact]:
    """Return the GUIDs that events of legs have, each with the name of its fact."""
    return [guid for guid in map(_guid_fact, events) if guid is not None]


def _guid_fact(event: Sequence[Fact]) -> Fact | None:
    """Return the GUID of an event, which is behind its receipt, or behind the estimate of the PBX's clock."""
    for fact in event[1:_WITH_GUID]:
        if fact[0].endswith(_GUID_FACT):
            return fact
    return None


def deciding_facts(events: Iterable[Sequence[Fact]]) -> list[str]:
    """Return the names of the facts by which `may_be_reused` decides: GUIDs and receipts of legs, GUIDs of their second use.

    An event with a GUID needs what its leg has. One without asks whether the leg has a second use, which always has a GUID.
    """
    names = set[str]()
    for event in events:
        guid = _guid_fact(event)
        leg = leg_of(event)
        if leg and guid is not None:
            names.add(guid[0])
            names.update([leg + each for each in SAME_OR_LATER.get(event[0][0][len(leg) :], ())])
        elif leg:
            names.add(_of_use(leg, 2) + GUID)
    return list(names)


def may_be_reused(events: Iterable[Sequence[Fact]], known: Mapping[str, str], max_call_s: float) -> bool:
    """Return whether `with_own_legs` may rename an event, by the facts that `deciding_facts` names.

    A leg of the events has another GUID than it is known by, or two of them. Or it has none, and the event came much later than
    the leg had it. Or a leg is known to have a second use.
    """
    if any(name.endswith(_SECOND_GUID) for name in known) or has_other_guid(events, known):
        return True
    receipts = [event[0][1] for event in events if not event[0][0].startswith(PREFIX)] + [
        at for name, at in known.items() if is_receipt_of_leg(name)
    ]
    return has_gap(receipts) and _came_much_later(events, known, max_call_s)


def _came_much_later(events: Iterable[Sequence[Fact]], known: Mapping[str, str], max_call_s: float) -> bool:
    """Return whether an event with a GUID came much later than its leg had it, while the leg had no GUID."""
    seen = dict(known)
    for event in sorted(events, key=lambda each: each[0][1]):
        guid = _guid_fact(event)
        if guid is not None and guid[0] not in seen and is_of_next_use(event, seen, max_call_s):
            return True
        for name, value in event[:_WITH_GUID]:
            seen[name] = min(value, seen.get(name, value))
    return False


def has_other_guid(events: Iterable[Sequence[Fact]], known: Mapping[str, str]) -> bool:
    """Return whether a leg of some events has another GUID than it is known by, or two of them."""
    seen = dict(known)
    return any(seen.setdefault(name, guid) != guid for name, guid in guid_facts(events))


def with_own_legs(events: Sequence[Sequence[Fact]], known: Mapping[str, str], max_call_s: float) -> list[list[Fact]]:
    """Return the events of a RequestID. Those of a CallID that was used before are of another leg, `leg:API:77.2:`.

    Events are read in the order of their receipts, and each one is known to those after it.
    """
    facts = dict(known)
    renamed = [list(event) for event in events]
    for event in sorted(renamed, key=lambda each: each[0][1]):
        leg = leg_of(event)
        if leg:
            own = _leg_of_use(event, leg, facts, max(max_call_s, AFTER_CLOSED_S), uses_of(facts, max_call_s))
            event[:] = [(own + name.removeprefix(leg), value) for name, value in event]
        for name, value in event:
            facts[name] = min(value, facts.get(name, value))
    return renamed


def _leg_of_use(event: Sequence[Fact], leg: str, facts: Mapping[str, str], gap_s: float, uses: Sequence[Use]) -> str:
    """Return the prefix of the leg that an event belongs to. Without a GUID, that is the leg of the nearest use."""
    received_at = datetime.fromisoformat(event[0][1])
    guid = dict(event).get(leg + GUID)
    own, silent_s = leg, dict[str, float]()
    for number in count(2):
        use = next((each for each in uses if own in each.legs), None)
        if use is None:
            break
        silent_s[own] = min(abs((received_at - datetime.fromisoformat(at)).total_seconds()) for at, _ in use.receipts)
        if guid is not None and (silent_s[own] <= gap_s or _has_guid(own, guid, event, facts, gap_s)):
            return own
        own = _of_use(leg, number)
    return own if guid is not None or not silent_s else min(silent_s, key=lambda each: silent_s[each])


def _has_guid(leg: str, guid: str, event: Sequence[Fact], facts: Mapping[str, str], gap_s: float) -> bool:
    """Return whether a leg has the GUID of an event. One without GUID gets it, unless the leg had the event long before."""
    known = facts.get(leg + GUID)
    return known == guid or (known is None and not is_of_next_use(event, facts, gap_s))


def _of_use(leg: str, number: int) -> str:
    """Return the prefix of a later use of a leg: `leg:API:77.2:`."""
    return f"{leg[:-1]}.{number}:"
