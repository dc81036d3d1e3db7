"""Folds the events that waited in Redis while their partition was rebuilt, in the order of arrival.

Until none is left, other events of the partition wait behind them, and its timers wait too. So everything that arrives during a
rebuild is folded as if it had arrived after it.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NoReturn

from shared.domain.raw_event import join
from shared.errors import StateLostError, StateMovedError, StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.process import wait_at_most
from shared.state.store import Store
from shared.state.stored_position import PartitionState
from worker.folding.fold import Fold

log = get_logger(__name__)
_DRAINS = Outage(log, "waiting_events_delayed", "waiting_events_folded")

_LEASE_S: Final = 6.0
_LOOK_S: Final = 0.5
# The lease is renewed after so many. If it expires before that, two workers fold the same events in the same order.
_EVENTS: Final = 200
_MESSAGE_BYTES: Final = 1 << 20
# A fold of few events mostly waits for Redis and RabbitMQ.
_AT_ONCE: Final = 4


class WaitingEvents:
    """Drains partitions that were rebuilt, each by one worker at a time. Another one takes over when its lease has expired."""

    def __init__(self, store: Store, fold: Callable[[Store], Fold]) -> None:
        """Take the store, and a function that makes a fold which writes with another store, each with another holder."""
        self._store = store
        self._fold = fold
        self._holder = uuid.uuid4().hex

    async def run(self) -> NoReturn:
        """Drain until cancelled. Run it as a task."""
        due = self._store.positions.drain_due
        while True:
            await wait_at_most(due, _LOOK_S)
            due.clear()
            try:
                await self.drain()
                _DRAINS.succeeded()
            except (StateMovedError, StoreUnavailableError) as error:
                _DRAINS.failed(str(error))
                await asyncio.sleep(_LOOK_S)

    async def drain(self) -> None:
        """Drain each partition that is to be drained.

        Raises:
            StateMovedError, StoreUnavailableError: begin again.
        """
        draining = [n for n, state in self._store.positions.not_ready().items() if state is PartitionState.DRAINING]
        random.shuffle(draining)  # each worker begins with others
        turns = asyncio.Semaphore(_AT_ONCE)
        ended = await asyncio.gather(*(self._drain_in_turn(number, turns) for number in draining), return_exceptions=True)
        failures = [each for each in ended if isinstance(each, BaseException)]
        if any(isinstance(each, StateLostError) for each in failures):
            await self._store.fence()
        for each in failures:
            raise each

    async def _drain_in_turn(self, number: int, turns: asyncio.Semaphore) -> None:
        """Drain a partition unless another worker drains it, or has done so."""
        async with turns:
            lock = _lock(number)
            if not await self._store.locks.acquire(lock, self._holder, lease_s=_LEASE_S):
                return
            try:
                await self._store.partitions.look([number])
                if self._store.positions.state(number) is PartitionState.DRAINING:
                    await self._drain(number)
            finally:
                await self._store.locks.release(lock, self._holder)

    async def _drain(self, number: int) -> None:
        generation = self._store.positions.generation(number)
        fold, folded = self._fold(self._store.for_drain(number)), 0
        events = await self._store.partitions.take_waiting(number, _EVENTS)
        while True:
            if events:
                for message in _messages(events):
                    await fold.fold([message])
                events, folded = await self._store.partitions.take_waiting(number, _EVENTS, events), folded + len(events)
            if not events and await self._store.partitions.finish(number, generation) is not PartitionState.DRAINING:
                break
            if not events:
                events = await self._store.partitions.take_waiting(number, _EVENTS)
            if not await self._store.locks.acquire(_lock(number), self._holder, lease_s=_LEASE_S):
                return
        log.info("waiting_events_drained", partition=number, events=folded)


def _messages(events: Iterable[bytes]) -> Iterator[bytes]:
    """Join events to messages of about `_MESSAGE_BYTES`, so that annotations do not make one too large to be decoded."""
    part: list[bytes] = []
    size = 0
    for event in events:
        if part and size + len(event) > _MESSAGE_BYTES:
            yield join(part)
            part, size = [], 0
        part.append(event)
        size += len(event)
    if part:
        yield join(part)


def _lock(number: int) -> str:
    return f"drain/{number}"
