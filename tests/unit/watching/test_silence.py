"""A PBX is silent against its own habit: noticed within minutes at noon, never at night, on Sundays, or before a habit is known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from shared.domain.pbx_habit import DAY_MINUTES, FLOOR_MINUTES, HOUR_MINUTES, Habit, judge_silence, learn_habit
from simulator.scenario import Dialed, Scenario, play
from tests.helpers.volume import sizes

# Monday, 2026-11-02, 00:00 UTC.
MONDAY = 1_793_577_600 // 60
WEEKS = 4
CallsPerHour = Callable[[int, int], float]


def _rng(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a simulation


_SHAPES = [
    [step.at_s for step in play(scenario, Dialed(1, 1, "1001", "45", 0, recorded=False), _rng(seed), speed=1)[1]]
    for scenario in Scenario
    for seed in range(10)
]


def contact_centre(day: int, hour: int) -> float:
    """Calls per hour: from 8 to 18 o'clock, fewer at lunch and on Saturdays, none at night and on Sundays."""
    if day % 7 == 6 or not 8 <= hour < 18:
        return 0
    return (40 if hour == 12 else 90) * (0.3 if day % 7 == 5 else 1)


def small_office(day: int, hour: int) -> float:
    return contact_centre(day, hour) / 15


def always(day: int, hour: int) -> float:
    return 20 + 10 * (hour in range(8, 20)) + day % 7


def _active(calls: CallsPerHour, days: Iterable[int], rng: random.Random) -> set[int]:
    """Return the active minutes of some days: calls begin at random, busier on some days than on others."""
    minutes: set[int] = set()
    for day in days:
        busy = rng.uniform(0.7, 1.3)
        for hour in range(24):
            rate = calls(day, hour) * busy / HOUR_MINUTES
            at = rng.expovariate(rate) if rate else HOUR_MINUTES
            while at < HOUR_MINUTES:
                begin_s = ((day * 24 + hour) * HOUR_MINUTES + at) * 60
                minutes |= {MONDAY + int(begin_s + second) // 60 for second in rng.choice(_SHAPES)}
                at += rng.expovariate(rate)
    return minutes


def _bitmaps(minutes: Iterable[int]) -> dict[int, bytes]:
    bits: dict[int, int] = {}
    for minute in minutes:
        day, of_day = divmod(minute, DAY_MINUTES)
        bits[day] = bits.get(day, 0) | 1 << (DAY_MINUTES - 1 - of_day)
    return {day: value.to_bytes(DAY_MINUTES // 8, "big") for day, value in bits.items()}


def _alarms(minutes: set[int], days: Iterable[int]) -> list[int]:
    """Judge every minute of some days as a worker does; returns the minutes in which the PBX counts as silent."""
    bitmaps, alarms, habit, hour = _bitmaps(minutes), [], Habit([]), -1
    last = max((minute for minute in minutes if minute < MONDAY + min(days) * DAY_MINUTES), default=None)
    for day in days:
        for minute in range(MONDAY + day * DAY_MINUTES, MONDAY + (day + 1) * DAY_MINUTES):
            if minute in minutes:
                last = minute
            if last is None:
                continue
            if last // HOUR_MINUTES != hour:
                hour, habit = last // HOUR_MINUTES, learn_habit(bitmaps, last)
            if judge_silence(habit, last * 60.0, minute * 60.0 + 59).is_unusual:
                alarms.append(minute)
    return alarms


@pytest.mark.parametrize("seeds", sizes(1, 40))
@pytest.mark.parametrize("calls", [contact_centre, small_office, always])
def test_ordinary_days_and_nights_raise_no_alarm(calls: CallsPerHour, seeds: int) -> None:
    """The days are a Friday, a Saturday, a Sunday and a Monday."""
    for seed in range(seeds):
        minutes = _active(calls, range(WEEKS * 7 + 1), _rng(seed))
        assert not _alarms(minutes, range(WEEKS * 7 - 3, WEEKS * 7 + 1)), seed


@pytest.mark.parametrize("weeks", [1, WEEKS])
def test_a_silence_at_noon_is_noticed_within_25_minutes_and_stays_noticed(weeks: int) -> None:
    midnight = MONDAY + weeks * 7 * DAY_MINUTES
    noon = midnight + 12 * HOUR_MINUTES
    minutes = {minute for minute in _active(contact_centre, range(weeks * 7 + 1), _rng(2)) if minute < noon}
    alarms = _alarms(minutes, [weeks * 7])
    assert alarms[0] - max(minutes) >= FLOOR_MINUTES
    assert alarms[0] - noon <= 25
    assert alarms == list(range(alarms[0], midnight + DAY_MINUTES)), "the silence itself is no habit"


def test_a_morning_without_callbacks_is_noticed_although_the_night_before_was_quiet() -> None:
    begin = MONDAY + WEEKS * 7 * DAY_MINUTES
    minutes = _active(contact_centre, range(WEEKS * 7), _rng(2))
    alarms = _alarms(minutes, [WEEKS * 7])
    assert 8 * HOUR_MINUTES < alarms[0] - begin < 10 * HOUR_MINUTES


def test_before_a_habit_is_known_nothing_is_claimed() -> None:
    minutes = _active(always, range(7), _rng(4))
    silent = {minute for minute in minutes if minute < MONDAY + 3 * DAY_MINUTES}
    assert not _alarms(silent, range(7)), "no hour of the week has been seen twice"
    assert not learn_habit({}, MONDAY).is_known
    assert not _alarms(set(), [0])


def test_one_lost_day_changes_no_habit_of_four_weeks() -> None:
    minutes = _active(always, range(WEEKS * 7), _rng(4))
    with_outage = {minute for minute in minutes if not MONDAY + 14 * DAY_MINUTES <= minute < MONDAY + 15 * DAY_MINUTES}
    until = MONDAY + WEEKS * 7 * DAY_MINUTES
    learned, before = (learn_habit(_bitmaps(each), until).chances for each in (with_outage, minutes))
    assert all(learned), "no hour of the lost day counts as quiet"
    assert all(before)


def test_a_day_that_begins_an_hour_later_is_not_unusual() -> None:
    """As after clocks were changed, since hours are those of UTC."""
    days = range(WEEKS * 7)
    minutes = _active(contact_centre, days, _rng(6))
    later = {minute + HOUR_MINUTES for minute in _active(contact_centre, [WEEKS * 7], _rng(7))}
    assert not _alarms(minutes | later, [WEEKS * 7])
