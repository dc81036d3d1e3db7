"""Fair shares of the fold: which callbacks are published at once, which wait, and which are refused. No I/O, no clock.

While the fold keeps up, every callback is published at once. While it is behind, a source that sends more than its share waits.
Its callbacks go to a separate file, which is drained as the fold catches up.

A source is refused in two cases: its waiting callbacks reach the hard cap, or it has used up its bytes per day. The allowance of
bytes refills steadily, a whole one in a day.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from shared.domain.ids import SourceName

LAG_S = 0.25
"""The fold is behind if it takes longer than this from publish to fold."""
GUARANTEED_PER_S = 100.0
"""A source below this rate never waits."""
WAITING_PART = 0.5
"""The hard cap: of the bytes that a spool may have, all callbacks that wait may take this part."""
TICK_S = 0.1
_WINDOW_TICKS = 10
_DAY_S = 86_400.0
# A source whose allowance is used up is refused until it has refilled for this time: a state changes rarely, so its log is short.
_REFILLED_S = 10.0


class Route(Enum):
    """The route of the callbacks of a source."""

    PUBLISH = "publish"
    WAIT = "wait"
    OVER_WAITING = "refuse: its waiting callbacks reach the hard cap"
    OVER_DAY = "refuse: its bytes per day are used up"

    @cached_property  # every callback asks twice
    def is_refusal(self) -> bool:
        return self is Route.OVER_WAITING or self is Route.OVER_DAY


@dataclass(frozen=True, slots=True)
class Load:
    """The circumstances on which the shares depend.

    Attributes:
        lag_s: seconds from publish to fold.
        is_fold_away: no worker folds, so a full file says nothing about the source.
        waiting_bytes: what waits, by source; a source that is not listed has nothing waiting.
    """

    lag_s: float = 0.0
    is_fold_away: bool = False
    waiting_bytes: Mapping[SourceName, int] = field(default_factory=dict)


class SourceShare:
    """The traffic of one source, and the route of its callbacks until the next update.

    Attributes:
        rate: callbacks per second, over the last second.
        is_over: whether its bytes per day are used up.
    """

    __slots__ = ("_allowance", "_depth", "_events", "_recent", "_size", "is_over", "rate", "route")

    def __init__(self, bytes_per_day: int) -> None:
        self.route = Route.PUBLISH
        self.rate = 0.0
        self.is_over = False
        self._events = self._size = 0
        self._recent: deque[float] = deque([0.0] * _WINDOW_TICKS, maxlen=_WINDOW_TICKS)
        self._depth = self._allowance = float(bytes_per_day)

    def take(self, size: int) -> Route:
        """Count a callback and return its route; one that is refused does not count."""
        if not self.route.is_refusal:
            self._events += 1
            self._size += size
        return self.route

    def roll(self, elapsed_s: float) -> None:
        """Bring rate and allowance up to date after `elapsed_s`."""
        self._recent.append(self._events / elapsed_s)
        self.rate = sum(self._recent) / _WINDOW_TICKS
        per_second = self._depth / _DAY_S
        self._allowance = min(self._depth, self._allowance - self._size + per_second * elapsed_s)
        self._events = self._size = 0
        self.is_over = self._allowance <= (per_second * _REFILLED_S if self.is_over else 0)

    def refilled_in_s(self) -> int:
        """Return the seconds after which a source whose allowance is used up is accepted again, at least 1."""
        return max(1, math.ceil(_REFILLED_S - self._allowance * _DAY_S / self._depth))


class FairShares:
    """Decides the route of each source, several times a second. Between two updates a callback costs a look-up."""

    def __init__(self, sources: Collection[SourceName], *, bytes_per_day: int, max_waiting_bytes: int) -> None:
        """Take the allowance of each source, and what all sources together may have waiting."""
        self._bytes_per_day = bytes_per_day
        self._names = sources
        self._shares = {name: SourceShare(bytes_per_day) for name in sources}
        self._max_waiting_bytes = max_waiting_bytes

    def of(self, source: SourceName) -> SourceShare:
        """Return the share of a source. Between a change of the sources and `follow`, one that is not known sends at once."""
        return self._shares.get(source) or SourceShare(self._bytes_per_day)

    def follow(self, names: Collection[SourceName]) -> list[SourceName]:
        """Take over a change of the sources; the shares of the others stay as they are. Returns those that are gone."""
        if names is self._names:
            return []
        self._names = names
        gone = [name for name in self._shares if name not in names]
        for name in gone:
            del self._shares[name]
        self._shares |= {name: SourceShare(self._bytes_per_day) for name in names if name not in self._shares}
        return gone

    def update(self, elapsed_s: float, load: Load) -> dict[SourceName, Route]:
        """Decide the routes from what arrived in the last `elapsed_s`; returns those that changed."""
        for each in self._shares.values():
            each.roll(elapsed_s)
        share = max(GUARANTEED_PER_S, sum(each.rate for each in self._shares.values()) / len(self._shares))
        free = self._max_waiting_bytes - sum(load.waiting_bytes.values())
        changed: dict[SourceName, Route] = {}
        for name, each in self._shares.items():
            route = self._route(name, each, load, share=share, free=free)
            if route is not each.route:
                each.route = changed[name] = route
        return changed

    def _route(self, name: SourceName, source: SourceShare, load: Load, *, share: float, free: int) -> Route:
        if source.is_over:
            return Route.OVER_DAY
        waiting = load.waiting_bytes.get(name)
        # A single source delays no other. One with callbacks that wait goes on to wait until none does.
        is_above = len(self._shares) > 1 and load.lag_s > LAG_S and source.rate > share
        if waiting is None and not is_above:
            return Route.PUBLISH
        # A source may have as much waiting as is still free: one source gets half of it, two get a third each, and so on.
        if (waiting or 0) < free:
            return Route.WAIT
        return Route.PUBLISH if load.is_fold_away else Route.OVER_WAITING
