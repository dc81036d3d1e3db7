"""The call as a pure function of its facts: its sides, status, times and durations. `closing.py` says when it is over.

It does no I/O and reads no clock; "now" is the fact `>clock`. A published call can open again, because an event after a timeout
shows that it goes on. It then closes by the same rules, and changes amend its record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from shared.domain.annotation import Annotation, read_annotations
from shared.domain.closing import Closing, Policy, close
from shared.domain.facts import CLOCK, DIAL, receipts
from shared.domain.ids import CallKey, first_use, is_request_id, use_number
from shared.domain.leg import Leg, LegState, in_order, read_legs
from shared.domain.leg_event import CallType
from shared.domain.parties import EndedBy, agent_of, ended_by, representatives, sides
from shared.domain.pbx_clock import PbxClock
from shared.domain.times import at_microseconds, rfc3339, seconds_between
from shared.domain.uses import facts_of_use


class Status(StrEnum):
    """State of a call; only a complete call has an outcome and is published."""

    RINGING = "ringing"
    TALKING = "talking"
    ENDING = "ending"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Call:
    """A call derived from its facts. Times are RFC 3339 UTC, durations are seconds or None.

    Attributes:
        closing: None while the call is open.
        agent, dialed: the leg that represents each side, see `shared.domain.parties`.
        other_legs: the further legs of both sides, and legs of other types.
        ended_by: None while the call is open, and without a conversation.
        first_event_at, last_event_at: times of receipt, by the clock of ingress. The other times are by the clock of the PBX if
            an event has its own timestamp (see `pbx_clock.py`).
        pbx_ahead_seconds: how far the clock of the PBX is ahead of that of ingress; None if unknown.
        mixed_talk_seconds: the talk time as the first release has it, which can mix two clocks; for summaries.
        is_of_several: its RequestID was used for other calls too, before or after it.
        annotations: in the order of their times, without their bodies.
        wake_at: when further silence closes the call; None if it is closed or has no events.
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
    first_event_at: str
    last_event_at: str
    wake_at: str | None
    ring_seconds: float | None
    talk_seconds: float | None
    ended_by: EndedBy | None
    dial: Mapping[str, str]
    pbx_ahead_seconds: float | None = None
    mixed_talk_seconds: float | None = None
    is_of_several: bool = False
    annotations: tuple[Annotation, ...] = ()

    @property
    def legs(self) -> tuple[Leg, ...]:
        if self.agent is not None and self.dialed is not None:
            return (self.agent, self.dialed, *self.other_legs)
        return (*filter(None, (self.agent, self.dialed)), *self.other_legs)

    @property
    def is_pair(self) -> bool:
        """Return whether the dial API started the call, which has an agent leg and a dialed leg then."""
        return is_request_id(self.key.call)

    @property
    def request_id(self) -> int | None:
        return int(first_use(self.key.call)) if self.is_pair else None

    @property
    def call_type(self) -> CallType | None:
        """Return what kind of call it is: `API` if it has a RequestID, else the type of its leg. None without a leg."""
        if self.is_pair:
            return CallType.API
        return self.agent.call_type if self.agent else None

    def ring_seconds_of(self, leg: Leg) -> float | None:
        """Return how long the phone of one leg rang until it was picked up or missed."""
        if leg is (self.dialed if self.is_pair else self.agent):
            return self.ring_seconds
        if leg.call_type is not CallType.OUTGOING:
            return leg.ring_seconds
        both = sides(sorted(self.legs, key=in_order), is_pair=self.is_pair)
        return _ring_seconds(leg, agent_of(leg, both.agent) if both.dialed and leg is both.dialed[0] else None)


def derive(key: CallKey, facts: Mapping[str, str], policy: Policy, *, merged_at_ms: int | None = None) -> Call:
    """Derive one call from its facts. Those of other uses of its RequestID may be among them (`uses.py`).

    `merged_at_ms` is when the last of these facts was learned, by the clock of the timers (ms since 1970). Silence is counted
    from then, so that the clock of an ingress closes no call early. Without it, silence is counted from the last receipt.
    """
    of_all, facts = facts, facts_of_use(key.call, facts, policy.max_call_s)
    legs, pbx = read_legs(facts)
    clock = facts.get(CLOCK, "")
    received = receipts(facts)
    last_event_at = max(received, default=clock)
    # Only a timer proves silence. There is none if the last event was received after the timer.
    quiet_from = last_event_at if merged_at_ms is None else max(last_event_at, at_microseconds(merged_at_ms * 1000))
    quiet_s = (seconds_between(quiet_from, clock) or 0.0) if received else 0.0
    is_pair = is_request_id(key.call)
    inferred, closing = close(legs, quiet_s, policy, is_pair=is_pair)
    call = _assemble(key, inferred, closing, facts, pbx, received=received or [clock])
    if facts is not of_all or use_number(key.call) > 1:
        call = replace(call, is_of_several=True)
    if closing or not received:
        return call
    closing_s = next((wait_s for wait_s in policy.waits_s if close(legs, wait_s, policy, is_pair=is_pair)[1]), policy.max_call_s)
    return replace(call, wake_at=rfc3339(datetime.fromisoformat(quiet_from) + timedelta(seconds=closing_s)))


def _assemble(
    key: CallKey, legs: list[Leg], closing: Closing | None, facts: Mapping[str, str], pbx: PbxClock, *, received: Sequence[str]
) -> Call:
    is_pair = is_request_id(key.call)
    both = sides(legs, is_pair=is_pair)
    agent, dialed = representatives(both)
    far = both.dialed if is_pair else both.agent
    near = [leg for leg in legs if leg.call_type is not CallType.OUTGOING] if is_pair else []
    answering = dialed if is_pair else agent
    answered_at = answering.picked_up_at if answering else None
    ends = [at for leg in legs for at in (leg.hung_up_at, leg.missed_at) if at]
    starts = [at for leg in legs for at in (leg.started_at, leg.picked_up_at, leg.first_seen_at) if at]
    started_at = min([*starts, pbx.place(facts[DIAL])] if DIAL in facts else starts, default=received[0])
    # Callbacks can be received in another order. A call cannot end before it started or was answered.
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
        first_event_at=min(received),
        last_event_at=max(received),
        wake_at=None,
        ring_seconds=_ring_seconds(answering, agent if far and answering is far[0] and is_pair else None),
        talk_seconds=_talk_seconds(answering, near, far, pbx),
        mixed_talk_seconds=_mixed_talk_seconds(answering, near, far),
        ended_by=ended_by(both, is_pair=is_pair) if closing else None,
        pbx_ahead_seconds=None if pbx.offset is None else -pbx.offset.total_seconds(),
        annotations=read_annotations(facts),
        dial={name.partition(".")[2]: value for name, value in facts.items() if name.startswith(DIAL + ".")},
    )


def _ring_seconds(answering: Leg | None, agent: Leg | None) -> float | None:
    """Return how long the phone rang. Without a time of its start, the first dialed phone rings from the pickup of the agent."""
    if answering is None:
        return None
    seconds = answering.rang_since("start")
    if seconds is None and agent is not None:
        seconds = answering.rang_since("pickup", agent)
    return answering.wait_seconds if seconds is None else seconds


def _talk_seconds(answering: Leg | None, near: Sequence[Leg], far: Sequence[Leg], pbx: PbxClock) -> float | None:
    """Return the length of the conversation. All ends are on the axis of the PBX if the call shows it, else they are receipts.

    A login is no conversation.
    """
    if answering is None or not answering.was_answered or answering.call_type is CallType.LOGIN:
        return None
    is_known = pbx.offset is not None and not pbx.is_estimated
    pickup = answering.axis.pickup if is_known else pbx.place_known(answering.received.pickup)
    return seconds_between(pickup, _over_at([[leg.hung_up_at for leg in side if leg.was_answered] for side in (near, far)]))


def _mixed_talk_seconds(answering: Leg | None, *groups: Sequence[Leg]) -> float | None:
    if answering is None or not answering.was_answered:
        return None
    over_at = _over_at([[leg.mixed.end for leg in side if leg.was_answered] for side in groups])
    return seconds_between(answering.mixed.pickup, over_at)


def _over_at(ends_of_sides: Iterable[Sequence[str | None]]) -> str | None:
    """Return the end of the conversation: when the last leg of one side ended."""
    ended = [max([end for end in ends if end is not None]) for ends in ends_of_sides if any(ends)]
    return min(ended, default=None)


def _status(legs: list[Leg], closing: Closing | None) -> Status:
    if closing:
        return Status.COMPLETE
    if any(leg.is_over for leg in legs):
        return Status.ENDING
    if any(leg.state is LegState.TALKING for leg in legs):
        return Status.TALKING
    return Status.RINGING
