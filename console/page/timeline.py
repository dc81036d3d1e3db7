"""The legs of a call on one time axis: bars of ringing and talking, end marks, and a marker for each raw event.

Geometry only; the template `_timeline.html` draws it. All places are percentages, so one drawing fits phones and wide screens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from console.page.axis import Axis, Tick, axis_over, ticks
from console.page.call_models import TimelineRow
from console.page.text import duration, seconds_between
from shared.domain.leg import Leg, LegState
from shared.domain.leg_event import CallType

MAX_LANES = 20
"""The number of legs that are drawn. A call can have thousands; the rest are only counted."""

_MIN_MARKER_GAP_PERCENT = 3.0
_MIN_BAR_PERCENT = 0.4
_MAX_ROWS = 4
_NAMES: Mapping[CallType, str] = {CallType.API: "Agent", CallType.OUTGOING: "Dialed"}


class Activity(StrEnum):
    """The activity of a leg during a period."""

    RINGING = "ringing"
    TALKING = "talking"


@dataclass(frozen=True, slots=True)
class Period:
    """A period of ringing or talking. It is `assumed` if no callback reported it or its start."""

    activity: Activity
    since: str
    until: str
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A period on the axis."""

    activity: Activity
    x: float
    width: float
    label: str
    assumed: bool


@dataclass(frozen=True, slots=True)
class Marker:
    """A raw event on the axis.

    Attributes:
        number: its position in the timeline, from 1. It links the picture to the table.
        x: when it was received.
        happened_x: when it happened by the adapter's own time; None if the adapter sent none.
        row: 0, or a lower row if markers would overlap.
    """

    number: int
    kind: str
    event: str
    x: float
    happened_x: float | None
    delay_s: float | None
    row: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """A leg on the axis. `end` is its end mark: the place, and `ended` or `missed`."""

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
    """All lanes of a call on one axis. `others` are the raw events of no leg."""

    axis: Axis
    ticks: tuple[Tick, ...]
    lanes: tuple[Lane, ...]
    others: tuple[Marker, ...] = ()


def leg_names(legs: Iterable[Leg]) -> list[str]:
    """Name each leg by its side; the second and later legs of one side are numbered."""
    counts: Counter[CallType] = Counter()
    names = []
    for leg in legs:
        counts[leg.call_type] += 1
        name, count = _NAMES.get(leg.call_type, str(leg.call_type)), counts[leg.call_type]
        names.append(name if count == 1 else f"{name} {count}")
    return names


def periods(leg: Leg, until: str, rang_from: str | None = None) -> list[Period]:
    """Split a leg's time into ringing and talking.

    Args:
        leg: the leg.
        until: the end of a leg that is not over.
        rang_from: when it must have begun to ring, used if its first callback is already the pickup.
    """
    over = leg.hung_up_at or leg.missed_at or until
    if leg.hung_up_at and leg.missed_at:
        over = min(leg.hung_up_at, leg.missed_at)
    began = leg.started_at or min(leg.first_seen_at, rang_from or leg.first_seen_at)
    answered = leg.picked_up_at if leg.was_answered and not leg.is_pickup_late else None
    if answered is None and leg.was_answered:
        return [Period(Activity.TALKING, began, max(began, over), assumed=True)]
    rang_until = max(began, min(answered or over, over))
    result = [Period(Activity.RINGING, began, rang_until, assumed=leg.started_at is None)] if rang_until > began else []
    if answered:
        result.append(Period(Activity.TALKING, answered, max(answered, over), assumed=leg.inferred))
    return result


def lanes(legs: Sequence[Leg], axis: Axis, until: str, started_at: str | None) -> tuple[Lane, ...]:
    """Place the first `MAX_LANES` legs. Open ones extend to `until`, and the agent's rang since the call started."""
    drawn, rang_from = legs[:MAX_LANES], _rang_from(legs, started_at)
    return tuple(
        _lane(leg, name, axis, periods(leg, until, rang_from.get(leg.call_type)))
        for leg, name in zip(drawn, leg_names(drawn), strict=True)
    )


def _rang_from(legs: Iterable[Leg], started_at: str | None) -> Mapping[CallType, str | None]:
    """Return when legs must have begun to ring: the agent's at the dial, the dialed one when the agent picked up."""
    picked_up_at = next((leg.picked_up_at for leg in legs if leg.call_type == CallType.API and leg.picked_up_at), None)
    return {CallType.API: started_at, CallType.OUTGOING: picked_up_at}


def _lane(leg: Leg, name: str, axis: Axis, leg_periods: Sequence[Period]) -> Lane:
    is_missed = leg.state == LegState.MISSED
    over = (leg.missed_at if is_missed else None) or leg.hung_up_at
    return Lane(
        name=name,
        call_id=leg.call_id,
        state=leg.state,
        inferred=leg.inferred,
        bars=tuple(_bar(period, axis) for period in leg_periods),
        end=(axis.percent(over), "missed" if is_missed else "ended") if over and not axis.is_before(over) else None,
        from_before=bool(leg_periods) and axis.is_before(leg_periods[0].since),
    )


def _bar(period: Period, axis: Axis) -> Bar:
    x, end = axis.percent(period.since), axis.percent(period.until)
    width = max(round(end - x, 3), _MIN_BAR_PERCENT)
    label = f"{period.activity} {duration(seconds_between(period.since, period.until))}"
    return Bar(period.activity, min(x, 100 - width), width, label, period.assumed)


def picture(legs: Sequence[Leg], timeline: Sequence[TimelineRow], until: str, started_at: str | None) -> Picture | None:
    """Place the first legs of a call, and each raw event on its leg. Return None if there is nothing to place.

    Args:
        legs: the legs of the call.
        timeline: its raw events, as received.
        until: the end of open legs.
        started_at: the start of the call, if known.
    """
    times = _times(legs, until, started_at)
    times += [at for row in timeline if row.kind != "timer" for at in (row.received_at, row.happened_at) if at]
    times = times or [row.received_at for row in timeline]
    if not times:
        return None
    axis = axis_over(times)
    known = {leg.call_id for leg in legs}
    markers: dict[str | None, list[Marker]] = {}
    for number, row in enumerate(timeline, start=1):
        markers.setdefault(row.leg if row.leg in known else None, []).append(_marker(number, row, axis))
    drawn = tuple(replace(lane, markers=_in_rows(markers.get(lane.call_id, ()))) for lane in lanes(legs, axis, until, started_at))
    return Picture(axis, ticks(axis), drawn, _in_rows(markers.get(None, ())))


def _times(legs: Sequence[Leg], until: str, started_at: str | None) -> list[str]:
    """List the start and end of every period of the drawn legs."""
    rang_from = _rang_from(legs, started_at)
    times = []
    for leg in legs[:MAX_LANES]:
        leg_periods = periods(leg, until, rang_from.get(leg.call_type))
        times += [at for period in leg_periods for at in (period.since, period.until)] or [leg.first_seen_at]
    return times


def _marker(number: int, row: TimelineRow, axis: Axis) -> Marker:
    return Marker(
        number=number,
        kind=row.kind,
        event=row.event or row.kind,
        x=axis.percent(row.received_at),
        happened_x=axis.percent(row.happened_at) if row.happened_at else None,
        delay_s=seconds_between(row.happened_at, row.received_at) if row.happened_at else None,
    )


def _in_rows(markers: Sequence[Marker]) -> tuple[Marker, ...]:
    """Put markers that would overlap into separate rows. In a flood of events the last row holds the rest."""
    row_ends: list[float] = []
    placed = []
    for marker in sorted(markers, key=lambda marker: (marker.x, marker.number)):
        free = (row for row, end in enumerate(row_ends) if marker.x - end >= _MIN_MARKER_GAP_PERCENT)
        row = next(free, min(len(row_ends), _MAX_ROWS - 1))
        row_ends[row : row + 1] = [marker.x]
        placed.append(replace(marker, row=row))
    return tuple(placed)
