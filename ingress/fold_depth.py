"""Watches the depth of `callbacks.fold`, so that ingress spools before the queue is full and rejects.

RabbitMQ reports only how many messages wait, so their size is estimated. As many as this process published count with their mean
size. The others count with the mean size of messages that no spool was drained with. A low estimate costs a rejection.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

from shared.amqp.publisher import Publisher
from shared.errors import BrokerUnavailableError

_INTERVAL_S = 5.0
_NEARLY_FULL, _ROOM_AGAIN = 0.9, 0.8
# So few messages are as good as none: what was published before them is consumed.
_EMPTY_MESSAGES = 100


class FoldDepth:
    """Closes the gate of a publisher while the queue is nearly full."""

    def __init__(self, publisher: Publisher, limit_bytes: int) -> None:
        """Take the limit of the queue; a lower one, set by a policy, is noticed by its rejections."""
        self._publisher = publisher
        self._limit_bytes = limit_bytes
        self._published = self._published_bytes = 0  # since the queue was last seen empty
        self._direct = self._direct_bytes = 0

    def published(self, size: int, *, is_drained: bool = False) -> None:
        """Count a message that RabbitMQ confirmed; one that a spool is drained with is larger than others."""
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
                    continue  # the connection logs its end, and the next look comes soon

    def judge(self, messages: int) -> None:
        """Close or open the gate for a depth."""
        gate = self._publisher.gate
        share = self._bytes(messages) / self._limit_bytes
        if messages <= _EMPTY_MESSAGES:
            self._published = self._published_bytes = 0
        if share >= _NEARLY_FULL:
            gate.set_nearly_full(is_nearly_full=True)
        elif share < _ROOM_AGAIN:
            gate.set_nearly_full(is_nearly_full=False)

    def _bytes(self, messages: int) -> float:
        """Estimate the size of as many messages."""
        own = min(messages, self._published)
        of_own = own * self._published_bytes / self._published if own else 0
        return of_own + (messages - own) * (self._direct_bytes / self._direct if self._direct else 0)
