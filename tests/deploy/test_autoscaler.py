"""A simulated autoscaler scales real workers by their real lag, with the values of the chart."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import pytest

from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from shared.amqp.topology import CALLBACKS_FOLD
from tests.helpers.autoscaler import Autoscaler, Scaling, changes_of_direction
from tests.helpers.manifests import of_kind, rendered
from tests.helpers.servers import Servers, eventually_nothing, lines_of, waiting_events
from tests.helpers.slow_link import SlowLink
from tests.helpers.volume import sizes

# Of the link from RabbitMQ to a worker. It lets a worker fold about 10 callbacks a second, so that six need little of two cores.
LINK_BYTES_PER_S = 7_000
CALLS_PER_S = 1.0
TIMES = 10
LAG_S = 5.0


@dataclass(slots=True)
class Worker:
    process: ServiceProcess
    link: SlowLink
    starting: asyncio.Task[None]

    @property
    def is_ready(self) -> bool:
        return self.starting.done() and not self.starting.cancelled()


@dataclass(slots=True)
class Deployment:
    """Workers, as many as the autoscaler wants. The one that was started last goes first, as in Kubernetes."""

    fleet: Fleet
    rabbitmq_port: int
    stack: AsyncExitStack
    workers: list[Worker] = field(default_factory=list)
    leaving: list[asyncio.Task[None]] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def scale(self, count: int) -> None:
        while len(self.workers) < count:
            link = await self.stack.enter_async_context(SlowLink(self.rabbitmq_port, LINK_BYTES_PER_S, CALLBACKS_FOLD))
            settings = {"CALLFOLD_AMQP_URL": f"amqp://guest:guest@127.0.0.1:{link.port}/"}
            process = self.fleet.add(f"worker-{next(self.numbers)}", "worker", settings)
            self.workers.append(Worker(process, link, asyncio.create_task(process.start())))
        while len(self.workers) > count:
            self.leaving.append(asyncio.create_task(self._stop(self.workers.pop())))

    @staticmethod
    async def _stop(worker: Worker) -> None:
        await worker.starting
        await worker.process.stop()

    async def lag_s(self, session: aiohttp.ClientSession) -> float | None:
        """Return what KEDA reads: the maximum of the ready workers that answer."""
        read = await asyncio.gather(*(_lag(session, worker.process) for worker in self.workers if worker.is_ready))
        known = [lag_s for lag_s in read if lag_s is not None]
        return max(known, default=None)

    def use(self) -> float:
        """Return the mean use of what limits a worker. In a cluster that is its CPU, here its link."""
        used = [worker.link.used() for worker in self.workers if worker.is_ready]
        return sum(used) / len(used) if used else 0.0


async def _lag(session: aiohttp.ClientSession, worker: ServiceProcess) -> float | None:
    with suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(worker.metrics_url) as response:
            for line in (await response.text()).splitlines():
                if line.startswith("callfold_fold_lag_seconds "):
                    return float(line.split()[1])
    return None


@dataclass(slots=True)
class Load:
    """Whole calls without recordings, their callbacks one after the other, at a rate that can be changed."""

    port: int
    calls_per_s: float = CALLS_PER_S
    statuses: Counter[int] = field(default_factory=Counter)
    calls: set[int] = field(default_factory=set)
    is_over: bool = False

    async def run(self) -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            due = time.monotonic()
            for number in itertools.count(1_000_000):
                due = max(due, time.monotonic() - 1) + 1 / self.calls_per_s
                await asyncio.sleep(due - time.monotonic())
                if self.is_over:
                    break
                group.create_task(self._call(session, number))

    async def _call(self, session: aiohttp.ClientSession, number: int) -> None:
        self.calls.add(number)
        for line in lines_of(number):
            query = line.replace("IsCallRecorded=1", "IsCallRecorded=")
            async with session.get(f"http://127.0.0.1:{self.port}/callbacks/default?{query}") as response:
                self.statuses[response.status] += 1


@dataclass(frozen=True, slots=True)
class Look:
    at_s: float
    load: float
    pods: int
    ready: int
    lag_s: float | None
    use: float


@dataclass(slots=True)
class Simulation:
    """The autoscaler at its looks."""

    autoscaler: Autoscaler
    workers: Deployment
    load: Load
    looks: list[Look] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        scaling, workers = self.autoscaler.scaling, self.workers
        until = time.monotonic() + seconds
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
            while time.monotonic() < until:
                await asyncio.sleep(scaling.sync_s)
                ready = sum(worker.is_ready for worker in workers.workers)
                lag_s, use = await workers.lag_s(session), workers.use()
                look = Look(time.monotonic(), self.load.calls_per_s, len(workers.workers), ready, lag_s, use)
                self.looks.append(look)
                print(look, flush=True)  # noqa: T201 - the figures of the run
                cpu = use if scaling.cpu else None
                await workers.scale(self.autoscaler.decide(look.at_s, pods=look.pods, ready=ready, lag_s=lag_s, cpu=cpu))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("factor", sizes(10, 1))
async def test_ten_times_the_load_is_caught_up_with_few_changes_of_direction_and_no_loss(servers: Servers, factor: int) -> None:
    # More processes than that would compete for the cores of a small machine while they start.
    (scaled,) = of_kind(rendered("autoscaling", values=["worker.autoscaling.maxReplicas=6"]), "ScaledObject")
    scaling, port = Scaling.of(scaled, factor=factor), free_port()
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(servers.fleet(CALLFOLD_TIMER_HOLD_OFF_SECONDS=str(15 / factor)))
        queue = await stack.enter_async_context(servers.subscribed("call.#"))
        ingress = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        workers = Deployment(fleet, urlsplit(servers.stack.amqp_url).port or 0, stack)
        await workers.scale(scaling.minimum)
        await asyncio.gather(ingress.start(), *(worker.starting for worker in workers.workers))
        load = Load(port)
        simulation = Simulation(Autoscaler(scaling), workers, load)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            await simulation.run(200 / factor)
            load.calls_per_s *= TIMES
            await simulation.run(800 / factor)
            high = list(simulation.looks)
            load.calls_per_s /= TIMES
            await simulation.run(600 / factor)
            load.is_over = True
        await asyncio.gather(*workers.leaving)  # each has ended in order, or this fails

        published: set[int] = set()

        async def missing() -> list[int]:
            published.update(event.body["data"]["request_id"] for event in await waiting_events(queue))
            return sorted(load.calls - published)

        await eventually_nothing(missing)
    assert set(load.statuses) == {200}
    pods = [look.pods for look in simulation.looks]
    assert max(pods) > scaling.minimum
    assert pods[-1] < max(pods)
    assert changes_of_direction(pods) <= 3
    # Caught up, and not for a moment only: during the last fifth of the high load and after it.
    after = simulation.looks[len(high) - len(high) // 5 :]
    assert [look for look in after if look.lag_s is None or look.lag_s >= LAG_S] == []
