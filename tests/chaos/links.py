"""The links of the system under test: each leads through our TCP proxy, which the nemesis can break."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from console.local.child_process import kill_with_parent
from console.local.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Link:
    """All wires between two parties. `kind` is what a fault is named after: `worker-redis`."""

    kind: str
    name: str
    wires: list[str] = field(default_factory=list)


class Links:
    """`async with Links()` runs the proxy."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self.links: dict[str, Link] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *kill_with_parent(),
            sys.executable,
            "-m",
            "tests.chaos.wires",
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def open(self, kind: str, client: str, server: str, to: int, *, port: int | None = None) -> int:
        """Add a wire to the link between two parties; returns the port where the client connects."""
        port = port or free_port()
        link = self.links.setdefault(f"{client}>{server}", Link(kind, f"{client}>{server}"))
        wire = f"{link.name}#{len(link.wires)}"
        link.wires.append(wire)
        await self._send({"do": "open", "wire": wire, "port": port, "to": to})
        return port

    async def set(self, link: Link, **values: object) -> None:
        """Break a link; without values make it whole."""
        await self._send({"do": "set", "wires": link.wires, **values})

    async def cut(self, link: Link) -> None:
        await self._send({"do": "cut", "wires": link.wires})

    async def half_open(self, link: Link, side: str) -> None:
        await self._send({"do": "half", "wires": link.wires, "side": side})

    def of(self, kinds: Sequence[str]) -> list[Link]:
        return [link for link in self.links.values() if link.kind in kinds]

    async def _send(self, command: dict[str, object]) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError("the proxy does not run")
        async with self._lock:
            process.stdin.write(json.dumps(command).encode() + b"\n")
            await process.stdin.drain()
            if await process.stdout.readline() != b"done\n":
                raise RuntimeError(f"the proxy failed at {command}")
