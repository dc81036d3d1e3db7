"""A bound on how many requests of one kind run at once. A few more wait for their turn; the rest are refused."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from shared import metrics
from shared.errors import CallfoldError

_AT_ONCE = {
    "look-ups": 4,
    "details": 8,
    "annotations": 8,
    "looks at dead letters": 1,
    "changes of dead letters": 2,
    "changes of webhooks": 2,
    "tests of webhooks": 4,
    "recordings": 4,
    "waveforms": 2,
    "previews": 2,
}
# Of the requests of one key that wait for a slot, and how long each waits.
_WAITING, _WAIT_S = 100, 10


class TooBusyError(CallfoldError):
    """The console serves as many requests of a kind as it may. The request was refused before any work."""


class Slots:
    """Slots for requests of one kind. The keys that wait take turns, so one key with many requests cannot delay another much."""

    def __init__(self, kind: str, *, at_once: int, waiting: int, wait_s: float) -> None:
        """`kind` is a plural for the answer and the metric; `waiting` is the most requests of one key that wait."""
        self._kind = kind
        self._free = at_once
        self._waiting = waiting
        self._wait_s = wait_s
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @classmethod
    def of(cls, kind: str) -> Self:
        """Create the slots for one of the console's kinds of requests."""
        return cls(kind, at_once=_AT_ONCE[kind], waiting=_WAITING, wait_s=_WAIT_S)

    @asynccontextmanager
    async def one(self, key: str) -> AsyncIterator[None]:
        """Hold one slot.

        Raises:
            TooBusyError: too many requests of this key wait, or the wait took too long.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(key)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, key: str) -> None:
        line = self._lines.setdefault(key, deque())
        if len(line) >= self._waiting:
            raise self._too_busy(f"{self._waiting} {self._kind} of this key wait already")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await asyncio.shield(turn)
        except BaseException as error:
            self._leave(key, turn)
            if isinstance(error, TimeoutError):
                raise self._too_busy(f"no slot for {self._kind} became free within {self._wait_s:g} s") from None
            raise

    def _leave(self, key: str, turn: asyncio.Future[None]) -> None:
        if turn.done():  # the slot was passed on at the same moment
            self._pass_on()
            return
        line = self._lines[key]
        line.remove(turn)
        if not line:
            del self._lines[key]

    def _pass_on(self) -> None:
        """Give the slot to the key whose turn is next, or free it."""
        if not self._lines:
            self._free += 1
            return
        key, line = self._lines.popitem(last=False)
        line.popleft().set_result(None)
        if line:
            self._lines[key] = line

    def _too_busy(self, why: str) -> TooBusyError:
        metrics.CONSOLE_REFUSED.labels(self._kind).inc()
        return TooBusyError(f"The console is busy: {why}. Send fewer requests at once, or use another console.")


@dataclass(frozen=True, slots=True)
class RequestSlots:
    """The slots of requests that cost much.

    Attributes:
        lookups: mostly CPU time of this process.
        details: mostly a wait for the journal and the archive.
        annotations: each has a large body in memory while it is published.
        looks: at dead letters. RabbitMQ lets one client look at a time, and asking it again and again costs much.
        changes: redrives and drops. They also run one at a time; a second one waits to say so.
        endpoint_changes: of webhooks. They run one at a time too.
        trials: test events, each of which may wait for its receiver.
    """

    lookups: Slots = field(default_factory=lambda: Slots.of("look-ups"))
    details: Slots = field(default_factory=lambda: Slots.of("details"))
    annotations: Slots = field(default_factory=lambda: Slots.of("annotations"))
    looks: Slots = field(default_factory=lambda: Slots.of("looks at dead letters"))
    changes: Slots = field(default_factory=lambda: Slots.of("changes of dead letters"))
    endpoint_changes: Slots = field(default_factory=lambda: Slots.of("changes of webhooks"))
    trials: Slots = field(default_factory=lambda: Slots.of("tests of webhooks"))
