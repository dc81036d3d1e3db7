"""Uses of one RequestID or CallID: a PBX that was reset counts again from the beginning, days or hours after a complete call.

All facts of a RequestID arrive at its first use, `513`. Which legs belong to which use is a function of these facts, so the order
of arrival does not matter. The legs are sorted by their first receipt. One begins a new use if it comes

- more than an hour after the last event of a use of which every leg was over by then,
- more than the maximum call time, at least an hour, after the last event of any other use.

The second use is the call `513.2`, the third `513.3`. The facts of a later use also hold the legs before it.

A CallID can be used again with its RequestID. Its leg is then named `leg:API:77.2:`, see `reused_legs.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared.domain.annotation import only_annotations
from shared.domain.facts import CLOCK, DIAL, DIAL_AT, GUID, LEG, Fact, is_receipt_of_dial, is_receipt_of_leg, receipt_of_leg
from shared.domain.ids import CallRef, use_number
from shared.domain.leg_event import LegEvent

USE = "use"
"""Fact: the number of the first use of which there are facts, in six digits. Without it, that is the first use."""

AFTER_CLOSED_S = 3600.0
_ENDS = frozenset({LegEvent.HANGUP.value, LegEvent.MISSED.value})
_TO_THE_HOUR = len("2026-11-23T07")


@dataclass(slots=True)
class Use:
    """One use of a RequestID: the prefixes of its legs (`leg:API:77:`), the times of its dials, and every receipt."""

    legs: list[str] = field(default_factory=list)
    dials: list[str] = field(default_factory=list)
    receipts: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def first_at(self) -> str:
        return min(at for at, _ in self.receipts)


@dataclass(slots=True)
class _Item:
    """A leg or a dial with its receipts, each with whether it is the end of a leg."""

    leg: str = ""
    receipts: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def order(self) -> tuple[str, str]:
        return min(at for at, _ in self.receipts), self.leg


def first_number(facts: Mapping[str, str]) -> int:
    """Return the number of the first use of which there are facts."""
    return int(facts.get(USE, "1"))


def use_fact(number: int) -> Fact:
    return USE, f"{number:06}"


def uses_of(facts: Mapping[str, str], max_call_s: float) -> list[Use]:
    """Return the uses that some facts show, in order. There is none if the facts have no event."""
    uses: list[Use] = []
    ends_at: dict[str, str] = {}  # of the legs of the last use
    for item in sorted(_items(facts), key=lambda item: item.order):
        at, _ = item.order
        if not uses or _is_new(uses[-1], ends_at, at, max_call_s):
            uses.append(Use())
            ends_at = {}
        use = uses[-1]
        if item.leg:
            use.legs.append(item.leg)
            ends_at[item.leg] = min((end for end, is_end in item.receipts if is_end), default="~")
        else:
            use.dials.append(at)
        use.receipts += item.receipts
    return uses


def _is_new(use: Use, ends_at: Mapping[str, str], at: str, max_call_s: float) -> bool:
    last_at = max(received for received, _ in use.receipts if received <= at)
    is_closed = bool(ends_at) and max(ends_at.values()) <= at
    silent_s = (datetime.fromisoformat(at) - datetime.fromisoformat(last_at)).total_seconds()
    return silent_s > (AFTER_CLOSED_S if is_closed else max(max_call_s, AFTER_CLOSED_S))


def _items(facts: Mapping[str, str]) -> Iterator[_Item]:
    legs: dict[str, _Item] = {}
    dials: set[str] = set()
    for name, value in facts.items():
        if receipt := receipt_of_leg(name):
            leg, event = receipt
            legs.setdefault(leg, _Item(leg)).receipts.append((value, event in _ENDS))
        elif is_receipt_of_dial(name):
            dials.add(value)
    yield from legs.values()
    yield from (_Item("", [(at, False)]) for at in dials)


def facts_of_use(call: CallRef, facts: Mapping[str, str], max_call_s: float) -> Mapping[str, str]:
    """Return the facts of one use among those of all: `513.2` has the legs of the second."""
    number, first = use_number(call), first_number(facts)
    if number == first and not may_be_several(facts):
        return facts
    uses = uses_of(facts, max_call_s)
    if number == first and len(uses) <= 1:
        return facts
    if not 0 <= number - first < len(uses):
        return {name: facts[name] for name in (CLOCK,) if name in facts} | only_annotations(facts)
    return _only(uses[number - first], facts)


def may_be_several(facts: Mapping[str, str]) -> bool:
    """Return whether there is room for a gap between the events of some facts; cheap, since most calls have none."""
    return has_gap([at for name, at in facts.items() if is_receipt_of_leg(name) or is_receipt_of_dial(name)])


def has_gap(receipts: Sequence[str]) -> bool:
    """Return whether some times are far enough apart for two uses of a RequestID or CallID."""
    first, last = min(receipts, default=""), max(receipts, default="")
    if first[:_TO_THE_HOUR] == last[:_TO_THE_HOUR]:
        return False
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds() > AFTER_CLOSED_S


def _only(use: Use, facts: Mapping[str, str]) -> dict[str, str]:
    """Return the facts of a use. Its dial is the first one, with its own fields. An annotation names the call of its use."""
    legs = tuple(use.legs)
    own = {name: value for name, value in facts.items() if name == CLOCK or (legs and name.startswith(legs))}
    own |= only_annotations(facts)
    if use.dials:
        at = min(use.dials)
        prefix = f"{DIAL_AT}{at}."
        own[DIAL] = at
        fields = {name.removeprefix(prefix): value for name, value in facts.items() if name.startswith(prefix)}
        if f"{DIAL_AT}{at}" not in facts:  # merged by an earlier release
            fields = {name.removeprefix(f"{DIAL}."): value for name, value in facts.items() if name.startswith(f"{DIAL}.")}
        own |= {f"{DIAL}.{name}": value for name, value in fields.items()}
    return own


SAME_OR_LATER = {
    LegEvent.START.value: tuple(LegEvent),
    LegEvent.PICKUP.value: (LegEvent.PICKUP, LegEvent.HANGUP, LegEvent.MISSED),
    LegEvent.HANGUP.value: (LegEvent.HANGUP, LegEvent.MISSED),
    LegEvent.MISSED.value: (LegEvent.HANGUP, LegEvent.MISSED),
}


def is_of_next_use(event: Sequence[Fact], known: Mapping[str, str], max_call_s: float) -> bool:
    """Return whether an event of a leg cannot belong to the known leg of the same CallID, because that is long past this point.

    It had this event, or a later one, longer ago than the maximum call time. The same GUID shows a mere repetition.
    """
    name, received_at = event[0]
    leg, _, what = name.rpartition(":")
    guid = dict(event).get(f"{leg}:{GUID}")
    if guid is not None and guid == known.get(f"{leg}:{GUID}"):
        return False
    reached = [known[f"{leg}:{each}"] for each in SAME_OR_LATER.get(what, ()) if f"{leg}:{each}" in known]
    if not reached:
        return False
    silent_s = (datetime.fromisoformat(received_at) - datetime.fromisoformat(min(reached))).total_seconds()
    return silent_s > max(max_call_s, AFTER_CLOSED_S)


def uses_of_events(events: Iterable[Sequence[Fact]], known: Sequence[Mapping[str, str]], max_call_s: float) -> list[int]:
    """Return to which use of a CallID each event belongs, by the facts of the known uses: 1 for the first.

    Events are read in the order of their receipts, and each one is known to those after it.
    """
    facts = [dict(each) for each in known] or [{}]
    numbered = list(enumerate(events))
    numbers = [1] * len(numbered)
    for position, event in sorted(numbered, key=lambda item: item[1][0][1]):
        if not event[0][0].startswith(LEG):
            continue
        number = next((each for each, of_use in enumerate(facts) if not is_of_next_use(event, of_use, max_call_s)), len(facts))
        facts += [{}] if number == len(facts) else []
        for name, value in event:
            facts[number][name] = min(value, facts[number].get(name, value))
        numbers[position] = number + 1
    return numbers


def copies(facts: Mapping[str, str], uses: Iterable[Use], number: int | None) -> list[list[Fact]]:
    """Return the facts of some uses as events, one a leg or dial, to be merged into a later use.

    `number` is that of the first of them, or None if they are all from the first use on.
    """
    more = [] if number is None else [use_fact(number)]
    events: list[list[Fact]] = []
    for use in uses:
        own = _only(use, facts)
        events += [[(name, value) for name, value in own.items() if name.startswith(leg)] + more for leg in use.legs]
        for at in use.dials:
            prefix = f"{DIAL_AT}{at}"
            dial = [(name, value) for name, value in facts.items() if name == prefix or name.startswith(f"{prefix}.")]
            events.append((dial or [(name, value) for name, value in own.items() if name.startswith(DIAL)]) + more)
    return events
