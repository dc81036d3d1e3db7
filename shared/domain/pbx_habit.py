"""The habit of a PBX by hour of the week, and whether it is silent against that habit.

A minute is active if a callback was received in it. What counts is how often an active minute follows a silent one: callbacks of
one call come together, so active minutes are not independent. This chance to end a silence is learned for each hour of the week,
from the last four weeks. A silence is against the habit if it would be very unlikely by these chances. At night and on Sundays
the chance is 0, so such hours say nothing. Hours are those of UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, log1p
from typing import Final, NamedTuple

HOUR_MINUTES: Final = 60
DAY_MINUTES: Final = 24 * HOUR_MINUTES
WEEK_HOURS: Final = 7 * 24
_WEEKS: Final = 4
LEARNED_DAYS: Final = 7 * _WEEKS + 1
"""Days of which active minutes are read."""

FLOOR_MINUTES: Final = 10
"""A silence has to last for at least this many minutes in which callbacks are usual."""
_UNLIKELY: Final = 1e-6
_HOUR_BITS: Final = (1 << HOUR_MINUTES) - 1
# In a busy hour there are too few silent minutes to learn from.
_HIGHEST_CHANCE: Final = 0.6


class Silence(NamedTuple):
    """Seconds since the last callback, the probability of such a silence by the habit, and whether it is against the habit."""

    seconds: float
    probability: float
    is_unusual: bool


@dataclass(frozen=True, slots=True)
class Habit:
    """The chance (0 to 1) that an active minute follows a silent one, for each hour of the week; None while unknown.

    The first is that of the first hour since 1970, a Thursday.
    """

    chances: Sequence[float | None]

    @property
    def is_known(self) -> bool:
        return any(chance is not None for chance in self.chances)


def learn_habit(days: Mapping[int, bytes], until_minute: int) -> Habit:
    """Learn a habit from full hours before a minute (since 1970).

    `days`: of each day since 1970 a bitmap of its active minutes, the first minute in the highest bit.
    """
    chances = _chances(days)
    known = [hour for hour, chance in chances.items() if chance]
    if not known:
        return Habit([None] * WEEK_HOURS)
    first, end = min(known) + 1, until_minute // HOUR_MINUTES
    by_slot: list[list[float]] = [[] for _ in range(WEEK_HOURS)]
    for hour in range(max(first, end - _WEEKS * WEEK_HOURS), end):
        by_slot[hour % WEEK_HOURS].append(chances.get(hour, 0))
    usual = [_lower_median(of_weeks) if of_weeks else None for of_weeks in by_slot]
    return Habit([_least(usual, slot) for slot in range(WEEK_HOURS)])


def judge_silence(habit: Habit, last_s: float, until_s: float) -> Silence:
    """Judge the silence from the last callback to a time until which every callback is known (seconds since 1970)."""
    first, end = int(last_s // 60) + 1, int(until_s // 60)
    logarithm, usual_minutes = 0.0, 0
    minute = first
    while minute < end:
        hour = minute // HOUR_MINUTES
        count = min(end, (hour + 1) * HOUR_MINUTES) - minute
        chance = habit.chances[hour % WEEK_HOURS]
        if chance:
            usual_minutes += count
            logarithm += count * log1p(-chance)
        minute += count
    is_unusual = usual_minutes >= FLOOR_MINUTES and logarithm <= log(_UNLIKELY)
    return Silence(max(0.0, until_s - last_s), exp(logarithm), is_unusual)


def _chances(days: Mapping[int, bytes]) -> dict[int, float]:
    """Return for each hour since 1970 how often an active minute followed a silent one; 0 if no minute was active."""
    chances: dict[int, float] = {}
    before = 0
    for day, bitmap in sorted(days.items()):
        active = int.from_bytes(bitmap.ljust(DAY_MINUTES // 8, b"\0")[: DAY_MINUTES // 8], "big")
        silent_before = ~(active >> 1 | before << (DAY_MINUTES - 1))
        before = active & 1 if day + 1 in days else 0
        for hour in range(24):
            shift = DAY_MINUTES - HOUR_MINUTES * (hour + 1)
            in_hour, after_silent = active >> shift & _HOUR_BITS, silent_before >> shift & _HOUR_BITS
            chances[day * 24 + hour] = _chance(
                in_hour.bit_count(), (in_hour & after_silent).bit_count(), after_silent.bit_count()
            )
    return chances


def _chance(active: int, ended: int, silent: int) -> float:
    """Return how many of the minutes after a `silent` one `ended` the silence. Without any, it is the highest chance."""
    return min(_HIGHEST_CHANCE, (ended + _HIGHEST_CHANCE * active / HOUR_MINUTES) / (silent + 1))


def _lower_median(of_weeks: Sequence[float]) -> float:
    """Return the lower one in the middle, so that one holiday or outage changes no habit that is older than two weeks."""
    return sorted(of_weeks)[(len(of_weeks) - 1) // 2]


def _least(usual: Sequence[float | None], slot: int) -> float | None:
    """Return the least usual chance of an hour and its neighbours: a day may begin late, and clocks change by an hour."""
    if usual[slot] is None:
        return None
    near = (usual[slot - 1], usual[slot], usual[(slot + 1) % WEEK_HOURS])
    return min(chance for chance in near if chance is not None)
