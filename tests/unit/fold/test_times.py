"""Calls whose adapter tells times, answered flags and waits at random: the record is consistent, and silence ends it when it says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.call import Call, Status
from shared.domain.closing import CloseReason, Outcome
from shared.domain.facts import CLOCK
from shared.domain.leg_event import CallType, LegEvent
from shared.domain.raw_event import CallbackEvent
from shared.domain.times import rfc3339
from tests.helpers.folding import T0, Published, callback
from tests.helpers.volume import sizes

TIMES = ("Start", "Pickup", "End")


def _timestamps(rng: random.Random, seconds: int) -> Iterator[str]:
    """A clock that is right, wrong by minutes or by days, or none at all."""
    for name in TIMES:
        if rng.random() < 0.3:
            wrong_s = rng.choice((0, rng.randrange(-400, 400), rng.randrange(-300_000, 100_000)))
            yield f"{name}={rng.choice((0, 'x', round((T0.timestamp() + seconds + wrong_s) * 1000)))}"


def _leg(rng: random.Random, call_type: str, call_id: int, more: str) -> Iterator[CallbackEvent]:
    begun = rng.randrange(100)
    for event in LegEvent:
        if rng.random() < 0.5:
            seconds = begun + rng.randrange(200)
            told = [f"CallType={call_type}&CallID={call_id}&Event={event}{more}", *_timestamps(rng, seconds)]
            told += [f"IsCallAnswered={rng.choice('01')}"] if rng.random() < 0.3 else []
            told += [f"TotalWaitTimeMs={rng.choice((0, 5000, 'x', 99999999999))}"] if rng.random() < 0.3 else []
            yield callback(seconds, "&".join(told))


def _history(rng: random.Random) -> list[CallbackEvent]:
    legs = rng.randrange(1, 4)
    if rng.random() < 0.5:
        types = ("API", "Outgoing") if rng.random() < 0.9 else tuple(CallType)
        told = [_leg(rng, rng.choice(types), number, "&RequestID=513") for number in range(1, 1 + legs)]
    else:
        told = [_leg(rng, rng.choice(tuple(CallType)), 77, "") for _ in range(legs)]
    return [event for leg in told for event in leg]


def _at(history: Published, clock: str) -> Call:
    return replace(history, facts=history.facts | {CLOCK: clock}).call()


@pytest.mark.parametrize("examples", sizes(200, 1000))
def test_a_record_is_consistent_and_silence_ends_it_when_it_says(examples: int) -> None:
    settings(max_examples=examples, deadline=None)(given(st.randoms(use_true_random=False))(_is_consistent))()


def _is_consistent(rng: random.Random) -> None:
    events = _history(rng)
    history, shuffled = Published(), Published()
    history.fold(events)
    for event in rng.sample(events, len(events)):
        shuffled.fold([event])
    assert shuffled.facts == history.facts
    call = history.call()
    if not events:
        assert (call.closing, call.wake_at) == (None, None)
        return
    if call.closing is None:
        assert call.wake_at is not None
        assert _at(history, rfc3339(datetime.fromisoformat(call.wake_at) - timedelta(milliseconds=1))).closing is None
        call = _at(history, call.wake_at)
    assert call.closing is not None
    assert (call.status, call.wake_at) == (Status.COMPLETE, None)
    assert call.closing.complete == (call.closing.reason is not CloseReason.TIMEOUT)
    times = [time for time in (call.started_at, call.answered_at, call.ended_at) if time is not None]
    assert times == sorted(times)
    for leg in call.legs:
        assert leg.picked_up_at is None or leg.picked_up_at <= (leg.hung_up_at or leg.missed_at or leg.picked_up_at)
    assert all(seconds is None or seconds >= 0 for seconds in (call.ring_seconds, call.talk_seconds))
    if call.closing.outcome in {Outcome.MISSED, Outcome.AGENT_MISSED, Outcome.DIALED_MISSED}:
        assert (call.answered_at, call.talk_seconds) == (None, None)


@given(st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_what_an_adapter_tells_of_being_answered_changes_nothing_that_events_tell(rng: random.Random) -> None:
    """It is evidence for legs that hung up and of which no event tells whether anybody picked up."""
    events = _history(rng)
    plain = [replace(event, query=event.query.replace("IsCallAnswered=", "x=")) for event in events]
    told, bare = Published(), Published()
    told.fold(events)
    bare.fold(plain)
    silent = rfc3339(T0 + timedelta(days=1))
    with_flag, without = _at(told, silent), _at(bare, silent)
    plain_legs = {(leg.call_type, leg.call_id): leg for leg in without.legs}
    for leg in with_flag.legs:
        other = plain_legs[leg.call_type, leg.call_id]
        assert leg.state == other.state or leg.inferred or other.inferred
