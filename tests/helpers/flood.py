"""One source that sends whole calls as fast as ingress answers, from a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context

import uvloop

from tests.helpers.servers import lines_of

FIRST_CALL = 1_000_000
_PAUSE_S = 0.01


@dataclass(slots=True)
class Flooded:
    """What was answered, and the calls of which every callback was answered 200."""

    statuses: Counter[int] = field(default_factory=Counter)
    calls: list[int] = field(default_factory=list)


async def flood(port: int, source: str, for_s: float, *, connections: int = 50) -> Flooded:
    """Flood ingress from another process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, _flood_here, port, source, for_s, connections)


def _flood_here(port: int, source: str, for_s: float, connections: int) -> Flooded:
    return uvloop.run(_flood(port, source, for_s, connections))


async def _flood(port: int, source: str, for_s: float, connections: int) -> Flooded:
    flooded, numbers, until = Flooded(), itertools.count(FIRST_CALL), time.monotonic() + for_s

    async def connection() -> None:
        while time.monotonic() < until:
            with suppress(OSError, asyncio.IncompleteReadError):
                await _calls(port, source, numbers, until, flooded)
            await asyncio.sleep(_PAUSE_S)

    await asyncio.gather(*(connection() for _ in range(connections)))
    return flooded


async def _calls(port: int, source: str, numbers: itertools.count[int], until: float, flooded: Flooded) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.monotonic() < until:
            call = next(numbers)
            statuses = []
            for line in lines_of(call):
                writer.write(f"GET /callbacks/{source}?{line} HTTP/1.1\r\nHost: ingress\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                statuses.append(int(head[9:12]))
                flooded.statuses[statuses[-1]] += 1
            if set(statuses) == {200}:
                flooded.calls.append(call)
    finally:
        writer.close()
