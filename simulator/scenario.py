"""The course of a simulated call and its expected record. Pure: the same random numbers produce the same call."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.domain.adapter_link import Placeholder
from shared.domain.closing import Outcome
from shared.domain.leg import LegState
from shared.domain.leg_event import CallType, LegEvent
from shared.domain.parties import EndedBy


class Scenario(StrEnum):
    """The kinds of calls."""

    ANSWERED = "answered"
    AGENT_MISSED = "agent_missed"
    DIALED_MISSED = "dialed_missed"
    AGENT_HANGS_UP_FIRST = "agent_hangs_up_first"


@dataclass(frozen=True, slots=True)
class LegTruth:
    """The expected record of one leg. `extension` is that of the agent's leg, `number` that of the dialed leg."""

    call_type: CallType
    call_id: str
    guid: str
    state: LegState
    recorded: bool
    talk_seconds: float
    extension: str | None = None
    number: str | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """The expected record of one call.

    Attributes:
        ended_by: None without a conversation. `unknown` if both hangups have the same millisecond.
        dropped: number of callbacks that were never sent.
    """

    request_id: int
    outcome: Outcome
    agent: LegTruth
    dialed: LegTruth | None
    ended_by: EndedBy | None = None
    dropped: int = 0

    @property
    def legs(self) -> tuple[LegTruth, ...]:
        return (self.agent, self.dialed) if self.dialed else (self.agent,)


@dataclass(frozen=True, slots=True)
class Step:
    """One callback: its time (seconds after the dial) and its values by placeholder."""

    at_s: float
    values: Mapping[str, str]


_EVENT_CODES = {event: str(code) for code, event in enumerate(LegEvent)}
_TYPE_CODES = {kind: str(code) for code, kind in enumerate(CallType, start=1)}
_AGENTS = (("1001", "Kasper"), ("1002", "Søren Ågård"), ("1003", "Ana María"), ("1004", "O'Neil & Co"))


@dataclass(frozen=True, slots=True)
class Dialed:
    """An accepted dial request. `at_ms` is its time (ms since 1970)."""

    request_id: int
    first_call_id: int
    agent: str
    number: str
    at_ms: int
    recorded: bool


def play(scenario: Scenario, dialed: Dialed, rng: random.Random, *, speed: float) -> tuple[Truth, list[Step]]:
    """Return the expected record and the callbacks of a call; times are divided by `speed`."""
    offsets = _offsets(scenario, rng, speed)
    over = max(offsets.values())
    agent_state = LegState.MISSED if scenario is Scenario.AGENT_MISSED else LegState.ENDED
    agent = _leg_truth(CallType.API, agent_state, dialed, offsets, rng)
    callee: LegTruth | None = None
    if scenario is not Scenario.AGENT_MISSED:
        callee_state = LegState.MISSED if scenario is Scenario.DIALED_MISSED else LegState.ENDED
        callee = _leg_truth(CallType.OUTGOING, callee_state, dialed, offsets, rng)
    legs = {CallType.API: agent, CallType.OUTGOING: callee}
    steps = [
        Step(at_s, _values(dialed, kind, event, leg, offsets))
        for (kind, event), at_s in sorted(offsets.items(), key=lambda item: item[1])
        if (leg := legs[kind]) is not None and event is not LegEvent.START and at_s <= over
    ]
    return Truth(dialed.request_id, _OUTCOMES[scenario], agent, callee, _ended_by(scenario, offsets)), steps


_OUTCOMES = {
    Scenario.ANSWERED: Outcome.ANSWERED,
    Scenario.AGENT_HANGS_UP_FIRST: Outcome.ANSWERED,
    Scenario.AGENT_MISSED: Outcome.AGENT_MISSED,
    Scenario.DIALED_MISSED: Outcome.DIALED_MISSED,
}

_Offsets = dict[tuple[CallType, LegEvent], float]


def _offsets(scenario: Scenario, rng: random.Random, speed: float) -> _Offsets:
    """Draw the times of all events, in seconds after the dial. A missed leg reports hangup, then missed at once."""
    agent, callee = CallType.API, CallType.OUTGOING
    rings_s, talks_s = rng.uniform(2, 8) / speed, rng.uniform(10, 60) / speed
    offsets: _Offsets = {(agent, LegEvent.START): 0.0}
    if scenario is Scenario.AGENT_MISSED:
        return offsets | {(agent, LegEvent.HANGUP): rings_s, (agent, LegEvent.MISSED): rings_s + 0.001}
    offsets |= {(agent, LegEvent.PICKUP): rings_s, (callee, LegEvent.START): rings_s}
    answered_s = rings_s + rng.uniform(2, 15) / speed
    if scenario is Scenario.DIALED_MISSED:
        offsets |= {(callee, LegEvent.HANGUP): answered_s, (callee, LegEvent.MISSED): answered_s + 0.001}
        return offsets | {(agent, LegEvent.HANGUP): answered_s + 1 / speed}
    first, second = (agent, callee) if scenario is Scenario.AGENT_HANGS_UP_FIRST else (callee, agent)
    over_s = answered_s + talks_s
    return offsets | {
        (callee, LegEvent.PICKUP): answered_s,
        (first, LegEvent.HANGUP): over_s,
        (second, LegEvent.HANGUP): over_s + 0.5 / speed,
    }


def _ended_by(scenario: Scenario, offsets: _Offsets) -> EndedBy | None:
    if _OUTCOMES[scenario] is not Outcome.ANSWERED:
        return None
    agent_ms, dialed_ms = (round(offsets[kind, LegEvent.HANGUP] * 1000) for kind in (CallType.API, CallType.OUTGOING))
    if agent_ms == dialed_ms:
        return EndedBy.UNKNOWN
    return EndedBy.AGENT if agent_ms < dialed_ms else EndedBy.DIALED


def _leg_truth(kind: CallType, state: LegState, dialed: Dialed, offsets: _Offsets, rng: random.Random) -> LegTruth:
    over_s = offsets[kind, LegEvent.HANGUP]
    raw = f"{rng.getrandbits(128):032x}"
    guid = f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
    call_id = dialed.first_call_id + (kind is CallType.OUTGOING)
    recorded = dialed.recorded and state is LegState.ENDED
    talk_s = over_s - offsets.get((kind, LegEvent.PICKUP), over_s)
    is_agent = kind is CallType.API
    extension, number = (dialed.agent, None) if is_agent else (None, dialed.number)
    return LegTruth(kind, str(call_id), guid, state, recorded, talk_s, extension, number)


def _values(dialed: Dialed, kind: CallType, event: LegEvent, leg: LegTruth, offsets: _Offsets) -> dict[str, str]:
    is_over = event in (LegEvent.HANGUP, LegEvent.MISSED)

    def timestamp(of: LegEvent) -> str:
        at_s = offsets.get((kind, of))
        return "" if at_s is None else str(dialed.at_ms + round(at_s * 1000))

    agent_name = dict(_AGENTS).get(dialed.agent, "Administrator")
    url = f"https://localhost:8080/_cros_/master/?uid=form_faster_downloadcall&target=self&sectok={SECTOK}&nId={leg.call_id}"
    return {
        Placeholder.CALL_TYPE_NAME: kind,
        Placeholder.CALL_TYPE_CODE: _TYPE_CODES[kind],
        Placeholder.EVENT_NAME: event,
        Placeholder.EVENT_CODE: _EVENT_CODES[event],
        Placeholder.CALL_ID: leg.call_id,
        Placeholder.REQUEST_ID: str(dialed.request_id),
        Placeholder.GUID: leg.guid,
        Placeholder.STARTED: timestamp(LegEvent.START),
        Placeholder.PICKED_UP: timestamp(LegEvent.PICKUP) if is_over or event is LegEvent.PICKUP else "",
        Placeholder.ENDED: timestamp(LegEvent.HANGUP) if is_over else "",
        Placeholder.IS_ANSWERED: str(int(leg.state is LegState.ENDED)) if is_over else "",
        Placeholder.IS_RECORDED: str(int(leg.recorded)) if is_over else "",
        Placeholder.RECORDING_URL: url if is_over and leg.recorded else "",
        Placeholder.CALLER_ID: dialed.number,
        Placeholder.AGENT_EXTENSION: dialed.agent,
        Placeholder.AGENT: agent_name,
    }


SECTOK = "3511b272f4fb03ecf900b80b1cc5b8fe"
"""The token in recording links, from the vendor's example. Requests with another token get the log-in page."""
