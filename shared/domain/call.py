"""The call, as a pure function of its facts: legs, status, outcome and why it counts as complete.

All telephony lives here. No I/O and no clock: "now" is the fact `>clock`. When a call is complete:

| facts | rule |
|---|---|
| agent leg missed, no dialed leg | complete at once: agent_missed |
| dialed leg missed, agent leg ended | complete: dialed_missed |
| dialed leg picked up and ended, agent leg ended | complete: answered |
| agent picked up and hung up, no dialed leg | after the settle time: agent_hung_up |
| a leg with hangup, but neither pickup nor missed | after the settle time it counts as missed, inferred - |
|  | or as picked up, where IsCallAnswered or PickupTimestampUTC of the hangup say so |
| a dialed leg exists, the agent's leg is over without a pickup | it counts as picked up, inferred; closes after the settle time |
| one leg ended, another silent or never heard of | after the leg grace time: not complete, timeout |
| no event for the maximum call time | not complete, timeout |
| no RequestID: every leg over | complete: answered, or missed where nobody picked up |
| closed by timeout | the outcome the facts bear out, else unknown |

A call that was published can be open again: an event that comes after a timeout tells that it goes on. It closes again like any
other, and what has changed by then amends its record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from shared.domain.callback import CallType, LegEvent
from shared.domain.facts import CLOCK, DIAL, LEG, rfc3339
from shared.domain.ids import CallKey
from shared.domain.leg import Leg, LegState, read_legs


def is_request_id(call: str) -> bool:
    """Tell a call of the dial API, named by its RequestID, from one that is named by its CallID."""
    return call.isascii() and call.isdigit()


class Status(StrEnum):
    """Where a call stands; only a complete call has an outcome and is published."""

    RINGING = "ringing"
    TALKING = "talking"
    ENDING = "ending"
    COMPLETE = "complete"


class Outcome(StrEnum):
    """How a call ended."""

    ANSWERED = "answered"
    DIALED_MISSED = "dialed_missed"
    AGENT_MISSED = "agent_missed"
    AGENT_HUNG_UP = "agent_hung_up"
    MISSED = "missed"
    UNKNOWN = "unknown"


class CloseReason(StrEnum):
    """What made a call count as complete."""

    HANGUP = "hangup"
    MISSED = "missed"
    SETTLED = "settled"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Policy:
    """How long to wait for callbacks that may never come, in seconds."""

    settle_s: float
    leg_grace_s: float
    max_call_s: float

    @property
    def waits_s(self) -> tuple[float, ...]:
        """The silences after which something changes, the shortest first."""
        return tuple(sorted((self.settle_s, self.leg_grace_s, self.max_call_s)))


@dataclass(frozen=True, slots=True)
class Closing:
    """How and why a call is over. `complete` is false where a timer decided it for want of events."""

    outcome: Outcome
    reason: CloseReason

    @property
    def complete(self) -> bool:
        return self.reason is not CloseReason.TIMEOUT


@dataclass(frozen=True, slots=True)
class Call:
    """A call as its facts tell it; times are RFC 3339 UTC, durations are seconds or None.

    Attributes:
        closing: how it is over; None while it is open.
        wake_at: when its silence would close it; None once it is over, and where nothing is known of it but the time.
    """

    key: CallKey
    status: Status
    closing: Closing | None
    agent: Leg | None
    dialed: Leg | None
    other_legs: tuple[Leg, ...]
    started_at: str
    answered_at: str | None
    ended_at: str | None
    last_event_at: str
    wake_at: str | None
    ring_seconds: float | None
    talk_seconds: float | None
    dial: Mapping[str, str]

    @property
    def legs(self) -> tuple[Leg, ...]:
        return (*(leg for leg in (self.agent, self.dialed) if leg), *self.other_legs)

    @property
    def request_id(self) -> int | None:
        return int(self.key.call) if is_request_id(self.key.call) else None


def derive(key: CallKey, facts: Mapping[str, str], policy: Policy) -> Call:
    """Fold the facts of one call into the call."""
    legs = read_legs(facts)
    clock = facts.get(CLOCK, "")
    receipts = _receipts(facts)
    last_event_at = max(receipts, default=clock)
    # Only a timer tells silence: there is none where the last event came after it.
    quiet_s = (_seconds(last_event_at, clock) or 0.0) if receipts else 0.0
    is_pair = is_request_id(key.call)
    judged, closing = _judge(legs, quiet_s, policy, is_pair=is_pair)
    call = _assemble(key, judged, closing, facts, last_event_at)
    if closing or not receipts:
        return call
    closing_s = next((wait_s for wait_s in policy.waits_s if _judge(legs, wait_s, policy, is_pair=is_pair)[1]), policy.max_call_s)
    return replace(call, wake_at=rfc3339(datetime.fromisoformat(last_event_at) + timedelta(seconds=closing_s)))


def _judge(legs: list[Leg], quiet_s: float, policy: Policy, *, is_pair: bool) -> tuple[list[Leg], Closing | None]:
    """Judge the legs after so many seconds without an event."""
    dialed_out = is_pair and any(leg.call_type is CallType.OUTGOING for leg in legs)
    inferred = [_infer(leg, settled=quiet_s >= policy.settle_s, dialed_out=dialed_out) for leg in legs]
    return inferred, _closing(inferred, quiet_s, policy, is_pair=is_pair)


def _receipts(facts: Mapping[str, str]) -> list[str]:
    events = set(LegEvent)
    return [at for name, at in facts.items() if name == DIAL or (name.startswith(LEG) and name.rpartition(":")[2] in events)]


def _infer(leg: Leg, *, settled: bool, dialed_out: bool) -> Leg:
    """Fill in what a lost event would have told."""
    if leg.call_type is CallType.API and leg.state is LegState.RINGING and dialed_out:
        # FocalScope dials out only after the agent picked up.
        return replace(leg, state=LegState.ENDED if leg.is_over else LegState.TALKING, inferred=True)
    if leg.is_ambiguous and settled:
        return replace(leg, state=LegState.ENDED if leg.seems_answered else LegState.MISSED, inferred=True)
    return leg


def _closing(legs: list[Leg], quiet_s: float, policy: Policy, *, is_pair: bool) -> Closing | None:
    """Decide whether the call is over, by its events or by its silence."""
    by_events = _pair_closing(legs, settled=quiet_s >= policy.settle_s) if is_pair else _single_closing(legs)
    if by_events is not None:
        return by_events
    one_leg_over = any(leg.is_over for leg in legs)
    if quiet_s >= policy.max_call_s or (one_leg_over and quiet_s >= policy.leg_grace_s):
        return Closing(_likely_outcome(legs, is_pair=is_pair), CloseReason.TIMEOUT)
    return None


def _pair_closing(legs: list[Leg], *, settled: bool) -> Closing | None:
    agents = [leg for leg in legs if leg.call_type is CallType.API]
    dialed = [leg for leg in legs if leg.call_type is CallType.OUTGOING]
    if not agents or not all(leg.is_over and not leg.is_ambiguous for leg in legs):
        return None
    if any(leg.inferred for leg in legs) and not settled:
        return None  # the event that would make the inference needless may only be late
    inferred = any(leg.state is LegState.MISSED and leg.inferred for leg in legs)
    if dialed:
        if any(leg.was_answered for leg in dialed):
            return Closing(Outcome.ANSWERED, CloseReason.HANGUP)
        return Closing(Outcome.DIALED_MISSED, CloseReason.SETTLED if inferred else CloseReason.MISSED)
    if any(leg.was_answered for leg in agents):
        return Closing(Outcome.AGENT_HUNG_UP, CloseReason.SETTLED) if settled else None
    return Closing(Outcome.AGENT_MISSED, CloseReason.SETTLED if inferred else CloseReason.MISSED)


def _single_closing(legs: list[Leg]) -> Closing | None:
    if not legs or not all(leg.is_over and not leg.is_ambiguous for leg in legs):
        return None
    if any(leg.was_answered for leg in legs):
        return Closing(Outcome.ANSWERED, CloseReason.HANGUP)
    return Closing(Outcome.MISSED, CloseReason.SETTLED if any(leg.inferred for leg in legs) else CloseReason.MISSED)


def _likely_outcome(legs: list[Leg], *, is_pair: bool) -> Outcome:
    """Say what the facts allow when a timer closes the call."""
    agents = [leg for leg in legs if leg.call_type is CallType.API]
    far = [leg for leg in legs if leg.call_type is CallType.OUTGOING] if is_pair else legs
    if any(leg.was_answered for leg in far):
        return Outcome.ANSWERED
    if far and all(leg.state is LegState.MISSED for leg in far):
        return Outcome.DIALED_MISSED if is_pair else Outcome.MISSED
    if not far and agents and all(leg.state is LegState.MISSED for leg in agents):
        return Outcome.AGENT_MISSED
    return Outcome.UNKNOWN


def _assemble(key: CallKey, legs: list[Leg], closing: Closing | None, facts: Mapping[str, str], last_event_at: str) -> Call:
    is_pair = is_request_id(key.call)
    # The first leg of a side is the side; a later CallID there (a transfer) is kept beside it.
    agent = next((leg for leg in legs if leg.call_type is CallType.API or not is_pair), None)
    dialed = next((leg for leg in legs if leg.call_type is CallType.OUTGOING and is_pair), None)
    far = [leg for leg in legs if leg.call_type is CallType.OUTGOING or not is_pair]
    near = [leg for leg in legs if leg.call_type is not CallType.OUTGOING and is_pair]
    answering = next((leg for leg in far if leg.was_answered), dialed if is_pair else agent)
    answered_at = answering.picked_up_at if answering else None
    ends = [at for leg in legs for at in (leg.hung_up_at, leg.missed_at) if at]
    starts = [at for leg in legs for at in (leg.started_at, leg.picked_up_at, leg.first_seen_at) if at]
    started_at = min([*starts, facts[DIAL]] if DIAL in facts else starts, default=last_event_at)
    # Clocks of others may disagree with ours: what was first heard of at its end did not end before.
    ended_at = max(*ends, started_at, answered_at or "") if ends else None
    return Call(
        key=key,
        status=_status(legs, closing),
        closing=closing,
        agent=agent,
        dialed=dialed,
        other_legs=tuple(leg for leg in legs if leg is not agent and leg is not dialed),
        started_at=started_at,
        answered_at=answered_at,
        ended_at=ended_at if closing else None,
        last_event_at=last_event_at,
        wake_at=None,
        ring_seconds=_ring_seconds(answering, agent if answering is dialed else None),
        talk_seconds=_seconds(_known_pickup(answering), _over_at(near, far)),
        dial={name.partition(".")[2]: value for name, value in facts.items() if name.startswith(DIAL + ".")},
    )


def _ring_seconds(answering: Leg | None, before: Leg | None) -> float | None:
    """Tell how long it rang: as the PBX says where nothing else does; a dialed phone since the pickup of the leg `before` it."""
    if answering is None:
        return None
    told = _seconds(answering.started_at or _known_pickup(before), _known_pickup(answering))
    return answering.wait_seconds if told is None else told


def _known_pickup(leg: Leg | None) -> str | None:
    """Tell when a leg was picked up, where it is known well enough to count seconds from it."""
    return None if leg is None or leg.is_pickup_late else leg.picked_up_at


def _over_at(*sides: list[Leg]) -> str | None:
    """Tell until when they talked: until the last leg of either side is over."""
    ended = (max((leg.hung_up_at for leg in side if leg.was_answered and leg.hung_up_at), default=None) for side in sides)
    return min((at for at in ended if at), default=None)


def _status(legs: list[Leg], closing: Closing | None) -> Status:
    if closing:
        return Status.COMPLETE
    if any(leg.is_over for leg in legs):
        return Status.ENDING
    if any(leg.state is LegState.TALKING for leg in legs):
        return Status.TALKING
    return Status.RINGING


def _seconds(since: str | None, until: str | None) -> float | None:
    """Seconds between two times; None where one is unknown or they contradict each other."""
    if since is None or until is None or until < since:
        return None
    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()
