"""Attacks on a running stack, and what they do to good requests: timed before the attack, and during it.

`make attack` runs each attack for `ATTACK_SECONDS` and holds the limits of docs/security.md, which are for a quiet machine. In
`make test` an attack is short, and compared with the same measure without the attack, so that a slow machine does not fail it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from console.local.processes import ServiceProcess
from tests.helpers.pace import LIMIT_S

IS_LONG = "ATTACK_SECONDS" in os.environ
ATTACK_S = float(os.environ.get("ATTACK_SECONDS", "1"))
"""How long one attack lasts."""

STEP_LIMIT_S = 0.05
"""The CPU time that one step of an event loop may take."""

GROWTH_BYTES = 100 << 20
"""How much the resident memory of a process may grow by an attack."""

# Of the short form: a fault that an attack is about costs seconds or minutes, not a multiple of a few milliseconds.
_TIMES_SLOWER = 20
_TIMES_LIMIT = 10
_FEW, _MANY = 3, 20
_PAUSE_S = 0.02


@dataclass(slots=True)
class Timings:
    """How long good requests of one kind took, and what came of those that failed."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def bound(self) -> float:
        """The time that all but the slowest requests kept: of the long form the p99.

        The short form has too few for a p99: a few are left out of many, since a stall of the disk is no attack. If requests are slow
        from the beginning of an attack there are few, and each counts.
        """
        assert self.seconds, "nothing was measured"
        if IS_LONG:
            return self.p99
        count = len(self.seconds)
        left_out = max(_FEW, count // 20) if count >= _MANY else 0
        return sorted(self.seconds)[count - 1 - left_out]

    @property
    def p99(self) -> float:
        assert self.seconds, "nothing was measured"
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]

    def __str__(self) -> str:
        return f"{len(self.seconds)} answered, p99 {self.p99 * 1000:.0f} ms, {len(self.failures)} failed {self.failures[:3]}"


async def measure(good: Callable[[], Awaitable[object]], timings: Timings, ending: asyncio.Event) -> None:
    """Repeat a good request until it ends; one that raises is a failure.

    No request is cancelled within: that could close a channel or a connection which the next one needs.
    """
    while not ending.is_set() or not (timings.seconds or timings.failures):
        began = time.monotonic()
        try:
            async with asyncio.timeout(LIMIT_S):
                await good()
        except Exception as error:  # noqa: BLE001 - what became of it shows in the failure of the test
            timings.failures.append(f"{type(error).__name__}: {error}")
        else:
            timings.seconds.append(time.monotonic() - began)
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), _PAUSE_S)


@asynccontextmanager
async def measuring(good: Callable[[], Awaitable[object]], *, clients: int = 1) -> AsyncIterator[Timings]:
    """Repeat a good request while the body runs; `clients` do so side by side."""
    timings, ending = Timings(), asyncio.Event()
    running = [asyncio.create_task(measure(good, timings, ending)) for _ in range(clients)]
    try:
        yield timings
    finally:
        ending.set()
        await asyncio.gather(*running)


async def undisturbed(good: Callable[[], Awaitable[object]], *, seconds: float = 1.5) -> Timings:
    """Measure a good request without any attack."""
    async with measuring(good) as timings:
        await asyncio.sleep(seconds)
    return timings


def assert_unharmed(during: Timings, before: Timings, *, limit_s: float) -> None:
    """No good request failed, and they kept the limit, or on a machine that is not quiet the multiple of what it was."""
    allowed_s = limit_s if IS_LONG else max(_TIMES_SLOWER * before.p99, _TIMES_LIMIT * limit_s)
    assert not during.failures, f"before: {before}; during the attack: {during}"
    assert during.bound <= allowed_s, f"more than {allowed_s:.3f} s. Before: {before}; during the attack: {during}"


async def longest_step_cpu_s(process: ServiceProcess) -> float:
    """Read how much CPU time the longest step of a process took in the last minute."""
    return (await _figures(process))["callfold_loop_step_cpu_seconds_max"]


@asynccontextmanager
async def within_bounds(*processes: ServiceProcess) -> AsyncIterator[None]:
    """Fail if a process spends too much CPU time on one step of its event loop, or takes more and more memory."""
    limit_s = STEP_LIMIT_S if IS_LONG else _TIMES_LIMIT * STEP_LIMIT_S
    before = [(await _steps_beyond(process, limit_s), resident_bytes(process)) for process in processes]
    yield
    for process, (steps, size) in zip(processes, before, strict=True):
        found = await _steps_beyond(process, limit_s) - steps
        longest_s = await longest_step_cpu_s(process)
        assert not found, f"{process.name}: {found:.0f} steps took more than {limit_s} s of CPU, the longest {longest_s:.3f} s"
        grown = resident_bytes(process) - size
        assert grown < GROWTH_BYTES, f"{process.name}: its resident memory grew by {grown >> 20} MiB"


def resident_bytes(process: ServiceProcess) -> int:
    """Read how much memory a process has now."""
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


async def _steps_beyond(process: ServiceProcess, limit_s: float) -> float:
    figures, name = await _figures(process), "callfold_loop_step_cpu_seconds"
    return figures[f"{name}_count"] - figures[f'{name}_bucket{{le="{limit_s}"}}']


async def _figures(process: ServiceProcess) -> dict[str, float]:
    """Read all metrics of a process at one moment."""
    async with aiohttp.ClientSession() as session, session.get(process.metrics_url) as response:
        lines = (await response.text()).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}
