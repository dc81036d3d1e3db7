"""The terminal view of a running system: open calls, outcomes, recordings, callbacks per second."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from shared.config.settings import Settings
from shared.domain.call import Status, derive
from shared.state.store import Store
from simulator.focalscope import FocalScope

_REFRESH_S = 0.25
_LINE_EVERY_S = 2.0


@dataclass(slots=True)
class Progress:
    """Counts of the published events."""

    total: int
    outcomes: Counter[str] = field(default_factory=Counter)
    recordings: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    dialed: int
    open: int
    talking: int
    callbacks: int
    per_second: float


@asynccontextmanager
async def live(console: Console, progress: Progress, store: Store, settings: Settings, pbx: FocalScope) -> AsyncIterator[None]:
    """Show progress while the body runs: a live panel on a terminal, else a line every few seconds."""
    watch = _watch_terminal if console.is_terminal else _watch_lines
    task = asyncio.get_running_loop().create_task(watch(console, progress, _Sampler(store, settings, pbx)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Sampler:
    def __init__(self, store: Store, settings: Settings, pbx: FocalScope) -> None:
        self._store, self._policy, self._pbx = store, settings.policy, pbx
        self._last = (time.monotonic(), 0)
        self._rate = 0.0

    async def sample(self) -> _Snapshot:
        facts = await self._store.read_facts(await self._store.open_calls())
        calls = [derive(key, known, self._policy) for key, known in facts.items() if known]
        callbacks = self._pbx.counters["200"]
        now = time.monotonic()
        if now - self._last[0] >= 1:
            self._rate = (callbacks - self._last[1]) / (now - self._last[0])
            self._last = (now, callbacks)
        talking = sum(call.status is Status.TALKING for call in calls)
        return _Snapshot(len(self._pbx.truths), len(calls), talking, callbacks, self._rate)


async def _watch_terminal(console: Console, progress: Progress, sampler: _Sampler) -> None:
    with Live(console=console, refresh_per_second=4) as screen:
        while True:
            screen.update(_panel(progress, await sampler.sample()))
            await asyncio.sleep(_REFRESH_S)


async def _watch_lines(console: Console, progress: Progress, sampler: _Sampler) -> None:
    while True:
        now = await sampler.sample()
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items())) or "none yet"
        console.print(
            f"dialed {now.dialed}/{progress.total}  open {now.open}  talking {now.talking}  "
            f"callbacks {now.callbacks} ({now.per_second:.0f}/s)  recordings {progress.recordings}  completed: {outcomes}",
            highlight=False,
        )
        await asyncio.sleep(_LINE_EVERY_S)


def _panel(progress: Progress, now: _Snapshot) -> Panel:
    table = Table.grid(padding=(0, 3))
    table.add_row("dialed", f"{now.dialed} of {progress.total}")
    table.add_row("open", str(now.open))
    table.add_row("talking", str(now.talking))
    for name, count in sorted(progress.outcomes.items()):
        table.add_row(f"completed: {name}", f"[green]{count}[/]")
    table.add_row("recordings stored", str(progress.recordings))
    table.add_row("callbacks", f"{now.callbacks}  ({now.per_second:.0f} per second)")
    return Panel(table, title="Callfold", expand=False)
