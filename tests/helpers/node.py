"""Programs of Node that a test runs. Their lines are read as JSON where they are that."""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import ROOT

PROGRAMS = ROOT / "tests" / "clients" / "programs"
CLIENT = ROOT / "clients" / "typescript"
_LINE_BYTES = 1 << 20


class NodeProgram:
    """A running program. `lines` is what it has written so far."""

    def __init__(self, process: Process) -> None:
        self.lines: list[Any] = []
        self.process = process
        self._arrived = asyncio.Event()

    async def read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.lines.append(_value(line.decode().rstrip("\n")))
            self._arrived.set()
        self._arrived.set()

    async def until(self, is_met: Callable[[list[Any]], object]) -> list[Any]:
        """Wait until what the program has written meets a condition; returns it."""
        async with asyncio.timeout(LIMIT_S):
            while not is_met(self.lines):
                assert self.process.returncode is None, (self.process.returncode, self.lines)
                self._arrived.clear()
                await self._arrived.wait()
        return self.lines

    async def stop(self) -> int:
        """Send SIGTERM; returns the exit code."""
        self.process.terminate()
        return await self.end()

    async def request(self, *words: str) -> None:
        """Write words to the program, each on one line."""
        assert self.process.stdin
        self.process.stdin.write("".join(f"{word}\n" for word in words).encode())
        await self.process.stdin.drain()

    async def end(self) -> int:
        """Wait for the end of the program; returns its exit code."""
        return await asyncio.wait_for(self.process.wait(), LIMIT_S)


def _value(line: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(line)
    except ValueError:
        return line


@asynccontextmanager
async def node(program: Path, *arguments: str, cwd: Path | None = None, **variables: str) -> AsyncIterator[NodeProgram]:
    """Run a program for as long as the block; what is left of it is killed."""
    process = await asyncio.create_subprocess_exec(
        *("node", str(program), *arguments), cwd=cwd, env=os.environ | variables, stdin=PIPE, stdout=PIPE, limit=_LINE_BYTES
    )
    running = NodeProgram(process)
    reading = asyncio.create_task(running.read())
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading


async def run(*command: str, cwd: Path = ROOT, given: str = "", env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run a command to its end; returns its exit code and what it wrote to stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env={**os.environ, **(env or {})}, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(given.encode()), LIMIT_S)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
