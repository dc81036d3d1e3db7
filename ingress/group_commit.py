"""Group commit: what arrives while the previous batch is being written leaves together in the next one.

There is no timer: when idle, an event leaves at once; under load batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from shared.errors import SpoolUnavailableError
from shared.events import MAX_EVENTS_PER_MESSAGE

_MAX_BATCH_BYTES = 1 << 20
_MAX_WAITING = 20_000

Write = Callable[[Sequence[bytes]], Awaitable[None]]


class GroupCommit:
    """Collects encoded events and writes them in batches, one batch at a time."""

    def __init__(self, write: Write) -> None:
        """Take the function that makes a batch durable or raises SpoolUnavailableError."""
        self._write = write
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._arrived = asyncio.Event()

    def submit(self, encoded: bytes) -> asyncio.Future[None]:
        """Queue an event; the future is done when it is durable.

        Raises:
            SpoolUnavailableError: too many events wait already; directly, or through the future when the batch failed.
        """
        if len(self._waiting) >= _MAX_WAITING:
            raise SpoolUnavailableError("too many callbacks wait to be written")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((encoded, done))
        self._arrived.set()
        return done

    async def run(self) -> NoReturn:
        """Write batches for as long as the process lives. Run it as a task; cancel it once nothing is in flight."""
        while True:
            await self._arrived.wait()
            batch, done = self._take()
            try:
                await self._write(batch)
            except SpoolUnavailableError as error:
                for future in done:
                    if not future.done():
                        future.set_exception(error)
            else:
                for future in done:
                    if not future.done():
                        future.set_result(None)

    def _take(self) -> tuple[list[bytes], list[asyncio.Future[None]]]:
        batch: list[bytes] = []
        done: list[asyncio.Future[None]] = []
        size = 0
        waiting = self._waiting
        while waiting and len(batch) < MAX_EVENTS_PER_MESSAGE and size < _MAX_BATCH_BYTES:
            encoded, future = waiting.popleft()
            batch.append(encoded)
            done.append(future)
            size += len(encoded)
        if not waiting:
            self._arrived.clear()
        return batch, done
