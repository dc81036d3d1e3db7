"""How slow this machine is: one factor, measured once per run, from which the tests derive their times.

A test waits for conditions; `LIMIT_S` only ends one that would never come true. Where the time between processes is the subject,
as with leases, the settings are multiplied by `PACE`.
"""

from __future__ import annotations

import os
import sys
import time

_VARIABLE = "TESTS_PACE"  # the processes of pytest-xdist inherit it
_ROUNDS = 4_000_000
_REFERENCE_S = 0.2


def _measure() -> float:
    """Time a loop of Python; returns the factor, 1 on a quick machine that has nothing else to do, at most 8."""
    began = time.monotonic()
    total = 0
    for number in range(_ROUNDS):
        total += number
    return min(8.0, max(1.0, (time.monotonic() - began) / _REFERENCE_S))


PACE = float(os.environ.get(_VARIABLE) or _measure())
os.environ[_VARIABLE] = str(PACE)

LIMIT_S = float(os.environ.get("TESTS_LIMIT_S") or 120) * PACE
"""Give up a wait after this time. A test that passes never waits so long."""


def paced(seconds: float) -> str:
    """Write a time that processes under test keep, as a setting: longer on a slow machine."""
    return f"{seconds * PACE:g}"


if __name__ == "__main__":  # `make test` measures before it starts anything else
    sys.stdout.write(f"{PACE}\n")
