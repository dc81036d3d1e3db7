"""A row of numbers as a small picture: the path of its line and of the area below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 240, 40
_PADDING = 2


@dataclass(frozen=True, slots=True)
class Sparkline:
    """Paths in a box of `WIDTH` by `HEIGHT`, and in words what they show.

    Attributes:
        line: the values from left to right, the largest at the top.
        area: the same, closed along the bottom.
    """

    line: str
    area: str
    label: str
    latest: int
    peak: int


def sparkline(values: Sequence[int], what: str) -> Sparkline:
    """Draw values, the latest last; `what` names them: `callbacks per second`."""
    shown = list(values) or [0]
    peak = max(shown)
    step = WIDTH / max(len(shown) - 1, 1)
    drawn = shown if len(shown) > 1 else shown * 2
    points = [(index * step, _height(value, peak)) for index, value in enumerate(drawn)]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    area = f"{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z"
    label = f"{what}, the last {len(values)} seconds: now {shown[-1]}, at most {peak}"
    return Sparkline(line, area, label, shown[-1], peak)


def _height(value: int, peak: int) -> float:
    usable = HEIGHT - 2 * _PADDING
    return HEIGHT - _PADDING - (usable * max(value, 0) / peak if peak > 0 else 0)
