"""Group commit: events that arrive while a batch is written form the next batch.

No timer is involved. An event is written at once when ingress is idle, and batches grow with the load.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from shared.domain.raw_event import MAX_EVENTS_PER_MESSAGE
from shared.errors import SpoolUnavailableError

_MAX_BATCH_BYTES = 1 << 20
_MAX_FULL_BATCHES = 40

Write = Callable[[Sequence[bytes]], Awaitable[None]]


class GroupCommit:
    """Collects encoded events and writes one batch at a time."""

    def __init__(self, write: Write) -> None:
        """Take `write`, which makes a batch durable or raises SpoolUnavailableError."""
        self._write = write
        self._open = _Batch()
        self._full: deque[_Batch] = deque()
        self._arrived = asyncio.Event()

    def submit(self, encoded: bytes) -> asyncio.Future[None]:
        """Queue an event; the returned future is done once the event is durable.

        The batch shares the future, so cancelling one waiter cancels it for the whole batch. Handlers are cancelled only when the
        process gives up on all of them.

        Raises:
            SpoolUnavailableError: too many events are waiting. The future raises it if the batch could not be written.
        """
        if len(self._full) >= _MAX_FULL_BATCHES:
            raise SpoolUnavailableError("too many callbacks are waiting to be written")
        batch = self._open
        batch.events.append(encoded)
        batch.size += len(encoded)
        if len(batch.events) == 1:
            self._arrived.set()
        elif batch.size >= _MAX_BATCH_BYTES or len(batch.events) >= MAX_EVENTS_PER_MESSAGE:
            self._full.append(batch)
            self._open = _Batch()
        return batch.done

    async def run(self) -> NoReturn:
        """Write batches until cancelled. Run it as a task; cancel it once nothing is in flight."""
        while True:
            await self._arrived.wait()
            batch = self._take()
            if batch is None:
                self._arrived.clear()
                continue
            try:
                await self._write(batch.events)
            except SpoolUnavailableError as error:
                if not batch.done.done():
                    batch.done.set_exception(error)
            else:
                if not batch.done.done():
                    batch.done.set_result(None)

    def _take(self) -> _Batch | None:
        if self._full:
            return self._full.popleft()
        if not self._open.events:
            return None
        batch, self._open = self._open, _Batch()
        return batch


class _Batch:
    """Events that are written together."""

    __slots__ = ("done", "events", "size")

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.size = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
