"""The clock of the PBX, by the facts of one call, and the times of a leg on that clock.

A PBX timestamp and a time of receipt come from two clocks. No duration may mix them. Each event with its own timestamp is a
sample. Its receipt less its timestamp is the offset between the clocks plus the delay of the callback. Delays only add, so the
smallest sample is the best one. Receipts of the call are moved by it to the axis of the PBX. A call without a sample takes
the offset that a worker has estimated by other calls of its source, if there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.domain.facts import AHEAD, AT, Fact, leg_of
from shared.domain.leg_event import LegEvent
from shared.domain.times import rfc3339

EQUAL_S = 1.0
"""A PBX whose clock differs by no more than this counts as right."""
_HALF_HOUR_S, _NEAR_S = 1800, 90

LegFacts = Mapping[str, str]
"""The facts of one leg; their names are relative to the leg."""

START, PICKUP, END = "start", "pickup", "end"
_EVENTS_OF = {START: (LegEvent.START,), PICKUP: (LegEvent.PICKUP,), END: (LegEvent.HANGUP, LegEvent.MISSED)}
_SENT = {what: AT + what for what in (START, PICKUP, END)}
_LATER_THAN = {START: (LegEvent.PICKUP, LegEvent.HANGUP, LegEvent.MISSED), PICKUP: (LegEvent.HANGUP, LegEvent.MISSED), END: ()}

_IN_ORDER = ((PICKUP, (START,)), (END, (START, PICKUP)))

# Two callbacks are not held up for the same time, so samples that agree to this second show what the clock was.
_AGREEING = timedelta(seconds=1)
# Events closer together than this can be held up by the same cause.
_APART = timedelta(seconds=2)
_JUMP = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class PbxClock:
    """The clock of the PBX during one call.

    Attributes:
        offset: a time of receipt less this is a time of the PBX; None if neither the call nor an estimate shows it.
        has_jumped: the clock was set during the call, so its timestamps say nothing.
        is_estimated: the offset is that of other calls. A rebuild may not know it, so the talk time does not depend on it.
    """

    offset: timedelta | None = None
    has_jumped: bool = False
    is_estimated: bool = False

    def place(self, received_at: str) -> str:
        """Move a time of receipt to the axis of the call's times."""
        return received_at if not self.offset else rfc3339(datetime.fromisoformat(received_at) - self.offset)

    def place_known(self, received_at: str | None) -> str | None:
        return None if received_at is None else self.place(received_at)


@dataclass(frozen=True, slots=True)
class ClockTimes:
    """Start, pickup and end of one leg by one clock: RFC 3339 UTC, or None if this clock does not know them."""

    start: str | None = None
    pickup: str | None = None
    end: str | None = None


UNKNOWN_TIMES = ClockTimes()


class LegTimes(NamedTuple):
    """Times of one leg.

    Attributes:
        over_at: the timestamp of the end, or None.
        pbx: the timestamps, without those that contradict each other.
        axis: the same, completed by receipts that were moved to the clock of the PBX; empty if no offset is known.
        received: the receipts, without those of callbacks that were held up.
        ignored: names of the timestamps that contradict others.
    """

    started_at: str | None
    picked_up_at: str | None
    over_at: str | None
    pbx: ClockTimes
    axis: ClockTimes
    received: ClockTimes
    ignored: tuple[str, ...]
    has_pickup_timestamp: bool


class _Sample(NamedTuple):
    at: datetime
    offset: timedelta


def pbx_clock(legs: Iterable[LegFacts]) -> PbxClock:
    """Return the clock of the PBX by the facts of all legs of a call."""
    known = list(legs)
    samples = [sample for facts in known for sample in _samples(facts)]
    if not samples:
        return PbxClock(_estimate(known), is_estimated=True)
    if _has_jumped(samples):
        return PbxClock(has_jumped=True)
    return PbxClock(min(sample.offset for sample in samples))


def _estimate(legs: Iterable[LegFacts]) -> timedelta | None:
    """Return the offset that was estimated by other calls; None if a leg's timestamps would be after its last receipt then.

    Such a clock was set between the calls.
    """
    offset: timedelta | None = None
    known = [facts for facts in legs if AHEAD in facts]
    if known:
        offset = min(timedelta(seconds=-float(facts[AHEAD])) for facts in known)
        for facts in known:
            sent, _ = _timestamps(facts)
            last = max((facts[event] for event in LegEvent if event in facts), default="")
            if sent and last and rfc3339(datetime.fromisoformat(last) - offset) < max(sent.values()):
                return None
    return offset


def event_ahead(facts: Sequence[Fact]) -> tuple[str, float] | None:
    """Return when an event with its own timestamp was received, and how far that timestamp is ahead of it (seconds)."""
    for name, received_at in facts[:1]:
        leg, _, event = name.rpartition(":")
        own = next((f"{leg}:{AT}{what}" for what, events in _EVENTS_OF.items() if event in events), None)
        for other, sent in facts:
            if other == own:
                return received_at, (datetime.fromisoformat(sent) - datetime.fromisoformat(received_at)).total_seconds()
    return None


def estimate_fact(facts: Sequence[Fact], ahead_s: float) -> Fact:
    """Return the fact that the clock of the PBX is ahead of the receipt of an event by an estimate of `ahead_s` seconds."""
    return f"{leg_of(facts)}{AHEAD}", f"{ahead_s:.3f}"


def needs_estimate(facts: Sequence[Fact]) -> bool:
    """Return whether an event has timestamps, but not the one that shows the clock."""
    leg = leg_of(facts)
    return bool(leg) and any(name.startswith(leg + AT) for name, _ in facts) and event_ahead(facts) is None


def clock_problem(source: str, ahead_s: float) -> str:
    """Return what is wrong with the clock of a PBX that is `ahead_s` ahead of the times of receipt, or ''."""
    if abs(ahead_s) <= EQUAL_S:
        return ""
    differs = f"The clock of the PBX of source {source} is {'ahead of' if ahead_s > 0 else 'behind'} that of ingress."
    zones = round(ahead_s / _HALF_HOUR_S)
    if zones and abs(ahead_s - zones * _HALF_HOUR_S) < _NEAR_S:
        return f"{differs} It seems to send local time instead of UTC."
    return f"{differs} Synchronize it with NTP."


def _samples(facts: LegFacts) -> list[_Sample]:
    sent, _ = _timestamps(facts)
    samples = []
    for what, at in sent.items():
        receipt = _receipt(facts, what)
        if receipt is not None:
            pbx = datetime.fromisoformat(at)
            samples.append(_Sample(pbx, datetime.fromisoformat(receipt) - pbx))
    return samples


def _has_jumped(samples: Sequence[_Sample]) -> bool:
    """Return whether earlier events agree on one clock, and a later one was sent by a clock further ahead."""
    last = min(samples, key=lambda sample: sample.offset)
    before = [sample for sample in samples if sample.offset - last.offset > _JUMP and sample.at < last.at]
    return any(
        abs(one.offset - other.offset) <= _AGREEING and abs(one.at - other.at) >= _APART for one in before for other in before
    )


def sent_times(facts: LegFacts) -> dict[str, str]:
    """Return the timestamps of a leg: start, pickup and end, as far as the adapter sent them."""
    return {what: facts[name] for what, name in _SENT.items() if name in facts}


def _timestamps(facts: LegFacts) -> tuple[dict[str, str], list[str]]:
    """Return the timestamps of a leg that agree with each other, and the names of the others."""
    sent = sent_times(facts)
    ignored: list[str] = []
    for what, before in _IN_ORDER if len(sent) > 1 else ():
        if what in sent and sent[what] < max([sent[name] for name in before if name in sent], default=""):
            ignored.append(what)
            del sent[what]
    return sent, ignored


def leg_times(facts: LegFacts, clock: PbxClock) -> LegTimes:
    """Return the times of a leg. Timestamps of the PBX take precedence over receipts, which can only be too late.

    A timestamp is ignored if it contradicts other ones, or a receipt on the same axis. While no offset is known, the clocks are
    taken to agree. A pickup received after the end took place before it: its receipt is neither its time nor a contradiction.
    """
    sent, ignored = _timestamps(facts)
    has_pickup_timestamp = PICKUP in sent
    if clock.has_jumped:
        sent, ignored = {}, list(sent_times(facts))
    pbx = ClockTimes(sent.get(START), sent.get(PICKUP), sent.get(END)) if sent else UNKNOWN_TIMES
    received = ClockTimes(_receipt(facts, START), _receipt(facts, PICKUP), _receipt(facts, END))
    started, picked_up, over = map(clock.place_known, (received.start, received.pickup, received.end))
    if sent:
        started, picked_up = _not_after(started, sent, (PICKUP, END)), _not_after(picked_up, sent, (END,))
        _drop_contradictions(sent, ignored, picked_up, over)
    started_at, picked_up_at = sent.get(START, started), sent.get(PICKUP, picked_up)
    axis = UNKNOWN_TIMES if clock.offset is None else ClockTimes(started_at, picked_up_at, sent.get(END, over))
    return LegTimes(started_at, picked_up_at, sent.get(END), pbx, axis, received, tuple(ignored), has_pickup_timestamp)


def _receipt(facts: LegFacts, what: str) -> str | None:
    """Return when an event was received; None also if a later event was received before it, so that it was held up."""
    received = [facts[event] for event in _EVENTS_OF[what] if event in facts]
    if not received:
        return None
    received_at = min(received)
    is_held_up = min([facts.get(later, received_at) for later in _LATER_THAN[what]], default=received_at) < received_at
    return None if is_held_up else received_at


def _not_after(receipt: str | None, sent: Mapping[str, str], later: Iterable[str]) -> str | None:
    """Return a receipt unless it is after a later event by the PBX: then the callback was held up, and says no time."""
    limit = min((sent[what] for what in later if what in sent), default=None)
    return None if receipt is not None and limit is not None and receipt > limit else receipt


def _drop_contradictions(sent: dict[str, str], ignored: list[str], picked_up: str | None, over: str | None) -> None:
    """Drop timestamps that contradict a receipt. An end cannot: where there is one, receipts were moved to agree with it."""
    picked_up_at = sent.get(PICKUP, picked_up)
    if START in sent and picked_up_at is not None and picked_up_at < sent[START]:
        ignored.append(START)
        del sent[START]
    over_at = sent.get(END, over)
    for what in (PICKUP, START):
        if over_at is not None and sent.get(what, over_at) > over_at:
            ignored.append(what)
            del sent[what]
