"""Every kind of fault: what it is done to, how it begins and ends, and for how long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import aiohttp

from console.local.child_process import ChildProcess
from console.local.processes import ServiceProcess
from console.local.stack import Server
from tests.chaos import rabbitmq, redis_faults, redis_losses
from tests.chaos.act import Act, nothing
from tests.chaos.links import Link
from tests.chaos.processes import Supervisor, kill, launch, stop
from tests.chaos.system import System

READY_S = 30

Draw = Callable[[random.Random], Act]


def kinds(system: System, supervisor: Supervisor) -> dict[str, Draw]:
    """Return, for each kind of fault that this system can have, a function that draws one."""
    found = Faults(system, supervisor)
    return {
        **found.of_processes(),
        **found.of_links(),
        **found.of_rabbitmq(),
        **found.of_redis(),
        **found.of_disks(),
        **found.of_clocks(),
        **found.changes(),
    }


class Faults:
    """Draws faults for one system."""

    def __init__(self, system: System, supervisor: Supervisor) -> None:
        self._system = system
        self._supervisor = supervisor

    def _parties(self) -> dict[str, Sequence[ChildProcess]]:
        system = self._system
        assert system.haproxy is not None
        return {
            "rabbitmq": system.nodes,
            "redis": system.redis.servers,
            **({"sentinel": system.redis.sentinels} if system.redis.sentinels else {}),
            "haproxy": [system.haproxy],
            "ingress": system.ingresses,
            "worker": system.workers,
            **({"forwarder": system.forwarders, "subscriber": system.subscribers} if system.subscribers else {}),
        }

    def of_processes(self) -> dict[str, Draw]:
        """Killed, frozen and restarted processes."""
        drawn: dict[str, Draw] = {"kill-waiting:ingress": self._kill_waiting}
        for name, processes in self._parties().items():
            drawn[f"kill:{name}"] = partial(self._kill, name, processes)
            drawn[f"pause:{name}"] = partial(self._pause, name, processes)
            drawn[f"restart:{name}"] = partial(self._restart, name, processes)
        return drawn

    def _kill(self, name: str, processes: Sequence[ChildProcess], rng: random.Random) -> Act:
        process, hold_s = rng.choice(processes), rng.uniform(0, 8)
        return Act(f"kill:{name}", process.name, name, hold_s, partial(self._down, process, kill), partial(self._up, process))

    def _pause(self, name: str, processes: Sequence[ChildProcess], rng: random.Random) -> Act:
        process, hold_s = rng.choice(processes), rng.uniform(1, 14)

        async def pause() -> None:
            process.pause()

        async def resume() -> None:
            process.resume()

        return Act(f"pause:{name}", process.name, name, hold_s, pause, resume)

    def _restart(self, name: str, processes: Sequence[ChildProcess], rng: random.Random) -> Act:
        process = rng.choice(processes)

        async def restart() -> None:
            await self._down(process, stop)
            await self._up(process)

        return Act(f"restart:{name}", process.name, name, 0, restart, nothing)

    def _kill_waiting(self, rng: random.Random) -> Act:
        """Kill an ingress while it waits for confirms that cannot come: it must not have answered those callbacks yet."""
        process = rng.choice(self._system.ingresses)
        links = [link for link in self._system.links.of(["ingress-rabbitmq"]) if link.name.startswith(f"{process.name}>")]

        async def begin() -> None:
            for link in links:
                await self._system.links.set(link, stall=("up", "down"))

        async def end() -> None:
            await self._down(process, kill)
            for link in links:
                await self._system.links.cut(link)
                await self._system.links.set(link)
            await self._up(process)

        # Less than the time after which it gives up and writes to its spool.
        return Act("kill-waiting:ingress", process.name, "ingress", rng.uniform(1.5, 2.5), begin, end)

    async def _down(self, process: ChildProcess, how: Callable[[ChildProcess], Awaitable[None]]) -> None:
        self._supervisor.leave(process)
        await how(process)

    async def _up(self, process: ChildProcess) -> None:
        await launch(process)
        if not isinstance(process, Server):
            self._supervisor.watch([process])

    def of_links(self) -> dict[str, Draw]:
        """Links that are cut, stalled, half open, slow, or refuse connections."""
        links: dict[str, list[Link]] = {}
        spare = {f"{process.name}>" for process in self._system.spare_workers}  # they mostly do not run
        for link in self._system.links.links.values():
            if not link.name.startswith(tuple(spare)):
                links.setdefault(link.kind, []).append(link)
        set_link = self._system.links.set
        broken: dict[str, Callable[[random.Random, Link], Awaitable[None]]] = {
            "cut": lambda _, link: self._system.links.cut(link),
            "half-open": lambda rng, link: self._system.links.half_open(link, rng.choice(("near", "far"))),
            "refuse": lambda _, link: set_link(link, refuse=True),
            "stall": lambda _, link: set_link(link, stall=("up", "down")),
            "stall-up": lambda _, link: set_link(link, stall=("up",)),
            "stall-down": lambda _, link: set_link(link, stall=("down",)),
            "slow": lambda rng, link: set_link(
                link, latency_s=rng.choice((0.02, 0.1, 0.3)), bytes_per_s=rng.choice((20_000, 200_000))
            ),
        }
        return {
            f"{name}:{kind}": partial(self._break, f"{name}:{kind}", some, begin)
            for kind, some in links.items()
            for name, begin in broken.items()
        }

    def _break(
        self, kind: str, links: Sequence[Link], begin: Callable[[random.Random, Link], Awaitable[None]], rng: random.Random
    ) -> Act:
        """Break one link, or all links of its client of the same kind."""
        chosen = [rng.choice(links)]
        client = chosen[0].name.partition(">")[0]
        if rng.random() < 0.4:
            chosen = [link for link in links if link.name.startswith(f"{client}>")]
        own = random.Random(rng.random())  # noqa: S311 - repeatable on purpose

        async def begin_all() -> None:
            for link in chosen:
                await begin(own, link)

        async def end_all() -> None:
            for link in chosen:
                await self._system.links.set(link)

        hold_s = 0 if kind.startswith("cut") else rng.uniform(2, 12)
        return Act(
            kind, ", ".join(link.name for link in chosen), client.partition("-")[0].removesuffix("s"), hold_s, begin_all, end_all
        )

    def of_rabbitmq(self) -> dict[str, Draw]:
        """Alarms, and nodes that are drained for maintenance."""

        def alarm(what: str, ring: Callable[..., Awaitable[None]], rng: random.Random) -> Act:
            node = rng.choice(self._system.nodes)
            begin, end = partial(ring, node, is_on=True), partial(ring, node, is_on=False)
            return Act(f"alarm:{what}", node.name, "rabbitmq", rng.uniform(2, 10), begin, end)

        def drain(rng: random.Random) -> Act:
            node = rng.choice(self._system.nodes)
            begin, end = partial(rabbitmq.drain, node), partial(rabbitmq.revive, node)
            return Act("drain:rabbitmq", node.name, "rabbitmq", rng.uniform(2, 10), begin, end)

        def partition(rng: random.Random) -> Act:
            node = rng.choice(self._system.nodes)
            others = [other for other in self._system.nodes if other is not node]
            begin, end = partial(rabbitmq.isolate, node, others), partial(rabbitmq.reunite, node, others)
            return Act("partition:rabbitmq", node.name, "rabbitmq", rng.uniform(3, 15), begin, end)

        def outage(rng: random.Random) -> Act:
            async def begin() -> None:
                await asyncio.gather(*(kill(node) for node in self._system.nodes))

            async def end() -> None:
                await asyncio.gather(*(launch(node) for node in self._system.nodes))

            return Act("outage:rabbitmq", "all nodes", "rabbitmq", rng.uniform(0, 6), begin, end)

        drawn: dict[str, Draw] = {
            "alarm:memory": partial(alarm, "memory", rabbitmq.memory_alarm),
            "alarm:disk": partial(alarm, "disk", rabbitmq.disk_alarm),
        }
        if len(self._system.nodes) > 1:
            drawn |= {"drain:rabbitmq": drain, "outage:rabbitmq": outage, "partition:rabbitmq": partition}
        return drawn

    def of_redis(self) -> dict[str, Draw]:
        """A Redis whose memory is full, that was emptied, that comes back with old data, or whose slots move."""
        redis = self._system.redis
        drawn: dict[str, Draw] = {
            "redis:oom": partial(redis_faults.out_of_memory, redis),
            "redis:emptied": partial(redis_faults.emptied, redis),
        }
        if redis.layout == "single":
            drawn["redis:stale"] = partial(redis_faults.stale, redis)
        else:
            drawn["redis:stale-failover"] = partial(redis_faults.stale_failover, redis, self._system.links)
        if redis.layout == "sentinel":
            drawn["redis:restored"] = redis_losses.Snapshots(redis).restored
            drawn["redis:stalled-failover"] = partial(redis_losses.stalled_failover, redis, self._system.links)
        if redis.layout == "cluster":
            drawn["redis:slots"] = partial(redis_faults.moving_slots, redis)
        return drawn

    def of_disks(self) -> dict[str, Draw]:
        """Full disks: that of the archive, and that of a spool while its ingress needs it."""
        disks, drawn = self._system.disks, dict[str, Draw]()
        if archive := disks.get("archive"):

            def full_archive(rng: random.Random) -> Act:
                begin, end = partial(asyncio.to_thread, archive.fill), partial(asyncio.to_thread, archive.empty)
                return Act("disk:archive", "archive", "archive", rng.uniform(2, 10), begin, end)

            drawn["disk:archive"] = full_archive
        if spool := disks.get("ingress-1-spool"):
            links = [link for link in self._system.links.of(["ingress-rabbitmq"]) if link.name.startswith("ingress-1>")]

            async def begin() -> None:
                await asyncio.to_thread(spool.fill)
                for link in links:
                    await self._system.links.set(link, refuse=True)

            async def end() -> None:
                await asyncio.to_thread(spool.empty)
                for link in links:
                    await self._system.links.set(link)

            drawn["disk:spool"] = lambda rng: Act("disk:spool", "ingress-1", "ingress", rng.uniform(2, 10), begin, end)
        return drawn

    def of_clocks(self) -> dict[str, Draw]:
        """The wall clock of one worker is stepped, and stepped back."""
        clock = self._system.clock
        if clock is None:
            return {}

        def step(rng: random.Random) -> Act:
            seconds = rng.choice((-3600, -60, -5, 5, 60, 3600))

            async def set_clock(distance_s: float) -> None:
                clock.step(distance_s)

            target = f"worker-1 by {seconds} s"
            return Act("clock:worker", target, "clock", rng.uniform(2, 10), partial(set_clock, seconds), partial(set_clock, 0))

        return {"clock:worker": step}

    def changes(self) -> dict[str, Draw]:
        """What operators do: rolling restarts, and scaling in and out."""
        system = self._system

        def rolling(name: str, processes: Sequence[ChildProcess], rng: random.Random) -> Act:
            order = rng.sample(processes, len(processes))

            async def roll() -> None:
                for process in order:
                    await self._down(process, stop)
                    await self._up(process)
                    await self._ready(process)

            return Act(f"rolling:{name}", "one after the other", name, 0, roll, nothing)

        def scale_ingress(rng: random.Random) -> Act:
            process = rng.choice(system.ingresses)
            begin, end = partial(self._down, process, stop), partial(self._up, process)
            return Act("scale:ingress", process.name, "ingress", rng.uniform(2, 8), begin, end)

        def scale_workers(rng: random.Random) -> Act:
            (spare,) = system.spare_workers
            gone = rng.choice(system.workers)

            async def begin() -> None:
                await self._up(spare)
                await self._down(gone, stop)

            async def end() -> None:
                await self._up(gone)
                await self._down(spare, stop)

            return Act("scale:worker", f"{spare.name} for {gone.name}", "worker", rng.uniform(2, 8), begin, end)

        drawn: dict[str, Draw] = {
            "rolling:ingress": partial(rolling, "ingress", system.ingresses),
            "rolling:worker": partial(rolling, "worker", system.workers),
            "scale:ingress": scale_ingress,
            "scale:worker": scale_workers,
        }
        if len(system.nodes) > 1:
            drawn["rolling:rabbitmq"] = partial(rolling, "rabbitmq", system.nodes)
        return drawn

    async def _ready(self, process: ChildProcess) -> None:
        if isinstance(process, ServiceProcess):
            await is_ready(process)


async def is_ready(process: ServiceProcess) -> None:
    """Wait until a process says that it is ready, or for `READY_S`: in the worst of cases another fault keeps it from it."""
    url = process.metrics_url.replace("metrics", "readyz")
    with suppress(TimeoutError):
        async with asyncio.timeout(READY_S), aiohttp.ClientSession() as session:
            while True:
                with suppress(aiohttp.ClientError):
                    async with session.get(url) as response:
                        if response.ok:
                            return
                await asyncio.sleep(0.2)
