"""Redis loses its state again and again, at random moments, while workers are killed before, during and after each rebuild."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from console.local.processes import ServiceProcess
from tests.chaos.act import Act
from tests.chaos.nemesis import Nemesis
from tests.chaos.processes import kill, launch

_PAUSE_S = (0.2, 8)
_AGAIN = 0.25
"""The share of losses during whose rebuild another one follows."""
_AGAIN_S = (0.2, 8)
_KILLS = (0, 1, 1, 2, 2, 3)
_KILL_PAUSE_S = (0, 8)
_DOWN_S = (0, 4)


@dataclass(frozen=True, slots=True)
class _Kill:
    pause_s: float
    worker: ServiceProcess
    down_s: float


@dataclass(slots=True)
class Losses(Nemesis):
    """Loses the state of Redis so many times; `kills` has the time of each kill of a worker."""

    kills: list[float] = field(default_factory=list)
    windows: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of each time without a complete state, one for losses that follow each other."""

    async def lose(self, count: int) -> None:
        """Lose the state so many times; returns when the system has recovered from the last one."""
        began = time.monotonic()
        losses = self._plan(self.wanted())
        while self.done < count:
            await asyncio.sleep(self._rng.uniform(*_PAUSE_S))
            acts = next(losses)
            if self._rng.random() < _AGAIN and self.done + 1 < count:
                acts += next(losses)
            await self._lose(acts, round(time.monotonic() - began))

    async def _lose(self, acts: Sequence[Act], at_s: int) -> None:
        """Do one loss, or two in a row. Workers are killed from the first one on, also while the state is rebuilt."""
        first = self.done
        self.done += len(acts)
        pauses_s = [0.0, self._rng.uniform(*_AGAIN_S)]
        kills = [
            _Kill(self._rng.uniform(*_KILL_PAUSE_S), self._rng.choice(self.system.workers), self._rng.uniform(*_DOWN_S))
            for _ in range(self._rng.choice(_KILLS))
        ]
        began = time.time()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kill(kills))
            for number, (act, pause_s) in enumerate(zip(acts, pauses_s, strict=False), first):
                await self._hold(number, act, act.hold_s, pause_s)
            ended = time.time()
            recovered = await self.prober.recovered()
        for number in range(first, self.done):
            self._log(number, recovered=recovered, end=ended)
        self.windows.append((began, recovered or time.time()))
        what = ", then ".join(f"{act.kind} ({act.target})" for act in acts)
        outcome = "NOT RECOVERED" if recovered is None else f"recovered after {recovered - ended:.1f} s"
        text = f"loss {first + 1:3}: {what}; {len(kills)} workers killed; {outcome}"
        sys.stdout.write(f"{at_s // 60:02}:{at_s % 60:02} {text}\n")
        sys.stdout.flush()

    async def _kill(self, kills: Sequence[_Kill]) -> None:
        for each in kills:
            await asyncio.sleep(each.pause_s)
            self.supervisor.leave(each.worker)
            await kill(each.worker)
            self.kills.append(time.time())
            await asyncio.sleep(each.down_s)
            await launch(each.worker)
            self.supervisor.watch([each.worker])

    def figures(self) -> Mapping[str, Any]:
        """Return how many workers were killed, and what they logged about rebuilds."""
        begun, finished = self._logged("rebuild_started"), self._logged("rebuild_finished")
        noticed = self._logged("state_lost")
        unnoticed = [began for began, ended in self.windows if not any(began <= at <= ended + 1 for at in noticed)]
        return {
            "kills": len(self.kills),
            "kills_before_recovery": sum(any(began <= at <= ended for began, ended in self.windows) for at in self.kills),
            "rebuilds_begun": len(begun),
            "rebuilds_finished": len(finished),
            "losses_in_a_row": self.done - len(self.windows),
            "losses_unnoticed": len(unnoticed),
        }

    def _logged(self, event: str) -> list[float]:
        """Return the times at which workers logged an event. A line that a kill cut off is left out."""
        times = []
        for worker in self.system.workers:
            for line in worker.log_path.read_bytes().splitlines():
                if event.encode() in line:
                    with suppress(orjson.JSONDecodeError):
                        times.append(datetime.fromisoformat(orjson.loads(line)["timestamp"]).timestamp())
        return times
