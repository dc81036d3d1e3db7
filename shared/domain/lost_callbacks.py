"""Estimates the share of lost callbacks from calls that are over.

A callback proves that others of its call were sent. A leg that was picked up is hung up later, and FocalScope dials out only
after the agent has answered. These others are expected. Whether a callback is expected depends on other callbacks alone, never on
its own arrival. So if callbacks are lost independently of each other, the expected ones are lost at the same rate as all. A call
or leg whose callbacks were all lost expects nothing, so it needs no correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from shared.domain.call import Call
from shared.domain.leg import Leg, LegState
from shared.domain.leg_event import CallType

FEWEST_EXPECTED = 200
"""Fewer expected callbacks than this say nothing."""
_TALKING = frozenset({CallType.INCOMING, CallType.OUTGOING, CallType.INTERNAL})
_Z = 1.96  # 95 % of a normal distribution


class Losses(NamedTuple):
    """Callbacks that others prove to have been sent, and how many of them did not arrive."""

    expected: int = 0
    lost: int = 0


class LossEstimate(NamedTuple):
    """Estimated share of lost callbacks (0 to 1), with the bounds of a 95 % confidence interval."""

    share: float
    low: float
    high: float


def count_losses(call: Call) -> Losses:
    """Count the expected callbacks of a call that is over."""
    if call.closing is None or call.is_of_several:
        return Losses()
    arrivals: list[bool] = []
    if call.is_pair:
        _add_pair(call.legs, arrivals)
    else:
        for leg in call.legs:
            if leg.call_type in _TALKING:
                _add_leg(leg, arrivals)
    return Losses(len(arrivals), arrivals.count(False))


def estimate_losses(losses: Losses) -> LossEstimate | None:
    """Return the estimate (with Wilson's interval), or None if too few callbacks were expected."""
    expected, lost = losses
    if expected < FEWEST_EXPECTED:
        return None
    share = lost / expected
    middle = (share + _Z * _Z / (2 * expected)) / (1 + _Z * _Z / expected)
    half = _Z / (1 + _Z * _Z / expected) * sqrt(share * (1 - share) / expected + _Z * _Z / (4 * expected * expected))
    return LossEstimate(share, max(0.0, middle - half), min(1.0, middle + half))


def _add_leg(leg: Leg, arrivals: list[bool]) -> None:
    """Add for each callback that the leg itself proves whether it arrived."""
    has_pickup = _has_pickup(leg)
    if has_pickup:
        arrivals.append(leg.is_over)
    if _ended_answered(leg):
        arrivals.append(has_pickup)


def _add_pair(legs: Sequence[Leg], arrivals: list[bool]) -> None:
    """Add the same for a pair. Every callback of a dialed leg proves that an agent picked up, and hung up later."""
    has_dialed = False
    agents: list[Leg] = []
    for leg in legs:
        if leg.call_type is CallType.API:
            agents.append(leg)
        elif leg.call_type is CallType.OUTGOING:
            has_dialed = True
        else:
            continue
        _add_leg(leg, arrivals)
    if has_dialed:
        has_pickup = any(map(_has_pickup, agents))
        if not any(map(_ended_answered, agents)):
            arrivals.append(has_pickup)
        if not has_pickup:
            arrivals.append(any(leg.hung_up_at is not None and leg.missed_at is None for leg in agents))


def _has_pickup(leg: Leg) -> bool:
    """Return whether the pickup arrived."""
    return (leg.state is LegState.ENDED or leg.state is LegState.TALKING) and not leg.inferred


def _ended_answered(leg: Leg) -> bool:
    """Return whether the hangup arrived and its own values show that the leg was picked up."""
    return leg.hung_up_at is not None and (leg.has_pickup_timestamp or leg.seems_answered)
