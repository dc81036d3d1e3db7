"""Who took part in a call: the leg that represents each side, the kind of the call, and the side that ended it.

A leg of type `API` is the agent's, a leg of type `Outgoing` is the dialed party's. In a call without RequestID, every leg is the
agent's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from shared.domain.leg import Leg, LegState
from shared.domain.leg_event import CallType
from shared.domain.times import seconds_between

# Callbacks overtake each other, so the order of two receipts says nothing if they are this close.
_ORDERED_S = 1.0


class EndedBy(StrEnum):
    """The side that ended a conversation. `unknown` if the order of the hangups is unknown."""

    AGENT = "agent"
    DIALED = "dialed"
    UNKNOWN = "unknown"


class Sides(NamedTuple):
    """The legs of each side, the first seen first."""

    agent: Sequence[Leg]
    dialed: Sequence[Leg]


def sides(legs: Sequence[Leg], *, is_pair: bool) -> Sides:
    """Split legs by side. Legs of other types belong to no side of a pair."""
    if not is_pair:
        return Sides(legs, ())
    agent, dialed = ([leg for leg in legs if leg.call_type is kind] for kind in (CallType.API, CallType.OUTGOING))
    return Sides(agent, dialed)


def representatives(both: Sides) -> tuple[Leg | None, Leg | None]:
    """Return the leg that represents each side. For the dialed one it is the first that was answered, else the first."""
    dialed = _first_answered(both.dialed)
    return agent_of(dialed, both.agent), dialed


def agent_of(dialed: Leg | None, agents: Sequence[Leg]) -> Leg | None:
    """Return the agent leg that a dialed leg was connected with, or waited for until it was missed.

    It is the first that was answered, and was up when the dialed leg was picked up or missed. If none was, it is the last one
    to end. Without a dialed leg it is the first that was answered, and if none was, the first.
    """
    answered = [leg for leg in agents if leg.was_answered]
    if dialed is None or len(answered) <= 1:
        return _first_answered(agents)
    last = max(answered, key=lambda leg: min(filter(None, (leg.hung_up_at, leg.missed_at)), default="~"))
    return next((leg for leg in answered if _was_up(leg, dialed)), last)


def _first_answered(side: Sequence[Leg]) -> Leg | None:
    return next((leg for leg in side if leg.was_answered), side[0] if side else None)


def _was_up(agent: Leg, dialed: Leg) -> bool:
    """Return whether an agent leg was up when a dialed leg was picked up or missed. The PBX's clock decides if it is known."""
    for times, of_dialed, least_s in (
        (agent.pbx, dialed.pbx, 0.0),
        (agent.axis, dialed.axis, _ORDERED_S),
        (agent.received, dialed.received, _ORDERED_S),
    ):
        then = of_dialed.pickup if dialed.was_answered else of_dialed.end
        for first, last in ((times.end, then), (then, times.pickup)):
            if (seconds_between(first, last) or 0.0) > least_s:
                return False
        if None not in (times.end, times.pickup, then):
            return True
    return True


def lost_pickups(both: Sides) -> Sequence[Leg]:
    """Return the agent legs whose pickup must have been lost, because FocalScope has dialed out.

    These are the legs that were answered by the adapter's own values. If no agent leg was answered, it is the last one with
    neither pickup nor missed: FocalScope tries one agent after the other.
    """
    silent = [leg for leg in both.agent if leg.state is LegState.RINGING] if both.dialed else []
    likely = [leg for leg in silent if leg.seems_answered]
    if likely or any(leg.was_answered for leg in both.agent):
        return likely
    return silent[-1:]


def ended_by(both: Sides, *, is_pair: bool) -> EndedBy | None:
    """Return the side of a pair whose last answered leg hung up first; None without a conversation.

    The PBX's clock decides if it has all ends, else the receipts of the hangups. A call of one leg has no order of hangups.
    """
    answered = [[leg for leg in side if leg.was_answered] for side in both]
    if not is_pair:
        talked = any(leg.call_type is not CallType.LOGIN for leg in answered[0])
        return EndedBy.UNKNOWN if talked else None
    if not all(answered):
        return None
    for ends, least_s in (
        (_last_ends([[leg.pbx.end for leg in side] for side in answered]), 0.0),
        (_last_ends([[leg.received.end for leg in side] for side in answered]), _ORDERED_S),
    ):
        if ends is not None and ends[0] != ends[1]:
            first, last = sorted(ends)
            if (seconds_between(first, last) or 0.0) >= least_s:
                return EndedBy.AGENT if ends[0] == first else EndedBy.DIALED
    return EndedBy.UNKNOWN


def _last_ends(ends: Iterable[Sequence[str | None]]) -> tuple[str, str] | None:
    """Return the latest end of each side; None if an end is unknown."""
    latest = [max(filter(None, side)) if all(side) else None for side in ends]
    agent, dialed = latest
    return None if agent is None or dialed is None else (agent, dialed)
