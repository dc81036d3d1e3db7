"""A connection to a server that ends after so many bytes: reset, as when the server is killed, or closed as by a load balancer."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass


@dataclass(slots=True)
class CutWire:
    """`budgets` says for each connection in turn how many bytes pass; 0 ends it before the server is asked. Half of them are closed."""

    server_port: int
    budgets: Iterator[int]
    port: int = 0
    cut: int = 0

    async def serve(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        self.cut += 1
        left = next(self.budgets)
        if not left:
            await self._end(near_writer)
            return
        far, far_writer = await asyncio.open_connection("127.0.0.1", self.server_port)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal left
            while left > 0 and (data := await reader.read(min(left, 200))):
                left -= len(data)
                writer.write(data)

        try:
            await _until_one_ends(carry(near, far_writer), carry(far, near_writer))
        finally:
            for writer in (near_writer, far_writer):
                await self._end(writer)

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        if self.cut % 4 < 2:
            opened: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):
                opened.shutdown(socket.SHUT_WR)
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def cut_wire(server_port: int, budgets: Iterator[int]) -> AsyncIterator[CutWire]:
    wire = CutWire(server_port, budgets)
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    # What it accepts inherits this: closing resets at once.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.port = listener.getsockname()[1]
    async with await asyncio.start_server(wire.serve, sock=listener):
        yield wire


@asynccontextmanager
async def tls_in_front(server_port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve a plain server with TLS; returns the port. A wire in front of it is cut in handshakes and records too."""

    async def serve(near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        far, far_writer = await asyncio.open_connection("127.0.0.1", server_port)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)

        try:
            await _until_one_ends(carry(near, far_writer), carry(far, near_writer))
        finally:
            for writer in (near_writer, far_writer):
                writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def _until_one_ends(*directions: Coroutine[object, object, None]) -> None:
    tasks = [asyncio.ensure_future(each) for each in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
