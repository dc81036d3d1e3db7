"""The processes of two releases on shared servers, each behind links of its own, and the faults that a seed draws for them."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections import Counter
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from console.local.child_process import ProcessFailedError
from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from console.local.stack import LocalStack
from tests.chaos.links import Link, Links
from tests.helpers.pace import PACE

_POINTS = ("fold.merged", "fold.claimed", "fold.published", "fold.marked", "fold.before_ack", "fold.acked")
_WEIGHTS = {
    "kill": 4,
    "stop": 3,
    "crash": 5,
    "freeze": 2,
    "redis restart": 1,
    "redis kill": 1,
    "rabbitmq restart": 1,
    "rabbitmq kill": 1,
    "cut": 2,
    "refuse": 2,
    "stall": 2,
    "half stall": 2,
}
_BROKEN: Mapping[str, Mapping[str, object]] = {
    "refuse": {"refuse": True},
    "stall": {"stall": ["up", "down"]},
    "half stall": {"stall": ["down"]},
}
_OUTAGE_S = (0.5, 6.0)


@dataclass(slots=True)
class Place:
    """Where a process of a release runs: after its end, another one is started here."""

    module: str
    release: str
    name: str
    settings: dict[str, str] = field(default_factory=dict)
    role: ServiceProcess | None = None

    @property
    def is_running(self) -> bool:
        return self.role is not None and self.role.is_running


class Rollout:
    """Two workers and an ingress of each release."""

    def __init__(self, fleet: Fleet, stack: LocalStack, links: Links, first: Mapping[str, str], seed: int) -> None:
        """Prepare; `first` is the environment in which the first release runs."""
        self._fleet = fleet
        self._stack = stack
        self._links = links
        self._environments: Mapping[str, Mapping[str, str]] = {"first": first, "this": {}}
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._numbers = itertools.count(1)
        self._due: list[str] = []
        self._outages: dict[str, asyncio.Task[None]] = {}
        self.places = [
            Place(module, release, f"{release}-{module}-{number}")
            for release in ("first", "this")
            for module, number in (("worker", 1), ("worker", 2), ("ingress", 1))
        ]
        self.ports: list[int] = []
        self.counts = Counter[str]()

    async def lay_links(self) -> None:
        """Lead the links of each process through the proxy."""
        rabbitmq, redis = self._stack.rabbitmq.port, self._stack.redis.port
        for place in self.places:
            amqp = await self._links.open("rabbitmq", place.name, "rabbitmq", rabbitmq)
            place.settings["CALLFOLD_AMQP_URL"] = f"amqp://guest:guest@127.0.0.1:{amqp}/"
            if place.module == "worker":
                port = await self._links.open("redis", place.name, "redis", redis)
                place.settings["CALLFOLD_REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
            else:
                self.ports.append(free_port())
                place.settings["CALLFOLD_INGRESS_PORT"] = str(self.ports[-1])

    async def start(self, place: Place, **settings: str) -> None:
        if place.role is not None:
            self._fleet.processes.remove(place.role)
        name = f"{place.name}-{next(self._numbers)}"
        place.role = self._fleet.add(name, place.module, {**self._environments[place.release], **place.settings, **settings})
        await place.role.start()

    async def revive(self) -> None:
        """Start again what has ended, as by a crash point. What cannot start during an outage is left for the next time."""
        for place in self.places:
            if not place.is_running:
                try:
                    await self.start(place)
                except ProcessFailedError:
                    self.counts["start failed"] += 1
                    if not self._outages:
                        raise

    async def heal(self) -> None:
        """Wait for the end of all outages, and start what has ended."""
        await asyncio.gather(*self._outages.values())
        await self.revive()

    async def fault(self) -> None:
        """Let one random fault happen, each kind as often as its weight before any happens more often.

        An outage of a link and a freeze last on, while other faults happen.
        """
        if not self._due:
            self._due = [name for name, weight in _WEIGHTS.items() for _ in range(weight)]
            self._random.shuffle(self._due)
        name = self._due.pop()
        self.counts[name] += 1
        what, _, how = name.partition(" ")
        if what in {"redis", "rabbitmq"}:
            server = self._stack.redis if what == "redis" else self._stack.rabbitmq
            await (server.kill() if how == "kill" else server.stop())
            await server.start()
        elif name == "cut":
            await self._links.cut(self._random.choice(list(self._links.links.values())))
        elif name in _BROKEN:
            self._begin_outage(name)
        elif name == "freeze":
            self._freeze()
        else:
            await self._end(name)

    def _begin_outage(self, name: str) -> None:
        link = self._random.choice([link for link in self._links.links.values() if link.name not in self._outages])
        self._last_for(link.name, self._break(link, name, self._length_s()))

    async def _break(self, link: Link, name: str, length_s: float) -> None:
        await self._links.set(link, **_BROKEN[name])
        await asyncio.sleep(length_s)  # the length of the outage
        await self._links.set(link)

    def _freeze(self) -> None:
        place = self._random.choice([place for place in self.places if place.is_running and place.name not in self._outages])
        if place.role is not None:
            self._last_for(place.name, _freeze(place.role, self._length_s()))

    def _length_s(self) -> float:
        return self._random.uniform(*_OUTAGE_S) * PACE

    def _last_for(self, name: str, outage: Coroutine[object, object, None]) -> None:
        async def last() -> None:
            try:
                await outage
            finally:
                del self._outages[name]

        self._outages[name] = asyncio.create_task(last())

    async def _end(self, name: str) -> None:
        workers = [place for place in self.places if place.module == "worker"]
        place = self._random.choice(workers if name == "crash" else self.places)
        if place.role is not None and place.is_running:
            with suppress(ProcessFailedError):  # a worker may reach its crash point in the meantime
                await place.role.stop(signal.SIGTERM if name == "stop" else signal.SIGKILL)
        with suppress(ProcessFailedError):  # it may reach the point before it is ready, or its link is broken
            await self.start(place, **({"CALLFOLD_CRASH_AT": self._random.choice(_POINTS)} if name == "crash" else {}))


async def _freeze(process: ServiceProcess, length_s: float) -> None:
    with suppress(ProcessFailedError, ProcessLookupError):  # it may have just ended, or be killed meanwhile
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(length_s)  # the length of the freeze
        process.send_signal(signal.SIGCONT)
