"""When a call is over, and with which outcome: a pure function of its legs and of the silence since its last event.

A call is over by the first of these rules that holds:

- Agent leg missed, no dialed leg: agent_missed, at once.
- Dialed leg missed, agent leg ended: dialed_missed, at once.
- Dialed leg picked up and ended, agent leg ended: answered, at once.
- Agent leg picked up and hung up, no dialed leg: agent_hung_up, after the settle time.
- No RequestID, every leg over: answered, or missed if no leg was picked up, at once.
- One leg ended, another silent or unknown: closed by timeout after the leg grace time.
- No event for the maximum call time: closed by timeout.

What is inferred if an event is lost:

- A leg with a hangup, but neither pickup nor missed, counts as missed after the settle time. It counts as picked up if
  IsCallAnswered or PickupTimestampUTC of the hangup say so.
- If there is a dialed leg, an agent leg was picked up: see `parties.lost_pickups`. The call waits for the settle time.
- Closed by timeout: the call is not complete, and has the outcome that its facts prove, else unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from shared.domain.leg import Leg, LegState
from shared.domain.parties import Sides, lost_pickups, sides


class Outcome(StrEnum):
    """End of a call."""

    ANSWERED = "answered"
    DIALED_MISSED = "dialed_missed"
    AGENT_MISSED = "agent_missed"
    AGENT_HUNG_UP = "agent_hung_up"
    MISSED = "missed"
    UNKNOWN = "unknown"


class CloseReason(StrEnum):
    """Rule by which a call was closed."""

    HANGUP = "hangup"
    MISSED = "missed"
    SETTLED = "settled"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds to wait for callbacks that may never arrive."""

    settle_s: float
    leg_grace_s: float
    max_call_s: float

    @property
    def waits_s(self) -> tuple[float, ...]:
        """Return the silences that can close a call, the shortest first."""
        return tuple(sorted((self.settle_s, self.leg_grace_s, self.max_call_s)))


@dataclass(frozen=True, slots=True)
class Closing:
    """End of a call and its reason. `complete` is false if events are missing and a timer closed the call."""

    outcome: Outcome
    reason: CloseReason

    @property
    def complete(self) -> bool:
        return self.reason is not CloseReason.TIMEOUT


def close(legs: list[Leg], quiet_s: float, policy: Policy, *, is_pair: bool) -> tuple[list[Leg], Closing | None]:
    """Apply the rules after `quiet_s` seconds without an event; returns the legs with inferred states."""
    inferred = legs
    if any(leg.state is LegState.RINGING for leg in legs):
        lost = lost_pickups(sides(legs, is_pair=is_pair)) if is_pair else ()
        inferred = [_infer(leg, settled=quiet_s >= policy.settle_s, is_pickup_lost=leg in lost) for leg in legs]
    return inferred, _closing(inferred, quiet_s, policy, is_pair=is_pair)


def _infer(leg: Leg, *, settled: bool, is_pickup_lost: bool) -> Leg:
    """Replace the state of a leg whose event was lost. Such a leg seems to ring."""
    if is_pickup_lost:
        return replace(leg, state=LegState.ENDED if leg.is_over else LegState.TALKING, inferred=True)
    if leg.is_ambiguous and settled:
        return replace(leg, state=LegState.ENDED if leg.seems_answered else LegState.MISSED, inferred=True)
    return leg


def _closing(legs: list[Leg], quiet_s: float, policy: Policy, *, is_pair: bool) -> Closing | None:
    """Return how the call is closed by its events or its silence, or None."""
    by_events = _pair_closing(legs, settled=quiet_s >= policy.settle_s) if is_pair else _single_closing(legs)
    if by_events is not None:
        return by_events
    one_leg_over = any(leg.is_over for leg in legs)
    if quiet_s >= policy.max_call_s or (one_leg_over and quiet_s >= policy.leg_grace_s):
        return Closing(_likely_outcome(legs, is_pair=is_pair), CloseReason.TIMEOUT)
    return None


def _pair_closing(legs: list[Leg], *, settled: bool) -> Closing | None:
    agents, dialed = sides(legs, is_pair=True)
    if not agents or not all(leg.is_over and not leg.is_ambiguous for leg in legs):
        return None
    if any(leg.inferred for leg in legs) and not settled:
        return None  # the missing event may only be late
    has_inferred_miss = any(leg.state is LegState.MISSED and leg.inferred for leg in legs)
    if dialed:
        if any(leg.was_answered for leg in dialed):
            return Closing(Outcome.ANSWERED, CloseReason.HANGUP)
        return Closing(Outcome.DIALED_MISSED, CloseReason.SETTLED if has_inferred_miss else CloseReason.MISSED)
    if any(leg.was_answered for leg in agents):
        return Closing(Outcome.AGENT_HUNG_UP, CloseReason.SETTLED) if settled else None
    return Closing(Outcome.AGENT_MISSED, CloseReason.SETTLED if has_inferred_miss else CloseReason.MISSED)


def _single_closing(legs: list[Leg]) -> Closing | None:
    if not legs or not all(leg.is_over and not leg.is_ambiguous for leg in legs):
        return None
    if any(leg.was_answered for leg in legs):
        return Closing(Outcome.ANSWERED, CloseReason.HANGUP)
    return Closing(Outcome.MISSED, CloseReason.SETTLED if any(leg.inferred for leg in legs) else CloseReason.MISSED)


def _likely_outcome(legs: list[Leg], *, is_pair: bool) -> Outcome:
    """Return the outcome that the facts prove when a timer closes the call."""
    agents, dialed = sides(legs, is_pair=True) if is_pair else Sides((), legs)
    if any(leg.was_answered for leg in dialed):
        return Outcome.ANSWERED
    if dialed and all(leg.state is LegState.MISSED for leg in dialed):
        return Outcome.DIALED_MISSED if is_pair else Outcome.MISSED
    if not dialed and agents and all(leg.state is LegState.MISSED for leg in agents):
        return Outcome.AGENT_MISSED
    return Outcome.UNKNOWN
