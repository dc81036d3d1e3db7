"""A server that answers byte for byte what a test tells it, one request a connection, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

STALL = object()
RESET = object()
Step = bytes | object
Answer = list[Step]


class Scripted:
    """`answers` are used up in turn; the last one is given again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[dict[str, str]] = []
        self.port = 0
        self.scheme = "http"
        self._stalled: list[asyncio.StreamWriter] = []

    @property
    def origin(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):  # a connection without request
            writer.close()
            return
        pairs = (line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        self.asked.append({name.lower(): value for name, value in pairs} | {"path": head.split(" ")[1]})
        for step in self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]:
            if step is STALL:
                self._stalled.append(writer)
                return
            if step is RESET:
                writer.transport.abort()
                return
            writer.write(step)  # type: ignore[arg-type]
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    def release(self) -> None:
        for writer in self._stalled:
            writer.close()


@asynccontextmanager
async def scripted(*, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Scripted]:
    script = Scripted()
    script.scheme = "https" if tls else "http"
    server = await asyncio.start_server(script.serve, "127.0.0.1", port, ssl=tls)
    script.port = server.sockets[0].getsockname()[1]
    async with server:
        yield script
        script.release()


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} x", "Content-Type: audio/wav", *lines, "", ""]).encode()


def whole(content: bytes, *lines: str, cut: int | None = None) -> Answer:
    """Answer 200, perhaps with fewer bytes than told."""
    return [head(200, f"Content-Length: {len(content)}", *lines), content[:cut]]


def rest(content: bytes, start: int, *lines: str, cut: int | None = None, told: str | None = None) -> Answer:
    """Answer 206 from some byte on."""
    span = told or f"bytes {start}-{len(content) - 1}/{len(content)}"
    return [head(206, f"Content-Length: {len(content) - start}", f"Content-Range: {span}", *lines), content[start:cut]]
