"""Moves the messages of one queue: each is acked at the old broker once the new one has confirmed it."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from shared.amqp.broker_admin import BrokerAdmin
from shared.amqp.copying import CopySource, without_equal_ids
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import move_exchange
from shared.errors import BrokerUnavailableError
from shared.runtime.process import background
from worker.folding.echoes import Echoes

_PREFETCH = 200
_BATCH_BYTES = 1 << 20
_LOOK_S = 0.5
# RabbitMQ also counts no consumers if the leader of the queue does not answer in time.
_COUNTS = 3


class QueueMove:
    """Moves one queue for as long as it runs.

    Attributes:
        moved: the messages moved by this process.
        is_moving: nothing else consumes the queue at the old broker, or that does not matter.
    """

    def __init__(self, queue: str, old: BrokerAdmin, new: BrokerAdmin, echoes: Echoes, *, waits_for_workers: bool) -> None:
        self.queue = queue
        self.moved = 0
        self.is_moving = False
        self._old = old
        self._new = new
        self._echoes = echoes
        self._waits_for_workers = waits_for_workers
        self._source = CopySource(old.address, queue, prefetch=_PREFETCH)

    async def run(self) -> NoReturn:
        """Move until cancelled. Run it as a task."""
        while True:
            if not self._waits_for_workers or not await self.other_consumers():
                break
            await asyncio.sleep(_LOOK_S)
        async with background(self._source.run()):
            self.is_moving = True
            while True:
                await self._move_waiting()

    async def other_consumers(self) -> int:
        """Count the consumers of the queue at the old broker without this one. Waits while RabbitMQ does not answer."""
        while True:
            try:
                counts = [await self._old.count_consumers(self.queue) for _ in range(_COUNTS)]
            except BrokerUnavailableError:
                await self._old.wait_until_up()
                await asyncio.sleep(_LOOK_S)
                continue
            return max(0, max(counts) - self._source.is_up)

    async def drain(self) -> None:
        """Wait until the queue is empty at the old broker."""
        while True:
            if await self._is_empty():
                break
            await asyncio.sleep(_LOOK_S)

    async def _is_empty(self) -> bool:
        """Get a message instead of counting: counts can be some seconds old. What was got is requeued."""
        await self._source.wait_until_up()
        if not self._source.in_flight.is_empty:
            return False
        session = self._source.sessions
        reader = QueueReader(self._old.address, self.queue)
        try:
            async with background(reader.run()):
                await reader.wait_until_up()
                is_empty = await reader.get() is None
        except BrokerUnavailableError:
            return False
        is_idle = self._source.is_up and self._source.in_flight.is_empty
        return is_empty and is_idle and session == self._source.sessions

    async def _move_waiting(self) -> None:
        deliveries = [await self._source.get()]
        deliveries += self._source.get_waiting(_BATCH_BYTES)
        copies = self._source.copies(deliveries, move_exchange(self.queue))
        for batch in without_equal_ids(copies):
            await self._new.copy_until_confirmed(batch)
        self.moved += len(copies)
        self._echoes.add(delivery.headers for delivery in deliveries)
        for delivery in deliveries:
            await delivery.ack()
