"""HTTP over a raw connection: bytes in segments of the test's choosing, and the responses that come back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tests.helpers.pace import LIMIT_S

_FORM_TYPE = "Content-Type: application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection to a server on this machine."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *segments: bytes) -> None:
        for segment in segments:
            self.writer.write(segment)
            await self.writer.drain()
            if len(segments) > 1:
                await asyncio.sleep(0.05)  # so that the next segment arrives alone

    async def response(self) -> tuple[int, bytes]:
        """Read one response; returns status and body."""
        async with asyncio.timeout(LIMIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].split()[0])
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def status(self) -> int:
        return (await self.response())[0]

    async def is_closed(self) -> bool:
        """Wait until the server has closed the connection; what it sends before is read."""
        async with asyncio.timeout(LIMIT_S):
            with suppress(ConnectionError):
                while await self.reader.read(1 << 16):
                    pass
        return True

    async def is_open(self, request: bytes) -> bool:
        """Return whether the server still answers here."""
        try:
            await self.send(request)
            return await self.status() > 0
        except (ConnectionError, asyncio.IncompleteReadError):
            return False


@asynccontextmanager
async def connected_to(port: int, *, buffer_bytes: int = 0) -> AsyncIterator[Connection]:
    """Open a connection for the body; `buffer_bytes` limits what the kernel receives before it is read."""
    wire = socket.socket()
    wire.setblocking(False)  # noqa: FBT003 - the standard library's argument
    if buffer_bytes:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    await asyncio.get_running_loop().sock_connect(wire, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=wire)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def get(target: str, *headers: str) -> bytes:
    return "\r\n".join((f"GET {target} HTTP/1.1", "Host: x", *headers, "", "")).encode()


def post(target: str, *headers: str, body: bytes = b"", length: int | None = None) -> bytes:
    """Write a form, unless a header has another type; `length` announces another length than that of the body."""
    announced = f"Content-Length: {len(body) if length is None else length}"
    if any(header.startswith("Transfer-Encoding") for header in headers):
        announced = "X-Length: none"
    kind = () if any(header.startswith("Content-Type:") for header in headers) else (_FORM_TYPE,)
    return "\r\n".join((f"POST {target} HTTP/1.1", "Host: x", *kind, announced, *headers, "", "")).encode() + body
