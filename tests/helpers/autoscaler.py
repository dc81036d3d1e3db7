"""A model of the HorizontalPodAutoscaler that KEDA makes from a ScaledObject. It takes figures and returns a number of pods.

It follows the controller of Kubernetes: the largest proposal of all metrics counts, a tolerance of a tenth, windows of
stabilization, and policies that limit a step. KEDA answers each request of the controller with a fresh figure, so its own polling
interval has no effect above zero pods.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TOLERANCE = 0.1
SYNC_S = 15.0


@dataclass(frozen=True, slots=True)
class Direction:
    """How fast pods are added or removed: at most so many in a period, and by all proposals within a window."""

    window_s: float
    pods: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a ScaledObject says. `factor` makes all times of the controller shorter.

    Attributes:
        cpu: target of the use of the request, 1 for all of it; None if the object has no such trigger.
    """

    minimum: int
    maximum: int
    lag_s: float
    cpu: float | None
    up: Direction
    down: Direction
    sync_s: float

    @classmethod
    def of(cls, scaled_object: Mapping[str, Any], *, factor: float = 1) -> Scaling:
        spec = scaled_object["spec"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        triggers = {each["type"]: each["metadata"] for each in spec["triggers"]}
        up, down = (
            Direction(
                behavior[name]["stabilizationWindowSeconds"] / factor,
                behavior[name]["policies"][0]["value"],
                behavior[name]["policies"][0]["periodSeconds"] / factor,
            )
            for name in ("scaleUp", "scaleDown")
        )
        cpu = float(triggers["cpu"]["value"]) / 100 if "cpu" in triggers else None
        lag_s = float(triggers["metrics-api"]["targetValue"])
        return cls(spec["minReplicaCount"], spec["maxReplicaCount"], lag_s, cpu, up, down, SYNC_S / factor)


@dataclass(slots=True)
class Autoscaler:
    """The controller between two looks: its proposals and the steps it has taken."""

    scaling: Scaling
    _proposals: list[tuple[float, int]] = field(default_factory=list)
    _steps: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now_s: float, *, pods: int, ready: int, lag_s: float | None, cpu: float | None) -> int:
        """Return the number of pods from now on; a figure is None if nothing could be read."""
        proposal = self._propose(pods, ready, lag_s, cpu)
        self._proposals = [each for each in self._proposals if each[0] > now_s - max(self._up.window_s, self._down.window_s)]
        self._proposals.append((now_s, proposal))
        wanted = self._limited(now_s, pods, self._stable(now_s, pods))
        wanted = min(max(wanted, self.scaling.minimum), self.scaling.maximum)
        if wanted != pods:
            self._steps.append((now_s, wanted - pods))
        return wanted

    @property
    def _up(self) -> Direction:
        return self.scaling.up

    @property
    def _down(self) -> Direction:
        return self.scaling.down

    def _propose(self, pods: int, ready: int, lag_s: float | None, cpu: float | None) -> int:
        figures = [(lag_s, self.scaling.lag_s)] + ([(cpu, self.scaling.cpu)] if self.scaling.cpu else [])
        proposals = []
        for figure, target in figures:
            if figure is None or target is None:
                continue
            ratio = figure / target
            proposals.append(pods if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * ready))
        if not proposals:
            return pods
        # Without one of the figures nothing is removed: it could be the one that needs the pods.
        return max(proposals) if len(proposals) == len(figures) else max(*proposals, pods)

    def _stable(self, now_s: float, pods: int) -> int:
        least = min(count for at, count in self._proposals if at > now_s - self._up.window_s or at == now_s)
        most = max(count for at, count in self._proposals if at > now_s - self._down.window_s or at == now_s)
        return min(max(pods, least), max(most, least))

    def _limited(self, now_s: float, pods: int, wanted: int) -> int:
        if wanted > pods:
            added = sum(step for at, step in self._steps if step > 0 and at > now_s - self._up.period_s)
            return min(wanted, max(pods, pods - added + self._up.pods))
        removed = -sum(step for at, step in self._steps if step < 0 and at > now_s - self._down.period_s)
        return max(wanted, min(pods, pods + removed - self._down.pods))


def changes_of_direction(counts: list[int]) -> int:
    """Return how often a series of numbers of pods turns from growing to shrinking, or back."""
    steps = [after - before for before, after in itertools.pairwise(counts) if after != before]
    return sum((one > 0) != (other > 0) for one, other in itertools.pairwise(steps))
