"""The open connections of one HTTP port: how many there may be, and how long each may take for what."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from shared import metrics
from shared.log import get_logger

log = get_logger(__name__)

_SWEEP_S = 1.0
_LOG_AGAIN_S = 60.0
# Busy connections that are passed over in the search for an idle one. They move to the end, so the next search skips them.
_PASSED_OVER = 64


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of one connection.

    Attributes:
        head_s: from the connection or the first byte of a request until its head is complete.
        body_s: from a complete head until its body is complete.
        idle_s: from a response until the next request.
        send_s: how long the client may accept nothing of a response.
        linger_s: how long the rest of a body is read and discarded after the response.
    """

    head_s: float = 10
    body_s: float = 10
    idle_s: float = 75
    send_s: float = 30
    linger_s: float = 1


class Connection(Protocol):
    """A connection as `Connections` sees it."""

    @property
    def is_idle(self) -> bool:
        """Return whether it waits for a request."""

    def drop(self) -> None:
        """Close it at once."""

    def enforce_limits(self, now: float) -> str | None:
        """Close it if it has taken too long, and return for what."""


class Connections:
    """Admits connections up to a maximum. At the maximum, a new connection replaces one that is of least use.

    That is one that has its response while the rest of its body is discarded, or the idle one that was used least recently.
    """

    def __init__(self, port: str, maximum: int, limits: HttpLimits) -> None:
        """`port` labels the metrics."""
        self.limits = limits
        self._port = port
        self._maximum = maximum
        self._by_use: OrderedDict[Connection, None] = OrderedDict()
        self._lingering: dict[Connection, None] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._logged_at = -_LOG_AGAIN_S

    def __len__(self) -> int:
        return len(self._by_use)

    def admit(self, connection: Connection) -> bool:
        """Add a new connection. Return False if all others are busy, so that this one must be refused."""
        if len(self._by_use) >= self._maximum and not self._make_room():
            return False
        self._by_use[connection] = None
        if self._sweeping is None:
            self._sweep_later()
        return True

    def used(self, connection: Connection) -> None:
        """Move a connection to the end, because it has sent a request."""
        self._by_use.move_to_end(connection)
        self._lingering.pop(connection, None)

    def lingers(self, connection: Connection) -> None:
        """Mark a connection that has its response, while the rest of its body is still discarded."""
        if connection in self._by_use:
            self._lingering[connection] = None

    def closed(self, connection: Connection) -> None:
        self._by_use.pop(connection, None)
        self._lingering.pop(connection, None)

    def stop(self) -> None:
        """End the sweep."""
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _make_room(self) -> bool:
        self._log_full()
        replaced = next(iter(self._lingering), None) or self._oldest_idle()
        if replaced is None:
            self._count("refused")
            return False
        self._count("replaced")
        self.closed(replaced)
        replaced.drop()
        return True

    def _oldest_idle(self) -> Connection | None:
        for _ in range(min(_PASSED_OVER, len(self._by_use))):
            oldest = next(iter(self._by_use))
            if oldest.is_idle:
                return oldest
            self._by_use.move_to_end(oldest)
        return None

    def _log_full(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= _LOG_AGAIN_S:
            self._logged_at = now
            log.warning("connection_limit_reached", port=self._port, connections=self._maximum)

    def _sweep_later(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Check every connection once a second. A timer for each request would cost every request."""
        self._sweep_later()
        now = asyncio.get_running_loop().time()
        for connection in list(self._by_use):
            reason = connection.enforce_limits(now)
            if reason is not None:
                self._count(reason)
        metrics.CONNECTIONS.labels(self._port).set(len(self._by_use))

    def _count(self, reason: str) -> None:
        metrics.CONNECTIONS_CLOSED.labels(self._port, reason).inc()
