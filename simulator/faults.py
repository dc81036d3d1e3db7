"""What can go wrong between FocalScope and us: callbacks reordered, doubled, late, lost, or all at once. Seeded."""

from __future__ import annotations

import random
from dataclasses import dataclass

from simulator.scenario import Step


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities (0 to 1) of each fault, per callback; `burst` per call. Delays are seconds."""

    reorder: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    drop: float = 0.0
    burst: float = 0.0
    max_delay_s: float = 1.0


def disturb(steps: list[Step], faults: Faults, rng: random.Random) -> tuple[list[Step], int]:
    """Turn what happened into what is sent, in order of sending; also returns how many callbacks were lost."""
    kept = [step for step in steps if rng.random() >= faults.drop]
    times = [step.at_s for step in kept]
    if rng.random() < faults.burst and times:
        times = [max(times)] * len(times)
    for index in range(len(times) - 1):
        if rng.random() < faults.reorder:
            other = rng.randrange(index + 1, len(times))
            times[index], times[other] = times[other], times[index]
    sent = []
    for step, planned_s in zip(kept, times, strict=True):
        at_s = planned_s + (rng.uniform(0, faults.max_delay_s) if rng.random() < faults.delay else 0.0)
        sent.append(Step(at_s, step.values))
        if rng.random() < faults.duplicate:
            sent.append(Step(at_s + rng.uniform(0, faults.max_delay_s), step.values))
    return sorted(sent, key=lambda step: step.at_s), len(steps) - len(kept)
