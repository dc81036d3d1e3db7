"""A PBX whose clock is wrong by seconds, minutes or a time zone: durations stay what they were, and no two clocks are mixed."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.call import Call
from shared.domain.facts import CLOCK, facts_of, leg_of
from shared.domain.pbx_clock import estimate_fact
from shared.domain.raw_event import CallbackEvent
from shared.domain.reused_legs import may_be_reused, with_own_legs
from tests.helpers.folding import ADAPTER, T0, Published, at, callback

WRONG_S = [0.0, 0.4, -0.4, 30.0, -30.0, 240.0, -240.0, 3600.0, -5 * 3600.0, 7200.25]


def _ms(seconds: float) -> int:
    return round((T0.timestamp() + seconds) * 1000)


def _send(
    received_s: float, what: str, wrong_s: float, leg: str = "CallType=API&CallID=1&RequestID=513", **told_s: float
) -> CallbackEvent:
    told = "".join(f"&{name}={_ms(seconds + wrong_s)}" for name, seconds in told_s.items())
    return callback(received_s, f"{leg}&Event={what}{told}")


def _fold(*events: CallbackEvent, now: float = 20_000) -> Call:
    history = Published()
    history.fold(events)
    return replace(history, facts=history.facts | {CLOCK: at(now)}).call()


def _lasted_s(call: Call) -> float:
    assert call.ended_at is not None
    return (datetime.fromisoformat(call.ended_at) - datetime.fromisoformat(call.started_at)).total_seconds()


@pytest.mark.parametrize("wrong_s", WRONG_S)
def test_a_missed_call_of_ten_seconds_lasts_ten_seconds(wrong_s: float) -> None:
    """It lasted 30 s when the clock was 30 s ahead, and 240 s when it was 4 minutes ahead."""
    call = _fold(*(_send(10, what, wrong_s, Start=0, End=10) for what in ("hangup", "missed")))
    assert _lasted_s(call) == 10
    assert call.agent is not None
    assert (call.agent.started_at, call.agent.missed_at, call.agent.ignored) == (at(wrong_s), at(10 + wrong_s), ())
    assert call.pbx_ahead_seconds == wrong_s


def _answered(wrong_s: float, times: tuple[str, ...], delay_s: float = 0) -> list[CallbackEvent]:
    """Return an answered pair whose adapter sends some timestamps with every event of which the time is known."""
    legs = {
        "CallType=API&CallID=1&RequestID=513": (0.0, 4.0, 40.0),
        "CallType=Outgoing&CallID=2&RequestID=513": (5.0, 12.0, 39.0),
    }
    events = []
    for leg, (start_s, pickup_s, end_s) in legs.items():
        known = {"Start": start_s, "Pickup": pickup_s}
        for what, happened_s, told in (("pickup", pickup_s, known), ("hangup", end_s, known | {"End": end_s})):
            some = {name: seconds for name, seconds in told.items() if name in times}
            events.append(_send(happened_s + delay_s, what, wrong_s, leg, **some))
    return events


@pytest.mark.parametrize("wrong_s", WRONG_S)
@pytest.mark.parametrize("times", [("Start", "Pickup", "End"), ("Pickup", "End"), ("Start", "End"), ("Pickup",), ("End",), ()])
def test_no_duration_depends_on_the_clock_of_the_pbx(wrong_s: float, times: tuple[str, ...]) -> None:
    call = _fold(*_answered(wrong_s, times))
    assert call.talk_seconds == 27
    assert call.ring_seconds == (7 if "Start" in times else 8)
    assert _lasted_s(call) == (40 if "Start" in times else 36)


@pytest.mark.parametrize("wrong_s", [30.0, -30.0, 240.0, 3600.0])
def test_where_no_event_has_its_own_timestamp_no_duration_mixes_the_clocks(wrong_s: float) -> None:
    call = _fold(*_answered(wrong_s, ("Start",)))
    assert call.talk_seconds == 27
    assert call.ring_seconds in {None, 8}, "from the receipt of the agent's pickup, if the start contradicts the receipts"


def test_both_ends_told_by_the_pbx_need_no_offset() -> None:
    events = [event for event in _answered(3600, ("Start", "Pickup")) if "Event=pickup" not in event.query]
    assert _fold(*events).ring_seconds == 7


def test_a_dial_and_a_callback_without_timestamp_are_placed_on_the_axis_of_the_pbx() -> None:
    history = Published()
    history.fold([_send(10, "missed", 240, End=10)])
    call = replace(history, facts=history.facts | {"dial": at(0)}).call()
    assert (call.started_at, call.ended_at) == (at(240), at(250))


@pytest.mark.parametrize("jump_s", [600.0, 3600.0])
def test_a_clock_that_is_set_ahead_during_the_call_makes_no_talk_longer(jump_s: float) -> None:
    before, after = _answered(0, ("Pickup", "End")), _answered(jump_s, ("End",))
    call = _fold(before[0], before[2], after[1], after[3])
    assert call.talk_seconds == 27


@pytest.mark.parametrize("jump_s", [-600.0, -3600.0])
def test_a_clock_that_is_set_back_during_the_call_makes_no_talk_negative(jump_s: float) -> None:
    before, after = _answered(0, ("Pickup", "End")), _answered(jump_s, ("End",))
    call = _fold(before[0], before[2], after[1], after[3])
    assert call.talk_seconds == 27
    assert {leg.ignored for leg in call.legs} == {("end",)}


def test_an_event_with_an_estimate_still_shows_by_its_guid_that_its_call_id_was_used_again() -> None:
    event = facts_of(_send(3 * 86_400, "missed", 0, Start=3 * 86_400 - 10), ADAPTER)[1]
    event[1:1] = [estimate_fact(event, 0.2), ("leg:API:1:guid", "g2")]
    known = {"leg:API:1:missed": at(0), "leg:API:1:guid": "g1"}
    assert may_be_reused([event], known, 14400)
    assert leg_of(with_own_legs([event], known, 14400)[0]) == "leg:API:1.2:"


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(WRONG_S))
def test_delays_reorder_and_repeat_callbacks_and_the_durations_of_the_pbx_stay(rng: random.Random, wrong_s: float) -> None:
    events = _answered(wrong_s, ("Start", "Pickup", "End"))
    late = [
        replace(event, received_at=at((datetime.fromisoformat(event.received_at) - T0).total_seconds() + rng.choice((0, 1, 50))))
        for event in events
    ]
    call = _fold(*rng.sample([*events[:1], *late, *late], 2 * len(late) + 1))
    assert (call.talk_seconds, call.ring_seconds, _lasted_s(call)) == (27, 7, 40)
