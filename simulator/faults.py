"""Faults on the way from FocalScope to Callfold: callbacks reordered, duplicated, delayed, lost, or sent in a burst.

No callback is sent before its event. Otherwise the clock of the simulated PBX would seem to be ahead.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from simulator.scenario import Step

_LATER_S = 0.001


@dataclass(frozen=True, slots=True)
class Faults:
    """Probability (0 to 1) of each fault per callback (`burst`: per call). Delays are in seconds."""

    reorder: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    drop: float = 0.0
    burst: float = 0.0
    max_delay_s: float = 1.0


def inject_faults(steps: list[Step], faults: Faults, rng: random.Random) -> tuple[list[Step], int]:
    """Return the callbacks in the order in which they are sent, and the number of lost ones."""
    kept = [step for step in steps if rng.random() >= faults.drop]
    times = [step.at_s for step in kept]
    if rng.random() < faults.burst and times:
        times = [max(times)] * len(times)
    for index in range(len(times) - 1):
        if rng.random() < faults.reorder:
            other = rng.randrange(index + 1, len(times))
            times[index] = times[other] + _LATER_S  # a swap would send the other one before its event
    sent = []
    for step, planned_s in zip(kept, times, strict=True):
        at_s = planned_s + (rng.uniform(0, faults.max_delay_s) if rng.random() < faults.delay else 0.0)
        sent.append(Step(at_s, step.values))
        if rng.random() < faults.duplicate:
            sent.append(Step(at_s + rng.uniform(0, faults.max_delay_s), step.values))
    return sorted(sent, key=lambda step: step.at_s), len(steps) - len(kept)
