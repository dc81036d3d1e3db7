"""Our own TCP proxy: one process that carries every link of the system under test, and breaks any of them on request.

    python -m tests.chaos.wires

It reads commands from standard input, one JSON object a line, and answers each with one line:

    {"do": "open", "wire": "worker-1>redis", "port": 20001, "to": 20002}
    {"do": "set", "wires": [...], "refuse": true, "stall": ["up", "down"], "latency_s": 0.2, "bytes_per_s": 2000}
    {"do": "set", "wires": [...], "stall": ["down"], "replicas_only": true}
    {"do": "cut", "wires": [...]}                     resets every connection
    {"do": "half", "wires": [...], "side": "far"}     resets one side; the other learns nothing

"up" is from the client to the server. A `set` without values makes a wire whole again. `replicas_only` stalls the replication of
a Redis server, and leaves its other clients alone.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_CHUNK_BYTES = 64 * 1024
_SLOW_CHUNK_BYTES = 2048
_RESET = struct.pack("ii", 1, 0)
_REPLICATION = b"PSYNC"


@dataclass(slots=True, eq=False)
class _Connection:
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    is_half: bool = False
    is_replica: bool = False


@dataclass(slots=True)
class Wire:
    """One link: it listens on `port`, and connects to `to`."""

    port: int
    to: int
    refuse: bool = False
    stall: frozenset[str] = frozenset()
    replicas_only: bool = False
    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    connections: set[_Connection] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    server: asyncio.Server | None = None

    async def listen(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_CHUNK_BYTES, backlog=200)

    async def set(
        self,
        *,
        refuse: bool = False,
        stall: tuple[str, ...] = (),
        replicas_only: bool = False,
        latency_s: float = 0,
        bytes_per_s: float = 0,
    ) -> None:
        self.stall, self.replicas_only = frozenset(stall), replicas_only
        self.latency_s, self.bytes_per_s = latency_s, bytes_per_s
        was_refusing, self.refuse = self.refuse, refuse
        if refuse and not was_refusing and self.server:
            self.server.close()
            self.cut()
        if was_refusing and not refuse:
            await self.listen()
        self.changed.set()
        self.changed = asyncio.Event()

    def cut(self) -> None:
        for connection in tuple(self.connections):
            _reset(connection.near)
            _reset(connection.far)

    def half(self, side: str) -> None:
        for connection in tuple(self.connections):
            connection.is_half = True
            _reset(connection.far if side == "far" else connection.near)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to, limit=_CHUNK_BYTES)
        except OSError:
            _reset(writer)
            return
        connection = _Connection(writer, far_writer)
        self.connections.add(connection)
        ways = ((reader, far_writer, "up"), (far_reader, writer, "down"))
        try:
            await asyncio.gather(*(self._carry(connection, *way) for way in ways))
        finally:
            self.connections.discard(connection)
            for end in (writer, far_writer):
                end.close()

    async def _carry(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        """Carry one direction until it ends; the end is passed on. Half-open, what comes is thrown away."""
        try:
            while data := await reader.read(_SLOW_CHUNK_BYTES if self.bytes_per_s else _CHUNK_BYTES):
                connection.is_replica = connection.is_replica or (way == "up" and _REPLICATION in data)
                await self._pass(connection, way, len(data))
                if not connection.is_half:
                    writer.write(data)
                    await writer.drain()
            await self._pass(connection, way, 0)
            if not connection.is_half and writer.can_write_eof():
                writer.write_eof()
        except (OSError, RuntimeError):
            if not connection.is_half:
                _reset(connection.near)
                _reset(connection.far)

    async def _pass(self, connection: _Connection, way: str, size: int) -> None:
        while way in self.stall and (connection.is_replica or not self.replicas_only):
            await self.changed.wait()
        if delay_s := self.latency_s + (size / self.bytes_per_s if self.bytes_per_s else 0):
            await asyncio.sleep(delay_s)


def _reset(writer: asyncio.StreamWriter) -> None:
    opened: socket.socket | None = writer.get_extra_info("socket")
    if opened is not None:
        with suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def _obey(wires: dict[str, Wire], command: dict[str, Any]) -> None:
    if command["do"] == "open":
        wire = wires[command["wire"]] = Wire(command["port"], command["to"])
        await wire.listen()
        return
    for name in command["wires"]:
        if command["do"] == "cut":
            wires[name].cut()
        elif command["do"] == "half":
            wires[name].half(command["side"])
        else:
            await wires[name].set(**{key: value for key, value in command.items() if key not in {"do", "wires"}})


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    wires: dict[str, Wire] = {}
    while line := await reader.readline():
        await _obey(wires, json.loads(line))
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
