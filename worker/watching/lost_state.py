"""Observes whether Redis has lost state, and how much a rebuild brought back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from shared.domain.condition import Figure, Kind, Observation
from shared.state.positions import Positions

SUBJECT: Final = "redis"
_MAX_REPORTS: Final = 100


class LostState:
    """Reports of the rebuilds of this worker, and its knowledge of the partitions."""

    def __init__(self, positions: Positions, now: Callable[[], str]) -> None:
        self._positions, self._now = positions, now
        self._reports: deque[Observation] = deque(maxlen=_MAX_REPORTS)
        self._returned = 0

    def began(self, figures: Mapping[str, int | float]) -> None:
        """Record that a rebuild began. A short one is over before the next observation."""
        self._reports.append(self._bad(figures))

    def finished(self, figures: Mapping[str, int | float]) -> None:
        """Record that a rebuild finished."""
        self._reports.append(self._good(figures))

    def observations(self) -> list[Observation]:
        """Return the reports that are not stored yet, then the current state if it is known."""
        reports = list(self._reports)
        self._returned = len(reports)
        waiting = self._positions.not_ready()
        return [*reports, self._bad({"partitions": len(waiting)}) if waiting else self._good({})]

    def stored(self) -> None:
        """Forget the reports that were returned last, because Redis has them now."""
        for _ in range(self._returned):
            self._reports.popleft()
        self._returned = 0

    def _bad(self, figures: Mapping[str, Figure]) -> Observation:
        detail = "Redis has lost state. The calls of these partitions wait until workers have rebuilt it from the journals."
        return Observation(Kind.STATE_REBUILT, SUBJECT, is_bad=True, at=self._now(), detail=detail, figures=figures)

    def _good(self, figures: Mapping[str, Figure]) -> Observation:
        detail = "Workers have rebuilt what Redis had lost."
        return Observation(Kind.STATE_REBUILT, SUBJECT, is_bad=False, at=self._now(), detail=detail, figures=figures)
