"""A connection to a server that can freeze: it stays open, and carries nothing. New connections are carried again after a thaw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class FrozenWire:
    server_port: int
    port: int = 0
    _is_frozen: bool = False
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def freeze(self) -> None:
        """Carry nothing more, of connections that are open and of new ones."""
        self._is_frozen = True

    def thaw(self) -> None:
        """Carry new connections. Those that were frozen stay so."""
        self._is_frozen = False

    async def serve(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        far, far_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        self._writers |= {near_writer, far_writer}
        is_frozen = self._is_frozen

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal is_frozen
            with suppress(OSError):
                while data := await reader.read(65536):
                    is_frozen = is_frozen or self._is_frozen
                    if not is_frozen:
                        writer.write(data)

        await asyncio.gather(carry(near, far_writer), carry(far, near_writer))

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def frozen_wire(server_port: int) -> AsyncIterator[FrozenWire]:
    wire = FrozenWire(server_port)
    async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as server:
        wire.port = server.sockets[0].getsockname()[1]
        yield wire
        wire.close()
