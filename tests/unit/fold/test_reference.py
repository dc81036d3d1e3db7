"""The fold against an obvious second implementation: any order, any repeats, any split into batches, losses and timers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.call import Call
from shared.domain.call_event import call_event, call_record
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, TimerEvent
from shared.domain.revision_summary import amends, summary
from tests.helpers.checked_events import problems_of_event
from tests.helpers.folding import Published, annotation, callback, seconds_of, timer
from tests.helpers.reference_fold import (
    Happening,
    Times,
    Verdict,
    Who,
    first_use,
    times,
    verdict,
    who,
    without_annotations,
    written_about,
)
from tests.helpers.volume import sizes

Told = CallbackEvent | TimerEvent | AnnotationEvent
TYPES = {"agent": "API", "dialed": "Outgoing"}
SHARES = 10


def events_of(happenings: Sequence[Happening]) -> list[Told]:
    return [_event_of(*happening) for happening in happenings]


def _event_of(seconds: float, side: str, call_id: str, what: str) -> Told:
    if side == "annotation":
        return annotation(seconds, call_id, what)
    if side == "timer":
        return timer(seconds)
    return callback(seconds, f"CallType={TYPES[side]}&CallID={call_id}&Event={what}&RequestID=513")


def written(call: Call, bodies: Mapping[str, str]) -> list[tuple[float, str]]:
    """Return the annotations of a record by time and text."""
    return [(seconds_of(each["at"]), str(each["body"]["text"])) for each in call_record(call, 1, None, bodies)["annotations"]]


def ended(call: Call) -> Verdict:
    return (call.closing.outcome, call.closing.complete, call.closing.reason) if call.closing else None


def who_of(call: Call) -> Who:
    agent, dialed = (leg.call_id if leg else None for leg in (call.agent, call.dialed))
    return (agent, dialed, {leg.call_id for leg in call.other_legs}, call.ended_by)


def times_of(call: Call) -> Times:
    sides = {call_type: side for side, call_type in TYPES.items()}
    return {
        (sides[leg.call_type], leg.call_id): (_seconds(leg.picked_up_at), _seconds(leg.missed_at), _seconds(leg.hung_up_at))
        for leg in call.legs
    }


def _seconds(time: str | None) -> float | None:
    return None if time is None else seconds_of(time)


def test_six_events_in_all_720_orders_are_one_call() -> None:
    happened: list[Happening] = [
        (0, "agent", "1", "start"),
        (1, "agent", "1", "pickup"),
        (3, "dialed", "2", "start"),
        (5, "dialed", "2", "pickup"),
        (33, "dialed", "2", "hangup"),
        (34, "agent", "1", "hangup"),
    ]
    events = events_of(happened)
    folds = [Published() for _ in itertools.permutations(events)]
    for fold, order in zip(folds, itertools.permutations(events), strict=True):
        published = [call for event in order if (call := fold.fold([event]))]
        assert len(published) == 1
        assert fold.facts == folds[0].facts
        assert call_record(fold.call(), 1) == call_record(folds[0].call(), 1)
    assert len(folds) == 720
    assert ended(folds[0].call()) == verdict(happened) == ("answered", True, "hangup")


def random_history(rng: random.Random) -> list[Happening]:
    """A call of which some callbacks are lost, some repeated, with timers between them."""
    legs = [("agent", "1"), ("dialed", "2"), ("dialed", "3"), ("agent", "4")][: rng.choice((1, 2, 2, 2, 3, 4, 4))]
    if rng.random() < 0.1:
        legs = legs[1:] or legs
    happened: list[Happening] = []
    for side, call_id in legs:
        told = [what for what in ("start", "pickup", "hangup", "missed") if rng.random() < 0.6]
        happened += [(rng.choice((rng.randrange(60), rng.randrange(20_000))), side, call_id, what) for what in told]
    happened += [(seconds + rng.randrange(300), *rest) for seconds, *rest in happened if rng.random() < 0.2]  # type: ignore[misc]
    happened += [(rng.choice((rng.randrange(400), rng.randrange(40_000))), "timer", "", "") for _ in range(rng.randrange(3))]
    if rng.random() < 0.3:
        keys = [rng.choice("ab") for _ in range(rng.randrange(1, 4))]
        happened += [
            (rng.randrange(50_000) + number / 8, "annotation", key, f"{key} {number}") for number, key in enumerate(keys)
        ]
    return happened


def batches(events: list[Told], rng: random.Random) -> Iterator[list[Told]]:
    while events:
        size = rng.randint(1, len(events))
        yield events[:size]
        events = events[size:]


def _check(rng: random.Random) -> None:
    happened = random_history(rng)
    shuffled = rng.sample(happened, len(happened))
    fold, once = Published(), Published()
    last = ""
    for batch in batches(events_of(shuffled), rng):
        call = fold.fold(batch)
        if call is not None:
            assert not last or amends(last, summary(call)), "a revision that changes nothing"
            last = summary(call)
    once.fold(events_of(sorted(happened)))
    assert fold.facts == once.facts
    call = fold.call()
    assert call == once.call()
    if call.closing is not None:
        assert problems_of_event(call_event(call, call_record(call, 1, "DK", fold.bodies))[2]) == []
    assert written(call, fold.bodies) == [(seconds, text) for seconds, _, text in written_about(happened)], happened
    again = happened
    happened = first_use(without_annotations(happened))
    assert ended(call) == verdict(happened), happened
    assert times_of(call) == times(happened), happened
    if call.closing:
        assert who_of(call) == who(happened), happened
        assert not amends(last, summary(call)), "the last revision tells the whole truth"
    assert fold.fold(events_of(again)) is None, "a repeat publishes nothing"


@given(st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None)
def test_any_history_ends_as_the_obvious_fold_says(rng: random.Random) -> None:
    _check(rng)


@pytest.mark.parametrize("histories", sizes(2_000, 100_000))
def test_many_histories_end_as_the_obvious_fold_says(monkeypatch: pytest.MonkeyPatch, histories: int) -> None:
    # In processes of their own: two at a time, and not slowed by what measures coverage.
    for variable in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(variable, raising=False)
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        assert sum(pool.map(_check_many, range(SHARES), repeat(histories // SHARES))) == histories


def _check_many(seed: int, histories: int) -> int:
    rng = random.Random(seed)  # noqa: S311 - a seed, no secret
    for _ in range(histories):
        _check(rng)
    return histories
