"""Legs on one time axis: where each stretch of ringing and talking begins and ends, as percentages of a picture's width.

Geometry only: the template `_timeline.html` draws it. Percentages make one drawing fit a phone and a wide screen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from console.page.models import TimelineRow
from console.page.text import MINUS, duration, seconds_between
from shared.domain.callback import CallType
from shared.domain.leg import Leg, LegState

_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 604800)
_HALF_DAY_S = 43200
_MOST_TICKS = 6
_MARGIN = 0.04
_SHORTEST_S = 1.0
_NEAR_PERCENT = 3.0
_NARROWEST_PERCENT = 0.4
_MOST_ROWS = 4
# A call can have thousands of legs: these are drawn, the others counted.
MOST_LANES = 20
_NAMES: Mapping[CallType, str] = {CallType.API: "Agent", CallType.OUTGOING: "Dialed"}


class Kind(StrEnum):
    """What a leg does for a stretch of time."""

    RINGING = "ringing"
    TALKING = "talking"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A leg ringing or talking. `assumed` where no callback told when it began or that it was so."""

    kind: Kind
    since: str
    until: str
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A span of time laid over the width of a picture."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.start).total_seconds()

    def percent(self, at: str) -> float:
        """Place a time, from 0 at the left to 100 at the right; what is outside is placed on the edge."""
        share = (datetime.fromisoformat(at) - self.start).total_seconds() / self.seconds
        return round(min(max(share, 0), 1) * 100, 3)

    def is_before(self, at: str) -> bool:
        return datetime.fromisoformat(at) < self.start


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the axis with the time it stands for."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch, placed."""

    kind: Kind
    x: float
    width: float
    label: str
    assumed: bool


@dataclass(frozen=True, slots=True)
class Marker:
    """A raw event, placed: where it arrived, and where the adapter's own time says that it happened.

    Attributes:
        number: its place in the timeline, from 1: it ties the picture to the table.
        told_x: where it happened by the adapter; None where the adapter sent no time.
        row: 0, or further down where markers would lie on one another.
    """

    number: int
    kind: str
    event: str
    x: float
    told_x: float | None
    delay_s: float | None
    row: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """One leg, placed. `end` is its end mark: (where, `ended` or `missed`)."""

    name: str
    call_id: str
    state: str
    inferred: bool
    bars: tuple[Bar, ...]
    end: tuple[float, str] | None
    from_before: bool
    markers: tuple[Marker, ...] = ()

    @property
    def rows(self) -> int:
        return max((marker.row for marker in self.markers), default=-1) + 1


@dataclass(frozen=True, slots=True)
class Picture:
    """All lanes of a call on one axis."""

    axis: Axis
    ticks: tuple[Tick, ...]
    lanes: tuple[Lane, ...]
    others: tuple[Marker, ...] = ()


def leg_names(legs: Iterable[Leg]) -> list[str]:
    """Name each leg for a person; a further one of the same side by its number."""
    counts: Counter[CallType] = Counter()
    names = []
    for leg in legs:
        counts[leg.call_type] += 1
        name, place = _NAMES.get(leg.call_type, str(leg.call_type)), counts[leg.call_type]
        names.append(name if place == 1 else f"{name} {place}")
    return names


def stretches(leg: Leg, until: str, rang_from: str | None = None) -> list[Stretch]:
    """Split a leg's time into ringing and talking.

    Args:
        leg: the leg.
        until: how far it reaches where it is not over.
        rang_from: since when it must have rung, where its first callback is already the pickup.
    """
    over = leg.hung_up_at or leg.missed_at or until
    if leg.hung_up_at and leg.missed_at:
        over = min(leg.hung_up_at, leg.missed_at)
    began = leg.started_at or min(leg.first_seen_at, rang_from or leg.first_seen_at)
    answered = leg.picked_up_at if leg.was_answered and not leg.is_pickup_late else None
    if answered is None and leg.was_answered:
        return [Stretch(Kind.TALKING, began, max(began, over), assumed=True)]
    rang_until = max(began, min(answered or over, over))
    found = [Stretch(Kind.RINGING, began, rang_until, assumed=leg.started_at is None)] if rang_until > began else []
    if answered:
        found.append(Stretch(Kind.TALKING, answered, max(answered, over), assumed=leg.inferred))
    return found


def _rang_from(legs: Iterable[Leg], started_at: str | None) -> Mapping[CallType, str | None]:
    """Say since when legs must have rung: the agent's since the dial, the dialed one since the agent picked up."""
    picked_up_at = next((leg.picked_up_at for leg in legs if leg.call_type == CallType.API and leg.picked_up_at), None)
    return {CallType.API: started_at, CallType.OUTGOING: picked_up_at}


def axis_over(times: Sequence[str]) -> Axis:
    """Lay an axis over times, with a margin; at least one second long."""
    start, end = datetime.fromisoformat(min(times)), datetime.fromisoformat(max(times))
    length = max((end - start).total_seconds(), _SHORTEST_S)
    margin = timedelta(seconds=length * _MARGIN)
    return Axis(start - margin, start + timedelta(seconds=length) + margin)


def ticks(axis: Axis, most: int = _MOST_TICKS) -> tuple[Tick, ...]:
    """Divide an axis at round times of day."""
    step = next((step for step in _STEPS_S if axis.seconds / step <= most), axis.seconds)
    first = datetime.fromtimestamp(-(-axis.start.timestamp() // step) * step, tz=UTC)
    times = [first + timedelta(seconds=step * index) for index in range(most + 1)]
    return tuple(Tick(axis.percent(at.isoformat()), _tick_label(at, step)) for at in times if axis.start <= at <= axis.end)


def _tick_label(at: datetime, step: float) -> str:
    if step < 1:
        return f"{at:%H:%M:%S}.{at.microsecond // 100_000}"
    if step >= _HALF_DAY_S:
        return f"{at:%m-%d %H:%M}"
    return f"{at:%H:%M:%S}" if step < 60 else f"{at:%H:%M}"  # noqa: PLR2004 - seconds are told below a minute


def ages(axis: Axis, most: int = _MOST_TICKS) -> tuple[Tick, ...]:
    """Divide an axis that ends now by how long ago."""
    step = next((step for step in _STEPS_S if axis.seconds / step <= most), axis.seconds)
    count = int(axis.seconds // step)
    return tuple(
        Tick(round(100 - 100 * step * index / axis.seconds, 3), f"{MINUS}{duration(step * index)}" if index else "now")
        for index in range(count, -1, -1)
    )


def lanes(legs: Sequence[Leg], axis: Axis, until: str, started_at: str | None) -> tuple[Lane, ...]:
    """Place legs, at most the first `MOST_LANES`; open ones reach `until`, and the agent's rang since the call started."""
    drawn, since = legs[:MOST_LANES], _rang_from(legs, started_at)
    found = zip(drawn, leg_names(drawn), strict=True)
    return tuple(_lane(leg, name, axis, stretches(leg, until, since.get(leg.call_type))) for leg, name in found)


def _lane(leg: Leg, name: str, axis: Axis, found: Sequence[Stretch]) -> Lane:
    over = leg.missed_at if leg.state == LegState.MISSED else leg.hung_up_at
    over = over or leg.hung_up_at
    kind = "missed" if leg.state == LegState.MISSED else "ended"
    return Lane(
        name=name,
        call_id=leg.call_id,
        state=leg.state,
        inferred=leg.inferred,
        bars=tuple(_bar(stretch, axis) for stretch in found),
        end=(axis.percent(over), kind) if over and not axis.is_before(over) else None,
        from_before=bool(found) and axis.is_before(found[0].since),
    )


def _bar(stretch: Stretch, axis: Axis) -> Bar:
    x, end = axis.percent(stretch.since), axis.percent(stretch.until)
    width = max(round(end - x, 3), _NARROWEST_PERCENT)
    label = f"{stretch.kind} {duration(seconds_between(stretch.since, stretch.until))}"
    return Bar(stretch.kind, min(x, 100 - width), width, label, stretch.assumed)


def picture(legs: Sequence[Leg], timeline: Sequence[TimelineRow], until: str, started_at: str | None) -> Picture | None:
    """Place a call: its first legs, and each raw event on the leg it tells of; None where there is nothing to place.

    Args:
        legs: its legs.
        timeline: its raw events, as received.
        until: how far open legs reach.
        started_at: when the call started, where that is known.
    """
    times = _times(legs, until, started_at)
    times += [at for row in timeline if row.kind != "timer" for at in (row.received_at, row.told_at) if at]
    times = times or [row.received_at for row in timeline]
    if not times:
        return None
    axis = axis_over(times)
    known = {leg.call_id for leg in legs}
    markers: dict[str | None, list[Marker]] = {}
    for number, row in enumerate(timeline, start=1):
        markers.setdefault(row.leg if row.leg in known else None, []).append(_marker(number, row, axis))
    placed = lanes(legs, axis, until, started_at)
    drawn = tuple(replace(lane, markers=_apart(markers.get(lane.call_id, ()))) for lane in placed)
    return Picture(axis, ticks(axis), drawn, _apart(markers.get(None, ())))


def _times(legs: Sequence[Leg], until: str, started_at: str | None) -> list[str]:
    """List the times between which the legs that are drawn ring and talk."""
    since = _rang_from(legs, started_at)
    times = []
    for leg in legs[:MOST_LANES]:
        found = stretches(leg, until, since.get(leg.call_type))
        times += [at for stretch in found for at in (stretch.since, stretch.until)] or [leg.first_seen_at]
    return times


def _marker(number: int, row: TimelineRow, axis: Axis) -> Marker:
    return Marker(
        number=number,
        kind=row.kind,
        event=row.event or row.kind,
        x=axis.percent(row.received_at),
        told_x=axis.percent(row.told_at) if row.told_at else None,
        delay_s=seconds_between(row.told_at, row.received_at) if row.told_at else None,
    )


def _apart(markers: Sequence[Marker]) -> tuple[Marker, ...]:
    """Put markers that would lie on one another into rows; what comes in floods shares the last one."""
    ends: list[float] = []
    placed = []
    for marker in sorted(markers, key=lambda marker: (marker.x, marker.number)):
        row = next((row for row, end in enumerate(ends) if marker.x - end >= _NEAR_PERCENT), min(len(ends), _MOST_ROWS - 1))
        ends[row : row + 1] = [marker.x]
        placed.append(replace(marker, row=row))
    return tuple(placed)
