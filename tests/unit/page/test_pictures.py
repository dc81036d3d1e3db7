"""Where things stand in pictures: legs on the axis, markers, sparklines; and text of times and sizes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.page import text
from console.page.axis import Axis, ages, axis_over, ticks
from console.page.call_models import TimelineRow
from console.page.sparkline import HEIGHT, WIDTH, sparkline
from console.page.timeline import Activity, Period, lanes, leg_names, periods, picture
from console.safe_text import plain, plain_line
from shared.domain.leg import Leg, LegState
from shared.domain.leg_event import CallType
from tests.helpers.page_fakes import AGENT_LEG, BEGAN, DIALED_LEG, at, call

AXIS = Axis(BEGAN, BEGAN + timedelta(seconds=100))
DASH = text.NOT_KNOWN
RINGING = Leg(CallType.OUTGOING, "2", at(11), LegState.RINGING, started_at=at(10))
TALKING = replace(RINGING, state=LegState.TALKING, picked_up_at=at(20))
ENDED = replace(TALKING, state=LegState.ENDED, hung_up_at=at(50))
MISSED = replace(RINGING, state=LegState.MISSED, missed_at=at(30), hung_up_at=at(30))


@pytest.mark.parametrize(
    ("leg", "expected"),
    [
        (RINGING, [Period(Activity.RINGING, at(10), at(90))]),
        (TALKING, [Period(Activity.RINGING, at(10), at(20)), Period(Activity.TALKING, at(20), at(90))]),
        (ENDED, [Period(Activity.RINGING, at(10), at(20)), Period(Activity.TALKING, at(20), at(50))]),
        (MISSED, [Period(Activity.RINGING, at(10), at(30))]),
    ],
)
def test_a_leg_rings_then_talks_until_it_is_over_or_now(leg: Leg, expected: list[Period]) -> None:
    assert periods(leg, at(90)) == expected


def test_a_pickup_without_a_start_rang_since_what_went_before() -> None:
    silent = replace(TALKING, started_at=None, first_seen_at=at(20))
    assert periods(silent, at(90))[0] == Period(Activity.TALKING, at(20), at(90))
    assert periods(silent, at(90), at(15))[0] == Period(Activity.RINGING, at(15), at(20), assumed=True)


def test_a_pickup_that_was_inferred_is_drawn_as_assumed() -> None:
    leg = Leg(CallType.API, "1", at(50), LegState.ENDED, inferred=True, hung_up_at=at(60))
    assert periods(leg, at(90), at(0)) == [Period(Activity.TALKING, at(0), at(60), assumed=True)]


def test_a_pickup_received_after_the_hangup_is_drawn_as_assumed() -> None:
    leg = replace(ENDED, picked_up_at=at(50), is_pickup_late=True)
    assert periods(leg, at(90)) == [Period(Activity.TALKING, at(10), at(50), assumed=True)]


def test_bars_lie_on_the_axis_in_percent() -> None:
    placed = lanes([ENDED], AXIS, at(90), None)[0]
    assert [(bar.x, bar.width) for bar in placed.bars] == [(10, 10), (20, 30)]
    assert placed.end == (50.0, "ended")
    assert lanes([MISSED], AXIS, at(90), None)[0].end == (30.0, "missed")
    assert lanes([TALKING], AXIS, at(90), None)[0].end is None


def test_what_began_before_the_axis_is_cut_and_marked() -> None:
    late = Axis(BEGAN + timedelta(seconds=40), BEGAN + timedelta(seconds=100))
    placed = lanes([TALKING], late, at(100), None)[0]
    assert placed.from_before
    assert placed.bars[-1].x + placed.bars[-1].width == pytest.approx(100)
    assert not lanes([TALKING], AXIS, at(90), None)[0].from_before


def test_an_end_before_the_axis_is_not_drawn_on_its_edge() -> None:
    late = Axis(BEGAN + timedelta(seconds=60), BEGAN + timedelta(seconds=100))
    assert lanes([ENDED], late, at(100), None)[0].end is None


_SECONDS = st.floats(-1e6, 1e6)
_MAYBE = st.none() | _SECONDS.map(at)


@settings(deadline=None)
@given(_SECONDS, _MAYBE, _MAYBE, _MAYBE, _MAYBE, st.sampled_from(LegState), st.sampled_from(CallType), _SECONDS)
def test_whatever_a_leg_tells_its_bars_stay_in_the_picture(  # noqa: PLR0917 - one argument a thing told
    seen: float,
    started: str | None,
    picked: str | None,
    missed: str | None,
    hung: str | None,
    state: LegState,
    kind: CallType,
    now: float,
) -> None:
    leg = Leg(kind, "1", at(seen), state, started_at=started, picked_up_at=picked, missed_at=missed, hung_up_at=hung)
    drawn = picture([leg], [], at(now), None)
    assert drawn
    for placed in (*drawn.lanes, *lanes([leg], AXIS, at(now), None)):
        for bar in placed.bars:
            assert 0 <= bar.x <= bar.x + bar.width <= 100.001
            assert bar.width > 0
    assert all(period.since <= period.until for period in periods(leg, at(now)))


def test_markers_stand_on_their_leg_where_they_arrived_with_their_delay() -> None:
    rows = [
        TimelineRow(at(0), "dial", "{}"),
        TimelineRow(at(6), "callback", "", AGENT_LEG, "pickup", at(5)),
        TimelineRow(at(15), "callback", "", DIALED_LEG, "pickup"),
        TimelineRow(at(16), "callback", "", "not-a-leg", "pickup"),
        TimelineRow(at(999), "timer", "{}"),
    ]
    derived = call()
    drawn = picture(derived.legs, rows, at(90), derived.started_at)
    assert drawn
    agent, dialed = (placed.markers for placed in drawn.lanes)
    assert [(marker.number, marker.delay_s) for marker in (*agent, *dialed)] == [(2, 1.0), (3, None)]
    assert agent[0].happened_x is not None
    assert agent[0].happened_x < agent[0].x == drawn.axis.percent(at(6))
    assert [marker.number for marker in drawn.others] == [1, 4, 5]
    assert drawn.axis.end < datetime.fromisoformat(at(100))  # a late timer does not squeeze the call


def test_markers_at_one_moment_are_put_apart_in_few_rows() -> None:
    rows = [TimelineRow(at(5 + index / 1000), "callback", "", AGENT_LEG, "hangup") for index in range(9)]
    drawn = picture(call().legs, rows, at(90), None)
    assert drawn
    assert [marker.row for marker in drawn.lanes[0].markers] == [0, 1, 2, 3, 3, 3, 3, 3, 3]
    assert drawn.lanes[0].rows == 4


def test_nothing_to_draw_is_no_picture() -> None:
    assert picture([], [], at(0), None) is None


def test_a_moment_is_drawn_on_an_axis_of_a_second() -> None:
    axis = axis_over([at(5)])
    assert axis.seconds == pytest.approx(1.08)
    assert 0 < axis.percent(at(5)) < 10


@pytest.mark.parametrize("seconds", [1, 7, 59, 61, 3599, 3601, 86_400, 30 * 86_400])
def test_ticks_are_few_round_and_in_order(seconds: int) -> None:
    axis = Axis(BEGAN, BEGAN + timedelta(seconds=seconds))
    for found in (ticks(axis), ages(axis)):
        places = [tick.x for tick in found]
        assert 2 <= len(places) <= 8
        assert places == sorted(places)
        assert len({tick.label for tick in found}) == len(places)
    assert ages(axis)[-1].label == "now"


def test_ticks_tell_times_of_day() -> None:
    assert [tick.label for tick in ticks(Axis(BEGAN, BEGAN + timedelta(seconds=50)))] == [
        f"07:44:{s:02d}" for s in range(0, 51, 10)
    ]


def test_a_second_leg_of_one_side_has_a_number() -> None:
    agent, second, queue = (
        Leg(kind, name, at(0), LegState.RINGING)
        for kind, name in ((CallType.API, "1"), (CallType.API, "2"), (CallType.INCOMING, "3"))
    )
    assert leg_names([agent, second, queue]) == ["Agent", "Agent 2", "Incoming"]


def test_a_sparkline_goes_from_left_to_right_and_its_peak_to_the_top() -> None:
    drawn = sparkline([0, 10, 5], "callbacks per second")
    assert drawn.line == f"M0.0 {HEIGHT - 2}.0L{WIDTH / 2} 2.0L{WIDTH}.0 {HEIGHT / 2}"
    assert drawn.area == f"{drawn.line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z"
    assert (drawn.latest, drawn.peak) == (5, 10)
    assert drawn.label == "callbacks per second, the last 3 seconds: now 5, at most 10"


@pytest.mark.parametrize("values", [[], [0], [7], [0, 0, 0]])
def test_a_sparkline_of_little_is_a_flat_line(values: list[int]) -> None:
    drawn = sparkline(values, "x")
    assert drawn.line.startswith("M0.0 ")
    assert len({point.split(" ")[1] for point in drawn.line[1:].split("L")}) == 1
    assert "nan" not in drawn.line


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, DASH), (0, "0 s"), (0.42, "0.4 s"), (9.96, "10 s"), (42.4, "42 s"), (60, "1 min"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (97200, "1 d 3 h"), (-90, f"{text.MINUS}1 min 30 s")],
)  # fmt: skip
def test_durations_are_told_in_two_units(seconds: float | None, told: str) -> None:
    assert text.duration(seconds) == told


def test_delays_sizes_and_times_are_told_for_people() -> None:
    assert [text.delay(value) for value in (None, 0.18, -0.5, 75)] == [DASH, "+0.180 s", f"{text.MINUS}0.500 s", "+1 min 15 s"]
    assert [text.size(value) for value in (None, 812, 1_400_000, 5 * 10**12)] == [DASH, "812 B", "1.4 MB", "5000.0 GB"]
    assert [text.clock(at(1)), text.precise(at(1.25)), text.moment(at(1)), text.moment(None)] == [
        "07:44:01",
        "07:44:01.250",
        "2026-11-23 07:44:01",
        DASH,
    ]
    assert [text.number(value) for value in (None, 12, 1234567)] == ["?", "12", "1 234 567"]


def test_what_cannot_be_seen_is_shown_and_long_values_are_cut() -> None:
    assert plain("a\x00\u202eb\tc\nd") == "a[U+0000][U+202E]b\tc\nd"
    assert plain_line("\x9b2J\x85a\tb\r\n") == "[U+009B]2J[U+0085]a[U+0009]b[U+000D][U+000A]"
    assert text.clip("x" * 200, 10) == "xxxxxxxxxx… (200 characters)"


def test_the_axis_of_a_picture_is_in_utc() -> None:
    assert axis_over([at(0)]).start.tzinfo is UTC or axis_over([at(0)]).start.utcoffset() == timedelta(0)
