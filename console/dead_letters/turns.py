"""Reading a queue of dead letters in turns.

Messages that one client reads are invisible to others until it requeues them. So only one client reads at a time: it holds the
lock `turn`. A look is short. A redrive or drop can take long, and ends its turn if a look waits:

- `look` is held by the client that looks, or waits to look. Other lookers wait for it.
- `change` is held during a redrive or drop. Other changes wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from console.dead_letters.queue import DeadLetterQueue, QueuedDeadLetter, decode
from shared.amqp.publisher import Publisher
from shared.amqp.queue_reader import MAX_TAKEN, QueueReader
from shared.config.settings import Settings
from shared.errors import BrokerAccessError, BrokerUnavailableError, CallfoldError
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.streams.connections import wait_until_connected

_LOCK_TIMEOUT_S = 20  # longer than RabbitMQ needs to notice that the holder of the lock has disconnected
_LOCK_RETRY_S = 0.05
_RECONNECT_RETRY_S = 0.2
_T = TypeVar("_T")
_TURN, _LOOK, _CHANGE = "turn", "look", "change"
# A redrive or drop can hold very many messages. A look that has waited so long for them reads only the others.
_PATIENCE_S = 5
_BUSY = "Others are reading these dead letters. Try again in a minute."
_FIRST_STEP = 64
_STEP_BYTES = 8 << 20
# A look with a filter reads at least the first number of messages. It ends at the second one, or after the time.
_SCAN_LEAST, _SCAN_MOST, _SCAN_S = 1000, 20_000, 1.0


class Turn:
    """The read of one turn, from the front of the queue.

    Attributes:
        read: how many messages this turn has read so far.
        total: how many the queue had when the turn began. RabbitMQ's other counts can be some seconds old; this one is exact.
        end: how many this turn reads if it is not ended before.
        is_partial: whether a redrive or drop holds messages that this turn cannot see.
    """

    def __init__(self, reader: QueueReader, *, is_partial: bool = False) -> None:
        self._reader = reader
        self.is_partial = is_partial
        self.read = 0
        self.total = 0
        self.end = 0

    async def batches(self, at_most: int | None, *, largest: int = MAX_TAKEN) -> AsyncGenerator[list[QueuedDeadLetter], None]:
        """Yield messages in the order of the queue, few at a time if they are large.

        Raises:
            BrokerUnavailableError: the connection was lost, and unsettled messages were requeued.
        """
        batch = await self._one() if at_most != 0 else []
        if not batch:
            return
        self.total, step = 1 + self._reader.ready, min(_FIRST_STEP, largest)
        self.end = self.total if at_most is None else min(at_most, self.total)
        batch += await self._next(batch, min(step, self.end - 1))
        while batch:
            self.read += len(batch)
            yield batch
            step = min(step * 4, largest)
            next_count = min(step, self.end - self.read)
            batch = await self._next(batch, next_count)
            if next_count > 0 and not batch and not (batch := await self._one()):
                self.total = self.end = self.read  # another client has the others

    async def _next(self, batch: Sequence[QueuedDeadLetter], next_count: int) -> list[QueuedDeadLetter]:
        """Read the next messages, fewer than next_count if those before them were large."""
        average_bytes = sum(len(dead_letter.delivery.body) for dead_letter in batch) // len(batch) + 1
        next_count = min(next_count, max(1, _STEP_BYTES // average_bytes))
        return [decode(delivery) for delivery in await self._reader.take(next_count)] if next_count > 0 else []

    async def bounded_batches(self) -> AsyncGenerator[list[QueuedDeadLetter], None]:
        """Yield messages for a look: about a second long, and for a small queue however long it takes."""
        end = time.monotonic() + _SCAN_S
        async with aclosing(self.batches(_SCAN_MOST)) as batches:
            async for batch in batches:
                yield batch
                if self.read >= _SCAN_LEAST and time.monotonic() > end:
                    return

    async def _one(self) -> list[QueuedDeadLetter]:
        delivery = await self._reader.get()
        return [decode(delivery)] if delivery is not None else []

    async def confirm(self) -> None:
        """Wait until RabbitMQ has processed all acks.

        Raises:
            BrokerUnavailableError: the connection was lost, and acked messages may have been requeued.
        """
        await self._reader.confirm_settled()


class DeadLetterReader:
    """Gives turns at one queue of dead letters."""

    def __init__(self, reader: QueueReader) -> None:
        self._reader = reader

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Hold the queue for a change. Messages that were not acked are requeued at the end.

        Raises:
            CallfoldError: other clients held the lock during the whole timeout, or RabbitMQ cannot be reached.
        """
        await self._lock(_TURN, _BUSY)
        try:
            yield Turn(self._reader)
        finally:
            await self._reader.unlock(_TURN)

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Turn]:
        """Hold the queue for a look. All messages are requeued at the end.

        Raises:
            CallfoldError: other clients held the lock during the whole timeout, or RabbitMQ cannot be reached.
        """
        await self._lock(_LOOK, _BUSY)
        try:
            has_turn = await self._try_lock(_TURN, min(_PATIENCE_S, _LOCK_TIMEOUT_S))
            if not has_turn and not await self._is_changing():
                await self._lock(_TURN, _BUSY)
                has_turn = True
            yield Turn(self._reader, is_partial=not has_turn)
        finally:
            await self._reader.unlock(_TURN)
            await self._reader.unlock(_LOOK)

    async def is_awaited(self) -> bool:
        """Return whether a look waits.

        Raises:
            BrokerUnavailableError: the connection was lost.
        """
        return not await self._is_free(_LOOK)

    async def wait_for_look(self) -> None:
        """Wait until the look that is going on has requeued what it read.

        Raises:
            CallfoldError: others looked during the whole timeout, or RabbitMQ cannot be reached.
        """
        await self._lock(_LOOK, _BUSY)
        await self._reader.release(_LOOK)

    async def _is_changing(self) -> bool:
        return not await self._is_free(_CHANGE)

    async def _is_free(self, name: str) -> bool:
        is_free = await self._reader.try_lock(name)
        if is_free:
            await self._reader.release(name)
        return is_free

    async def lock_changes(self) -> None:
        """Hold back other redrives and drops for as long as this reader is connected.

        Raises:
            CallfoldError: another redrive or drop held the lock during the whole timeout, or RabbitMQ cannot be reached.
        """
        await self._lock(_CHANGE, "Another redrive or drop of these dead letters is running. Try again when it has ended.")

    async def retried(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do work that changes nothing. It is repeated while RabbitMQ comes up, for example after a restart.

        Raises:
            BrokerAccessError: the user may not read dead letters. That is not tried again.
            BrokerUnavailableError: RabbitMQ was unavailable during the whole timeout.
        """
        end = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                return await work()
            except BrokerAccessError:
                raise
            except BrokerUnavailableError:
                if time.monotonic() > end:
                    raise
            self._reader.recycle("a request failed")
            await asyncio.sleep(_RECONNECT_RETRY_S)
            await self._reconnect(end)
            self._reader.forget_lost_locks()

    async def _reconnect(self, end: float) -> None:
        try:
            async with asyncio.timeout(end - time.monotonic()):
                await self._reader.wait_until_up()
        except TimeoutError:
            raise BrokerUnavailableError(f"RabbitMQ {self._reader.problem}. Check CALLFOLD_AMQP_URL.") from None

    async def _lock(self, name: str, failure: str) -> None:
        if not await self._try_lock(name, _LOCK_TIMEOUT_S):
            raise CallfoldError(failure)

    async def _try_lock(self, name: str, within_s: float) -> bool:
        # A try that was cut off while RabbitMQ refuses it would cost the connection. The reader limits each try.
        end = time.monotonic() + within_s
        while not await self._reader.try_lock(name):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_LOCK_RETRY_S)
        return True


@asynccontextmanager
async def reader_of(
    settings: Settings, queue: DeadLetterQueue, publisher: Publisher | None = None
) -> AsyncIterator[DeadLetterReader]:
    """Connect to a queue of dead letters, and connect the publisher of a change.

    Raises:
        CallfoldError: RabbitMQ cannot be reached.
    """
    reader = QueueReader(broker_address(settings, "dead-letters"), queue.queue_name)
    connections = (reader, publisher) if publisher is not None else (reader,)
    async with background(*(connection.run() for connection in connections)):
        await wait_until_connected(*connections)
        yield DeadLetterReader(reader)
