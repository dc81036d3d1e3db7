"""Probes: a few published messages a second ask the worker that folds them for an echo."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from ingress.fold_lag import Answered, FoldLag
from shared.amqp.echo import EchoQueue, echo_number
from shared.amqp.topology import ECHO_ID, ECHO_TO


@dataclass(frozen=True, slots=True)
class Probe:
    """The headers that make a message a probe, and its number."""

    number: int
    headers: Mapping[str, str | int]


class Probes:
    """Measures how far the fold is behind."""

    def __init__(self, echoes: EchoQueue) -> None:
        self._echoes = echoes
        self._lag = FoldLag()
        self._queue: str | None = None

    def next(self) -> Probe | None:
        """Return a probe if one is due and its echo can arrive."""
        return self.create() if self._lag.is_due(time.monotonic()) else None

    def create(self, answered: Answered | None = None) -> Probe | None:
        """Return a probe if its echo can arrive. `answered` is called once it is answered or given up."""
        queue = self._current_queue()
        if queue is None:
            return None
        number = self._lag.probe(time.monotonic(), answered=answered)
        return Probe(number, {ECHO_TO: queue, ECHO_ID: number})

    def give_up(self, probe: Probe) -> None:
        """Forget a probe whose message was not published."""
        self._lag.give_up(probe.number)

    def lag_s(self) -> float:
        """Return the seconds from publish to fold; 0 while RabbitMQ is not connected, since nothing is published then."""
        return 0.0 if self._current_queue() is None else self._lag.seconds(time.monotonic())

    def is_fold_away(self) -> bool:
        """Return whether no worker seems to fold, or no echo could arrive."""
        return self._current_queue() is None or self._lag.is_away(time.monotonic())

    def _current_queue(self) -> str | None:
        if self._queue != self._echoes.name:
            self._queue = self._echoes.name
            self._lag.give_up_all()
        return self._queue

    async def run(self) -> NoReturn:
        """Take echoes until cancelled. Run it as a task."""
        while True:
            delivery = await self._echoes.get()
            number = echo_number(delivery.headers)
            if number is not None:
                self._lag.answer(number, time.monotonic())
            await delivery.ack()
