"""A series of numbers as a small picture: the path of its line and of the area below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 240, 40
_PADDING = 2


@dataclass(frozen=True, slots=True)
class Sparkline:
    """Paths in a box of `WIDTH` by `HEIGHT`, and a text that describes them.

    Attributes:
        line: the values from left to right, the largest at the top.
        area: the same path, closed along the bottom.
    """

    line: str
    area: str
    label: str
    latest: int
    peak: int


def sparkline(values: Sequence[int], unit: str) -> Sparkline:
    """Draw values, the latest last. `unit` names them, e.g. `callbacks per second`."""
    counts = list(values) or [0]
    peak = max(counts)
    step = WIDTH / max(len(counts) - 1, 1)
    drawn = counts if len(counts) > 1 else counts * 2
    points = [(index * step, _height(value, peak)) for index, value in enumerate(drawn)]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    area = f"{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z"
    label = f"{unit}, the last {len(values)} seconds: now {counts[-1]}, at most {peak}"
    return Sparkline(line, area, label, counts[-1], peak)


def _height(value: int, peak: int) -> float:
    usable = HEIGHT - 2 * _PADDING
    return HEIGHT - _PADDING - (usable * max(value, 0) / peak if peak > 0 else 0)
