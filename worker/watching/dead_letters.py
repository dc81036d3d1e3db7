"""Observes the queues of dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, NoReturn

from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS_DEAD, FORWARD_DEAD, RECORDINGS_DEAD
from shared.domain.condition import Kind, Observation
from shared.errors import BrokerUnavailableError
from worker.watching.growth import Growth

_INTERVAL_S: Final = 15.0


class DeadLetterWatch:
    """Samples the depths. While RabbitMQ is away nothing is known, and nothing changes."""

    def __init__(self, publisher: Publisher, now: Callable[[], str], *, interval_s: float = _INTERVAL_S) -> None:
        self._publisher, self._now, self._interval_s = publisher, now, interval_s
        self._growths = {queue: Growth() for queue in (CALLBACKS_DEAD, RECORDINGS_DEAD, FORWARD_DEAD)}

    async def run(self) -> NoReturn:
        """Sample until cancelled. Run it as a task."""
        while True:
            for queue, growth in self._growths.items():
                try:
                    depth = await self._publisher.count_messages(queue)
                except BrokerUnavailableError:
                    continue
                growth.sample(depth, time.monotonic(), self._now())
            await asyncio.sleep(self._interval_s)

    def observations(self) -> list[Observation]:
        """Return what is known."""
        return [_observation(queue, growth) for queue, growth in self._growths.items() if growth.depth is not None]


def _observation(queue: str, growth: Growth) -> Observation:
    if growth.is_growing:
        figures = {"depth": growth.depth, "added": growth.added}
        detail = f"Messages are dead-lettered to {queue}."
        return Observation(Kind.DEAD_LETTERS_GROWING, queue, is_bad=True, at=growth.since, detail=detail, figures=figures)
    detail = f"No message is dead-lettered to {queue} any more. It keeps its messages until they are redriven or dropped."
    return Observation(Kind.DEAD_LETTERS_GROWING, queue, is_bad=False, at=growth.last_at, detail=detail)
