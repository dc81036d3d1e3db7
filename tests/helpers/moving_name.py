"""An address that moves from one server to another, as a name or a virtual address does after a failover.

Connections that were made before stay with the old server, as with a name. `cut` ends them, as a virtual address does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class MovingName:
    """A port that forwards to `target`, the port of a server."""

    target: int
    port: int = 0
    connections: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"redis://localhost:{self.port}/0"

    def move(self, target: int, *, cut: bool = False) -> None:
        """Send new connections to another server."""
        self.target = target
        for task in self.serving if cut else ():
            task.cancel()

    def accept(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._serve(near, near_writer))
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    async def _serve(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        writers = [near_writer]
        try:
            far, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as group:
                both = [group.create_task(_carry(near, far_writer)), group.create_task(_carry(far, near_writer))]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for task in both:
                    task.cancel()
        except* OSError:
            pass
        finally:
            for writer in writers:
                writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)


@asynccontextmanager
async def moving_name(target: int) -> AsyncIterator[MovingName]:
    """Listen on a free port of the loopback address until the block ends."""
    name = MovingName(target)
    async with await asyncio.start_server(name.accept, "127.0.0.1", 0) as listener:
        name.port = listener.sockets[0].getsockname()[1]
        try:
            yield name
        finally:
            listener.close()
            for task in name.serving:
                task.cancel()
            await asyncio.gather(*name.serving, return_exceptions=True)
