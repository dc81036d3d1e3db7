"""The nemesis: one fault after the other, sometimes two at once, in an order that a seed determines."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from tests.chaos.act import Act
from tests.chaos.faults import Draw, kinds
from tests.chaos.options import Options
from tests.chaos.processes import Supervisor
from tests.chaos.recovery import Prober
from tests.chaos.system import System

_PAUSE_S = (1.5, 4)
_LONGEST = 4


@dataclass(slots=True)
class Nemesis:
    """Does faults to a system, and writes each with its begin, its end, and when the system worked again."""

    system: System
    supervisor: Supervisor
    prober: Prober
    options: Options
    done: int = 0
    _rng: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.options.seed)  # noqa: S311 - repeatable on purpose

    async def rage(self, seconds: float) -> None:
        """Do faults for so long, and on until enough kinds were done, but no more than four times as long.

        The last fault is seen through.
        """
        began, kinds_done = time.monotonic(), set[str]()
        for acts in self._plan(self.wanted()):
            await asyncio.sleep(self._rng.uniform(*_PAUSE_S))
            passed_s, is_enough = time.monotonic() - began, len(kinds_done) >= self.options.least_kinds
            if passed_s > seconds * (1 if is_enough else _LONGEST):
                return
            await self._do(acts, round(passed_s))
            kinds_done.update(act.kind for act in acts)

    def wanted(self) -> dict[str, Draw]:
        """Return the kinds of faults that the options allow."""
        return {kind: draw for kind, draw in kinds(self.system, self.supervisor).items() if self.options.is_wanted(kind)}

    def _plan(self, drawn: dict[str, Draw]) -> Iterator[list[Act]]:
        """Yield what happens: every kind once before any happens again."""
        while drawn:
            deck = self._rng.sample(sorted(drawn), len(drawn))
            while deck:
                acts = [drawn[deck.pop()](self._rng)]
                if deck and self._rng.random() < self.options.overlap:
                    second = drawn[deck[-1]](self._rng)
                    if second.group != acts[0].group:
                        deck.pop()
                        acts.append(second)
                yield acts

    async def _do(self, acts: Sequence[Act], at_s: int) -> None:
        numbers = range(self.done, self.done + len(acts))
        self.done += len(acts)
        held = [act.hold_s * self.options.scale for act in acts]
        # The second begins in the middle of the first, and both end before anything is measured.
        begins = [0.0, held[0] / 2]
        async with asyncio.TaskGroup() as group:
            for number, act, hold_s, delay_s in zip(numbers, acts, held, begins, strict=False):
                group.create_task(self._hold(number, act, hold_s, delay_s))
        ended = time.time()
        recovered = await self.prober.recovered()
        for number in numbers:
            self._log(number, recovered=recovered, end=ended)
        what = " and ".join(f"{act.kind} of {act.target} for {hold_s:.1f} s" for act, hold_s in zip(acts, held, strict=True))
        outcome = "NOT RECOVERED" if recovered is None else f"recovered after {recovered - ended:.1f} s"
        sys.stdout.write(f"{at_s // 60:02}:{at_s % 60:02} fault {numbers[0] + 1:3}: {what}; {outcome}\n")
        sys.stdout.flush()

    async def _hold(self, number: int, act: Act, hold_s: float, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self._log(number, kind=act.kind, target=act.target, begin=time.time())
        async with AsyncExitStack() as ending:
            ending.push_async_callback(act.end)  # also if it began by half, or the run is interrupted
            await act.begin()
            await asyncio.sleep(hold_s)
        self._log(number, end=time.time())

    def _log(self, number: int, **values: object) -> None:
        path: Path = self.system.audit / "faults.jsonl"
        with path.open("ab") as file:
            file.write(orjson.dumps({"n": number, **values}) + b"\n")
