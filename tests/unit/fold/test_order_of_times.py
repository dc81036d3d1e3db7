"""In a record no time contradicts another: start, pickup and end of each leg, and of the call, are in this order."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from shared.domain.call_event import call_record
from shared.domain.facts import facts_of
from shared.domain.pbx_clock import estimate_fact, needs_estimate
from tests.helpers.folding import ADAPTER, T0, Published, at, callback, timer
from tests.helpers.records import A, D, record

NAMES = {"start": "Start", "pickup": "Pickup", "end": "End"}


def assert_ordered(data: Mapping[str, Any], why: object = None) -> None:
    legs = [leg for leg in (data["agent"], data["dialed"], *data["other_legs"]) if leg]
    rows = [[leg["started_at"], leg["picked_up_at"], leg[end]] for leg in legs for end in ("hung_up_at", "missed_at")]
    for row in (*rows, [data["started_at"], data["answered_at"], data["ended_at"]]):
        known = [time for time in row if time is not None]
        assert known == sorted(known), (row, why)
    durations = [data["ring_seconds"], data["talk_seconds"], *(leg["ring_seconds"] for leg in legs)]
    assert all(seconds is None or seconds >= 0 for seconds in durations), (durations, why)


def _ms(seconds: float) -> int:
    return round((T0.timestamp() + seconds) * 1000)


def _random_record(rng: random.Random) -> tuple[dict[str, Any], list[str]]:
    """Return the record of a call whose callbacks are late, lost, repeated, or dated by a wrong clock, and these callbacks."""
    ahead_s = rng.choice((0.0, 0.4, -0.4, 30.0, -30.0, 3600.0, -3600.0, rng.uniform(-300, 300)))
    is_nonsense, is_late, jumps = rng.random() < 0.2, rng.random() < 0.2, rng.random() < 0.2
    estimate_s = rng.choice((None, ahead_s, ahead_s + rng.uniform(-2, 2), rng.uniform(-100, 100)))
    history, lines = Published(), []
    if rng.random() < 0.3:
        history.facts["dial"] = at(rng.uniform(0, 40))
    is_pair = rng.random() < 0.8
    legs = [("API", 1), ("Outgoing", 2), ("API", 3)][: rng.choice((1, 2, 2, 3))] if is_pair else [("Incoming", 1)]
    for kind, call_id in legs:
        times = dict(
            zip(NAMES, sorted(rng.choice((5, 10, rng.uniform(0, 100))) + after_s for after_s in (0, 20, 50)), strict=True)
        )
        for event in rng.sample(("start", "pickup", "hangup", "missed"), rng.randint(1, 4)):
            delay_s = rng.choice((0, 0, 0.3, rng.uniform(0, 60)))
            received_s = rng.uniform(0, 200) if is_late else times.get(event, times["end"]) + delay_s
            wrong_s = rng.choice((ahead_s, 0)) if jumps else ahead_s
            dated = {name: when + wrong_s for name, when in times.items() if rng.random() < 0.5}
            dated = {name: rng.uniform(-200, 300) if is_nonsense else when for name, when in dated.items()}
            query = "".join(f"&{NAMES[name]}={_ms(when)}" for name, when in dated.items())
            request = "&RequestID=513" if is_pair else ""
            line = f"CallType={kind}&CallID={call_id}&Event={event}{request}{query}"
            lines.append(f"{received_s:.3f} {line} { ({name: round(when, 3) for name, when in dated.items()}) }")
            event_ = callback(received_s, line)
            history.fold([event_])
            facts = facts_of(event_, ADAPTER)[1]
            if estimate_s is not None and needs_estimate(facts):
                history.facts |= dict([estimate_fact(facts, estimate_s)])
    history.fold([timer(20_000, str(history.key.call))])
    data: dict[str, Any] = orjson.loads(orjson.dumps(call_record(history.call(), 1)))
    return data, [f"ahead {ahead_s} estimate {estimate_s}", *lines]


@pytest.mark.parametrize(
    ("lines", "times"),
    [
        # The PBX is 30 s behind. Nothing shows that, because the callback of the pickup was lost and the hangup has no timestamp of its own.
        ((f"0 {A} start", f"25 {A} hangup Pickup={_ms(5 - 30)}"), (None, at(-25), at(25), None)),
        # A hangup is received with its missed. A pickup that is received between them took place before.
        ((f"0 {A} start", f"9 {A} missed", f"10 {A} pickup", f"12 {A} hangup"), (at(0), at(9), at(12), at(9))),
        ((f"9 {A} missed", f"20 {A} pickup", f"24 {A} hangup Pickup={_ms(5)}"), (None, at(5), at(24), at(9))),
    ],
)
def test_a_time_that_contradicts_others_is_left_out(lines: tuple[str, ...], times: tuple[str | None, ...]) -> None:
    data = record(*lines, f"60 {D} missed")
    leg = data["agent"]
    assert_ordered(data)
    assert tuple(leg[name] for name in ("started_at", "picked_up_at", "hung_up_at", "missed_at")) == times


def test_no_time_of_a_record_contradicts_another() -> None:
    for seed in range(600):
        assert_ordered(*_random_record(random.Random(seed)))  # noqa: S311 - repeatable on purpose
