"""The drift of a clock, from its offset in each of several hours."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from statistics import median
from typing import Final

_FEWEST_HOURS: Final = 3
_HOUR_S: Final = 3600


def drift_ratio(ahead_s: Mapping[int, float]) -> float | None:
    """Return by how many seconds a clock gains in each second, from how far it was ahead in each hour since 1970.

    This is the median of the slopes between successive hours, so that a clock that was set once does not seem to drift. None if
    fewer than three hours are known.
    """
    if len(ahead_s) < _FEWEST_HOURS:
        return None
    hours = pairwise(sorted(ahead_s.items()))
    return median((later_s - earlier_s) / ((to - since) * _HOUR_S) for (since, earlier_s), (to, later_s) in hours)
