"""A link to RabbitMQ whose consumer of one queue receives so many bytes a second. It makes a worker slow without any CPU."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Self

from console.local.ports import free_port

_PIECE = 2048
# What a link may carry at once after a pause. Otherwise each late wake-up of this process would cost capacity.
_BURST_S = 0.3


class SlowLink:
    """`async with SlowLink(port, bytes_per_s, queue) as link` forwards `link.port`. Connections without this consumer are fast."""

    def __init__(self, target: int, bytes_per_s: float, queue: str) -> None:
        self.port = free_port()
        # AMQP 0-9-1: class and method of basic.consume, a reserved number, and the name of the queue.
        self._consume = bytes((0, 60, 0, 20, 0, 0, len(queue))) + queue.encode()
        self._target = target
        self._bytes_per_s = bytes_per_s
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._carried: dict[asyncio.StreamWriter, int] = {}
        self._seen: dict[asyncio.StreamWriter, int] = {}
        self._seen_at = time.monotonic()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def used(self) -> float:
        """Return the part of the rate that the consumer has used since the last call."""
        now = time.monotonic()
        carried = max((size - self._seen.get(writer, 0) for writer, size in self._carried.items()), default=0)
        used = carried / max(now - self._seen_at, 1e-6) / self._bytes_per_s
        self._seen_at, self._seen = now, dict(self._carried)
        return used

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ways = [
                asyncio.create_task(self._send(reader, far_writer, writer)),
                asyncio.create_task(self._receive(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                self._carried.pop(writer, None)
                for end in (writer, far_writer):
                    end.transport.abort()

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self._consume in data:
                    self._carried.setdefault(client, 0)
                writer.write(data)
                await writer.drain()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        free_at = 0.0
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                if writer in self._carried:
                    now = time.monotonic()
                    free_at = max(free_at, now - _BURST_S) + len(data) / self._bytes_per_s
                    if free_at > now:
                        await asyncio.sleep(free_at - now)
                    self._carried[writer] += len(data)
                writer.write(data)
                await writer.drain()
