"""Sends requests over raw sockets, several connections side by side, and reads what is answered."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import uvloop

from tests.helpers.fuzz import FuzzRequest
from tests.helpers.pace import LIMIT_S

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_PIPELINED = 16
# A server may wait for the rest of a body that will not come, or for the next request. The client leaves then.
_LEAVES_AFTER_S = 0.5


@dataclass(slots=True)
class Outcome:
    """What was answered to each request, by its number: statuses, and a dash for `nothing, and the connection ended`."""

    statuses: dict[int, list[str]] = field(default_factory=dict)
    hangs: list[int] = field(default_factory=list)
    seconds: float = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    is_last: bool


def attack_here(port: int, make: Callable[[int], FuzzRequest], numbers: Iterable[int], for_s: float, connections: int) -> Outcome:
    """Attack from a process of its own."""
    return uvloop.run(attack(port, make, numbers, for_s, connections))


async def attack(
    port: int, make: Callable[[int], FuzzRequest], numbers: Iterable[int], for_s: float, connections: int
) -> Outcome:
    """Send requests of these numbers until all are sent or the time is over, and read all answers."""
    outcome, began = Outcome(), time.monotonic()
    shared = iter(numbers)
    sound: list[FuzzRequest] = []

    async def connection() -> None:
        for number in shared:
            request = make(number)
            if not request.is_sound:
                await _alone(port, request, outcome)
            else:
                sound.append(request)
                if len(sound) == _PIPELINED:
                    taken = sound[:]
                    sound.clear()
                    await _pipelined(port, taken, outcome)
            if time.monotonic() > began + for_s:
                break

    await asyncio.gather(*(connection() for _ in range(connections)))
    await _pipelined(port, sound, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


async def _pipelined(port: int, requests: list[FuzzRequest], outcome: Outcome) -> None:
    """Send sound requests on one connection at once; one that ends the connection leaves those after it unanswered."""
    while requests:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answered = 0
        try:
            async with asyncio.timeout(LIMIT_S):
                writer.write(b"".join(request.raw for request in requests))
                is_last = False
                while answered < len(requests) and not is_last:
                    answer = await _answer(reader, requests[answered].raw)
                    outcome.statuses[requests[answered].number] = [answer.status if answer else "-"]
                    is_last = answer is None or answer.is_last
                    answered += 1
        except TimeoutError:
            outcome.hangs.append(requests[answered].number)
            answered += 1
        finally:
            await _closed(writer)
        requests = requests[answered:]


async def _alone(port: int, request: FuzzRequest, outcome: Outcome) -> None:
    """Send one request on its own connection, and read until the connection ends."""
    statuses = outcome.statuses[request.number] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.raw)
    may_wait = not request.is_owed_an_answer
    try:
        while True:
            async with asyncio.timeout(_LEAVES_AFTER_S if may_wait else LIMIT_S):
                answer = await _answer(reader, request.raw)
            if answer is None:
                break
            statuses.append(answer.status)
            if answer.is_last:
                break
            may_wait = True
    except TimeoutError:
        if may_wait:
            statuses.append("left")
        else:
            outcome.hangs.append(request.number)
    finally:
        await _closed(writer)


async def _answer(reader: asyncio.StreamReader, raw: bytes) -> _Answer | None:
    """Read one final answer; None if the connection ended before it."""
    with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            status = _STATUS.match(head)
            assert status, f"not HTTP: {head[:200]!r}"
            if not status[1].startswith(b"1"):
                break
        text, is_last = status[1].decode(), bool(_CLOSES.search(head)) or head.startswith(b"HTTP/1.0")
        length = _LENGTH.search(head)
        if length is None and text not in {"204", "304"}:
            return _Answer(f"{text} stream", is_last=True)
        if length and not raw.startswith(b"HEAD") and text != "304":
            body = await reader.readexactly(int(length[1]))
            if b'"parameter"' in body or b"is kept as a dead letter" in body:
                text = f"{text} kept"
        return _Answer(text, is_last)
    return None


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(LIMIT_S):
            await writer.wait_closed()
