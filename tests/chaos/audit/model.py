"""What a call must be, from the callbacks of it: a second, slow reading of what the documents promise.

It imports nothing of the product. `docs/record.md` and the table "when is a call complete" are its only source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from urllib.parse import parse_qsl

AGENT, DIALED = "API", "Outgoing"
TALK_SLACK_S = 1.5


@dataclass(frozen=True, slots=True)
class Callback:
    """One callback as FocalScope sends it with the link that has every placeholder."""

    call: str
    call_type: str
    call_id: str
    event: str
    guid: str
    recorded: bool
    seems_answered: bool
    picked_up_ms: int
    ended_ms: int

    @property
    def at_s(self) -> float:
        """The time of the event by the PBX, or 0."""
        return (self.picked_up_ms if self.event == "pickup" else self.ended_ms) / 1000


@dataclass(frozen=True, slots=True)
class Leg:
    """What a record says of a leg."""

    call_type: str
    call_id: str
    guid: str
    state: str
    recorded: bool


@dataclass(frozen=True, slots=True)
class Record:
    """What is compared of a record; `talk_s` is None where the callbacks do not fix it.

    `is_clock_known` is false if the talk time is not compared: the clock of the PBX seems to have been set during the call.
    """

    outcome: str
    complete: bool
    close_reason: str
    agent: Leg | None
    dialed: Leg | None
    others: frozenset[Leg]
    talk_s: float | None = None
    is_clock_known: bool = True

    def explains(self, published: Record) -> bool:
        """Return whether a published record is this one; a talk time may be off by a little, or be unknown here."""
        talk_s = self.talk_s if published.is_clock_known else None
        if talk_s is not None and (published.talk_s is None or abs(talk_s - published.talk_s) > TALK_SLACK_S):
            return False
        # A reason alone amends no record: where a missed event came late, the first record says "settled".
        reasons = {self.close_reason, published.close_reason}
        if len(reasons) > 1 and reasons != {"missed", "settled"}:
            return False
        mine = (self.outcome, self.complete, self.agent, self.dialed, self.others)
        return mine == (published.outcome, published.complete, published.agent, published.dialed, published.others)


def read_callback(query: str) -> Callback:
    """Read the query of a callback."""
    values = dict(parse_qsl(query, keep_blank_values=True))
    request_id, call_id = values.get("RequestID", ""), values["CallID"]
    picked_up_ms = int(values.get("PickupTimestampUTC") or 0)
    return Callback(
        call=request_id if request_id not in {"", "0"} else f"call-{call_id}",
        call_type=values["CallType"],
        call_id=call_id,
        event=values["Event"],
        guid=values.get("Guid", ""),
        recorded=values.get("IsCallRecorded") == "1",
        seems_answered=values.get("IsCallAnswered") == "1" or picked_up_ms > 0,
        picked_up_ms=picked_up_ms,
        ended_ms=int(values.get("EndTimestampUTC") or 0),
    )


def read_record(data: Mapping[str, Any]) -> Record:
    """Read the record of a published event."""

    def leg(value: Mapping[str, Any] | None) -> Leg | None:
        if value is None:
            return None
        return Leg(value["call_type"], value["call_id"], value["guid"], value["state"], value["recorded"])

    others = frozenset(other for value in data["other_legs"] if (other := leg(value)))
    agent, dialed = leg(data["agent"]), leg(data["dialed"])
    return Record(data["outcome"], data["complete"], data["close_reason"], agent, dialed, others, data["talk_seconds"])


def subsets(certain: frozenset[Callback], possible: Iterable[Callback], *, limit: int = 10) -> Iterator[frozenset[Callback]]:
    """Yield what may have been received: all that is certain, with any of what is only possible; the most first."""
    rest = sorted(set(possible) - certain, key=lambda callback: (callback.call_id, callback.event))[:limit]
    for size in range(len(rest), -1, -1):
        for chosen in combinations(rest, size):
            yield certain | frozenset(chosen)


def record_of(callbacks: frozenset[Callback]) -> Record | None:
    """Return the record of a call of which these callbacks were received, and nothing more for as long as it takes.

    None without a callback. Several legs on one side are beyond this model: the simulation has none.
    """
    legs: dict[tuple[str, str], list[Callback]] = {}
    for callback in callbacks:
        legs.setdefault((callback.call_type, callback.call_id), []).append(callback)
    if not legs:
        return None
    is_pair = not next(iter(callbacks)).call.startswith("call-")
    if not is_pair:
        return _single(legs)
    return _pair(legs)


@dataclass(slots=True)
class _LegState:
    """The end of one leg: whether somebody answered it (None: unknown), whether that is inferred, whether it is over."""

    heard: list[Callback]
    answered: bool | None
    inferred: bool
    over: bool

    def leg(self) -> Leg:
        first = self.heard[0]
        if self.answered is None:
            state = "ringing"
        elif self.answered:
            state = "ended" if self.over else "talking"
        else:
            state = "missed"
        guid = next((callback.guid for callback in self.heard if callback.guid), "")
        return Leg(first.call_type, first.call_id, guid, state, any(callback.recorded for callback in self.heard))

    @property
    def picked_up_ms(self) -> int:
        return max(callback.picked_up_ms for callback in self.heard)

    @property
    def ended_ms(self) -> int:
        return max(callback.ended_ms for callback in self.heard)


def _read_leg(heard: list[Callback], *, dialed_out: bool) -> _LegState:
    events = {callback.event for callback in heard}
    over = bool(events & {"hangup", "missed"})
    if "pickup" in events:
        return _LegState(heard, answered=True, inferred=False, over=over)
    if "missed" in events:
        return _LegState(heard, answered=False, inferred=False, over=True)
    if dialed_out:  # FocalScope dials out only after the agent has picked up
        return _LegState(heard, answered=True, inferred=True, over=over)
    if "hangup" in events:
        return _LegState(heard, answered=any(callback.seems_answered for callback in heard), inferred=True, over=True)
    return _LegState(heard, answered=None, inferred=False, over=False)


def _single(legs: Mapping[tuple[str, str], list[Callback]]) -> Record:
    (heard,) = legs.values()
    state = _read_leg(heard, dialed_out=False)
    leg = state.leg()
    if not state.over:
        outcome = "unknown" if state.answered is None else "answered"
        return Record(outcome, complete=False, close_reason="timeout", agent=leg, dialed=None, others=frozenset())
    if state.answered:
        return Record("answered", complete=True, close_reason="hangup", agent=leg, dialed=None, others=frozenset())
    reason = "settled" if state.inferred else "missed"
    return Record("missed", complete=True, close_reason=reason, agent=leg, dialed=None, others=frozenset())


def _pair(legs: Mapping[tuple[str, str], list[Callback]]) -> Record:
    sides = {kind: [heard for (call_type, _), heard in legs.items() if call_type == kind] for kind in (AGENT, DIALED)}
    if any(len(side) > 1 for side in sides.values()) or len(legs) != sum(map(len, sides.values())):
        raise ValueError("more legs than this model knows")
    far = _read_leg(sides[DIALED][0], dialed_out=False) if sides[DIALED] else None
    near = _read_leg(sides[AGENT][0], dialed_out=far is not None) if sides[AGENT] else None
    outcome, complete, reason = _closing(near, far)
    talk_s = None
    if far and near and far.answered and far.over and near.over and far.picked_up_ms and far.ended_ms and near.ended_ms:
        talk_s = (min(far.ended_ms, near.ended_ms) - far.picked_up_ms) / 1000
    agent, dialed = near.leg() if near else None, far.leg() if far else None
    return Record(outcome, complete, reason, agent, dialed, frozenset(), talk_s)


def _closing(near: _LegState | None, far: _LegState | None) -> tuple[str, bool, str]:
    """Return outcome, whether it is complete, and the reason for which the call is closed."""
    if near and near.over and (far is None or far.over):
        guessed_miss = any(leg.answered is False and leg.inferred for leg in (near, far) if leg)
        missed = "settled" if guessed_miss else "missed"
        if far:
            return ("answered", True, "hangup") if far.answered else ("dialed_missed", True, missed)
        return ("agent_hung_up", True, "settled") if near.answered else ("agent_missed", True, missed)
    if far and far.answered:
        return "answered", False, "timeout"
    if far and far.answered is False:
        return "dialed_missed", False, "timeout"
    if far is None and near and near.answered is False:
        return "agent_missed", False, "timeout"
    return "unknown", False, "timeout"
