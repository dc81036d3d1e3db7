"""Watches how full `callbacks.fold` is, so that ingress spools before the queue rejects messages.

RabbitMQ reports the number of waiting messages, not their bytes, so the bytes are estimated. Messages of this process count with
the mean size of what it published. All others count with the mean size of its messages that do not come from a spool. If the
estimate is too low, RabbitMQ rejects a message, and ingress spools it.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

from shared.amqp.publisher import Publisher
from shared.errors import BrokerUnavailableError

_INTERVAL_S = 5.0
_NEARLY_FULL, _ROOM_AGAIN = 0.9, 0.8
# With so few messages left the queue counts as empty, and a new mean size begins.
_EMPTY_MESSAGES = 100


class FoldDepth:
    """Closes the gate of a publisher while the queue is nearly full: from 90 % of its limit until it is below 80 %."""

    def __init__(self, publisher: Publisher, limit_bytes: int) -> None:
        """Take the limit of the queue in bytes. If its policy has a lower one, it shows only in rejected messages."""
        self._publisher = publisher
        self._limit_bytes = limit_bytes
        self._published = self._published_bytes = 0  # since the queue was last seen empty
        self._direct = self._direct_bytes = 0

    def published(self, size: int, *, is_drained: bool = False) -> None:
        """Count a confirmed message of `size` bytes. Messages from a spool (`is_drained`) are larger than the others."""
        self._published += 1
        self._published_bytes += size
        if not is_drained:
            self._direct += 1
            self._direct_bytes += size

    async def run(self) -> NoReturn:
        """Check the depth until cancelled. Run it as a task."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            if self._publisher.is_up and not self._publisher.is_blocked:
                try:
                    self.judge(await self._publisher.count_messages(self._publisher.gate.queue))
                except BrokerUnavailableError:
                    continue  # the connection logs its end; the next check follows in seconds

    def judge(self, messages: int) -> None:
        """Close or open the gate, given the number of waiting messages."""
        gate = self._publisher.gate
        share = self._bytes(messages) / self._limit_bytes
        if messages <= _EMPTY_MESSAGES:
            self._published = self._published_bytes = 0
        if share >= _NEARLY_FULL:
            gate.set_nearly_full(is_nearly_full=True)
        elif share < _ROOM_AGAIN:
            gate.set_nearly_full(is_nearly_full=False)

    def _bytes(self, messages: int) -> float:
        """Estimate the bytes of this many waiting messages."""
        own = min(messages, self._published)
        of_own = own * self._published_bytes / self._published if own else 0
        return of_own + (messages - own) * (self._direct_bytes / self._direct if self._direct else 0)
