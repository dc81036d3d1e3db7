"""A time axis: maps times to percentages of a picture's width and divides it at round steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from console.page.text import MINUS, duration

_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 604800)
_HALF_DAY_S = 43200
_MAX_TICKS = 6
_MARGIN = 0.04
_MIN_LENGTH_S = 1.0


@dataclass(frozen=True, slots=True)
class Axis:
    """A span of time across the width of a picture."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.start).total_seconds()

    def percent(self, at: str) -> float:
        """Place a time, from 0 at the left to 100 at the right. A time outside the axis is placed on its edge."""
        share = (datetime.fromisoformat(at) - self.start).total_seconds() / self.seconds
        return round(min(max(share, 0), 1) * 100, 3)

    def moved(self, by_s: float) -> Axis:
        """Return the same span on a clock that is ahead by some seconds."""
        by = timedelta(seconds=by_s)
        return Axis(self.start + by, self.end + by)

    def is_before(self, at: str) -> bool:
        """Return whether a time is before the start of the axis."""
        return datetime.fromisoformat(at) < self.start


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the axis, labeled with its time."""

    x: float
    label: str


def axis_over(times: Sequence[str]) -> Axis:
    """Make an axis that covers times, with a margin; at least one second long."""
    start, end = datetime.fromisoformat(min(times)), datetime.fromisoformat(max(times))
    length = max((end - start).total_seconds(), _MIN_LENGTH_S)
    margin = timedelta(seconds=length * _MARGIN)
    return Axis(start - margin, start + timedelta(seconds=length) + margin)


def ticks(axis: Axis, limit: int = _MAX_TICKS) -> tuple[Tick, ...]:
    """Divide an axis at round times of day."""
    step = _step(axis, limit)
    first = datetime.fromtimestamp(-(-axis.start.timestamp() // step) * step, tz=UTC)
    times = [first + timedelta(seconds=step * index) for index in range(limit + 1)]
    return tuple(Tick(axis.percent(at.isoformat()), _label(at, step)) for at in times if axis.start <= at <= axis.end)


def ages(axis: Axis, limit: int = _MAX_TICKS) -> tuple[Tick, ...]:
    """Divide an axis that ends now by age."""
    step = _step(axis, limit)
    count = int(axis.seconds // step)
    return tuple(
        Tick(round(100 - 100 * step * index / axis.seconds, 3), f"{MINUS}{duration(step * index)}" if index else "now")
        for index in range(count, -1, -1)
    )


def _step(axis: Axis, limit: int) -> float:
    return next((step for step in _STEPS_S if axis.seconds / step <= limit), axis.seconds)


def _label(at: datetime, step: float) -> str:
    if step < 1:
        return f"{at:%H:%M:%S}.{at.microsecond // 100_000}"
    if step >= _HALF_DAY_S:
        return f"{at:%m-%d %H:%M}"
    return f"{at:%H:%M:%S}" if step < 60 else f"{at:%H:%M}"  # noqa: PLR2004 - steps below a minute need seconds
