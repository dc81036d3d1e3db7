"""Replicas confirm what must not be lost: `WAIT` after it, on the same connection, in the same round trip.

Redis is a cache of the journals, so a missing replica never stops calls. After a second the work goes on. From then on each
`WAIT` has 20 ms, until enough replicas confirm again.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from shared import metrics
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)

_LIMIT_MS: Final = 1000
_LIMIT_WHILE_MISSING_MS: Final = 20


class Confirm(Enum):
    """Confirmation by replicas of what a batch writes. `FULLY` waits for the whole limit, even if some are missing."""

    NO = auto()
    YES = auto()
    FULLY = auto()


class Replicas:
    """The number of replicas that must confirm, and the servers at which fewer did."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._missing: dict[str, str] = {}
        self._outage = Outage(log, "redis_replicas_missing", "redis_replicas_confirm")

    @property
    def are_required(self) -> bool:
        return self._count > 0

    @property
    def problems(self) -> list[str]:
        return list(self._missing.values())

    def command(self, server: str, confirm: Confirm) -> tuple[str, int, int]:
        """Return the `WAIT` for a server."""
        is_short = confirm is Confirm.YES and server in self._missing
        return "WAIT", self._count, _LIMIT_WHILE_MISSING_MS if is_short else _LIMIT_MS

    def confirmed(self, server: str, answer: object) -> None:
        """Record the answer to a `WAIT`: how many replicas confirmed, or the error."""
        if isinstance(answer, int) and answer >= self._count:
            if self._missing.pop(server, None):
                self._outage.succeeded(task=server)
            return
        problem = f"{answer} of {self._count} replicas confirmed" if isinstance(answer, int) else f"WAIT failed: {answer}"
        self._missing[server] = f"Redis at {server}: {problem}"
        metrics.REDIS_UNCONFIRMED.inc()
        self._outage.failed(self._missing[server], task=server)

    def forget(self, server: str) -> None:
        """Forget a server that is no longer a master."""
        if self._missing.pop(server, None):
            self._outage.gave_up(task=server)
