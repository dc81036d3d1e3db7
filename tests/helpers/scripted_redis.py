"""A fake Redis that answers the handshake as a master, and each other command with one scripted reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_INFO = b"# Replication\r\nrole:master\r\n"
_HANDSHAKE = {b"CLIENT": b"+OK\r\n", b"INFO": b"$%d\r\n%s\r\n" % (len(_INFO), _INFO)}


@dataclass(slots=True)
class ScriptedRedis:
    """`reply` is sent for each command, as bytes of the protocol."""

    reply: bytes
    port: int = 0
    commands: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while command := await _command(reader):
                if command not in _HANDSHAKE:
                    self.commands.append(command)
                writer.write(_HANDSHAKE.get(command, self.reply))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _command(reader: asyncio.StreamReader) -> bytes:
    """Read one command and return its name in upper case."""
    parts = []
    for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return parts[0].upper()


@asynccontextmanager
async def scripted_redis(reply: bytes) -> AsyncIterator[ScriptedRedis]:
    fake = ScriptedRedis(reply)
    async with await asyncio.start_server(fake.serve, "127.0.0.1", 0) as listener:
        fake.port = listener.sockets[0].getsockname()[1]
        yield fake
