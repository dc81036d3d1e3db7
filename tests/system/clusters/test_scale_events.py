"""Ingress and workers come and go at random, by SIGTERM and by SIGKILL, while the link to RabbitMQ flaps: no callback is lost.

A host is a spool directory. Its ingress may be killed; then another one is started there, or `callfold spool drain` takes the spool
over. An ingress that ends with exit code 0 has left nothing. In the end no host has a file of callbacks.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import pytest
from aio_pika.abc import AbstractQueue

from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from ingress.spool_contents import read_contents, spool_files
from shared.amqp.topology import CALLBACKS_DEAD, CALLBACKS_JOURNAL, CALLS_JOURNAL
from shared.config.settings import Settings
from shared.exit_codes import EXIT_OK
from shared.streams.journal import journal_until_now
from tests.chaos.wires import Wire
from tests.helpers.pace import LIMIT_S, PACE, paced
from tests.helpers.servers import (
    UNMEASURED,
    Servers,
    callfold,
    connected,
    eventually,
    eventually_as_many,
    lines_of,
    waiting_events,
)
from tests.helpers.settings import settings_here
from tests.helpers.volume import sizes

_MAX_INGRESS, _MAX_WORKERS, _AT_ONCE = 3, 3, 3
_LONGEST_S = 2700 * PACE
_KILLED = 0.4
_NOWHERE = 1  # a port that refuses connections


@dataclass(slots=True)
class _Host:
    directory: Path
    ingress: list[_Ingress] = field(default_factory=list)
    users: int = 0
    """Processes that are being started there, or that take its spool over. There can be several at a time."""

    @property
    def is_busy(self) -> bool:
        return self.users > 0

    @contextmanager
    def used(self) -> Iterator[None]:
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    @property
    def is_orphan(self) -> bool:
        return not self.ingress and not self.is_busy and bool(spool_files(self.directory))


@dataclass(slots=True)
class _Ingress:
    role: ServiceProcess
    port: int
    is_leaving: bool = False


class _World:
    """What runs now, and how often each event happened."""

    def __init__(self, servers: Servers, fleet: Fleet, wire: Wire, seed: int) -> None:
        self._servers = servers
        self._fleet = fleet
        self._wire = wire
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._numbers = itertools.count(1)
        self.hosts: list[_Host] = []
        self.workers: list[ServiceProcess] = []
        self.counts = Counter[str]()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_flapping = False

    @property
    def ingresses(self) -> list[tuple[_Host, _Ingress]]:
        return [(host, each) for host in self.hosts for each in host.ingress]

    @property
    def ports(self) -> list[int]:
        """What the load balancer knows: a port may be that of an ingress that was killed a moment ago."""
        return [each.port for _, each in self.ingresses if not each.is_leaving]

    @property
    def environment(self) -> dict[str, str]:
        return self._servers.environment(CALLFOLD_AMQP_URL=f"amqp://guest:guest@127.0.0.1:{self._wire.port}/", **_SETTINGS)

    async def start_ingress(self, host: _Host | None = None) -> None:
        if host is None:
            host = _Host(self._servers.directory / f"host-{next(self._numbers)}")
            self.hosts.append(host)
        port = free_port()
        settings = {"CALLFOLD_INGRESS_PORT": str(port), "CALLFOLD_SPOOL_DIR": str(host.directory)}
        role = self._fleet.add(f"ingress-{next(self._numbers)}", "ingress", settings)
        with host.used():
            await role.start()
        host.ingress.append(_Ingress(role, port))

    async def stop_ingress(self, host: _Host, ingress: _Ingress) -> None:
        ingress.is_leaving = True
        is_killed = self._random.random() < _KILLED
        await ingress.role.stop(signal.SIGKILL if is_killed else signal.SIGTERM)
        host.ingress.remove(ingress)
        self._fleet.processes.remove(ingress.role)
        self.counts[f"exit code {ingress.role.returncode}"] += 1
        # If it left the spool to another process, that one may have been killed since.
        is_left = "spool_left_to_other_process" in ingress.role.log_path.read_text("utf-8")
        if ingress.role.returncode == EXIT_OK and not is_left and not host.ingress and not host.is_busy:
            assert spool_files(host.directory) == []
            self.hosts.remove(host)

    async def start_worker(self) -> None:
        role = self._fleet.add(f"worker-{next(self._numbers)}", "worker", {})
        await role.start()
        self.workers.append(role)

    async def stop_worker(self) -> None:
        role = self.workers.pop(self._random.randrange(len(self.workers)))
        await role.stop(signal.SIGKILL if self._random.random() < _KILLED else signal.SIGTERM)
        self._fleet.processes.remove(role)

    async def take_over(self, host: _Host, *, wait_s: float = 1) -> None:
        with host.used():
            command = ("spool", "drain", "--dir", str(host.directory), "--wait", f"{wait_s:g}")
            code, _, _ = await callfold(*command, **self.environment)
        self.counts[f"spool drain: {code}"] += 1
        if code == EXIT_OK:
            assert spool_files(host.directory) == []
            self.hosts.remove(host)

    async def flap(self) -> None:
        """Reset what is connected, and all that connects in the next seconds."""
        to, self._wire.to = self._wire.to, _NOWHERE
        self._wire.cut()
        await asyncio.sleep(self._random.uniform(0.1, 3))
        self._wire.to = to
        # A process that starts must get through, or no other event can begin.
        await asyncio.sleep(self._random.uniform(1, 5) * PACE)
        self._is_flapping = False

    def begin_event(self) -> bool:
        """Begin one event that is possible now; returns whether it is a scale event."""
        name, work = self._random.choice(self._possible())
        self.counts[name] += 1
        self._is_flapping = self._is_flapping or name == "flap"
        task = asyncio.create_task(work())
        self._tasks.add(task)
        return name != "flap"

    def _possible(self) -> list[tuple[str, Callable[[], Coroutine[object, object, None]]]]:
        choices: list[tuple[str, Callable[[], Coroutine[object, object, None]]]] = []
        staying = [(host, each) for host, each in self.ingresses if not each.is_leaving]
        orphans = [host for host in self.hosts if host.is_orphan]
        if len(staying) < _MAX_INGRESS:
            choices.append(("start ingress", self.start_ingress))
            choices += [("start ingress again", partial(self.start_ingress, host)) for host in orphans[:1]]
            choices += [("start second ingress", partial(self.start_ingress, host)) for host, _ in staying[:1]]
        if len(staying) > 1:
            host, leaving = self._random.choice(staying)
            choices += [("stop ingress", partial(self.stop_ingress, host, leaving))] * 2
        choices += [("take over", partial(self.take_over, host)) for host in orphans[:1]]
        if len(self.workers) < _MAX_WORKERS:
            choices.append(("start worker", self.start_worker))
        if len(self.workers) > 1:
            choices += [("stop worker", self.stop_worker)] * 2
        if not self._is_flapping:
            choices += [("flap", self.flap)] * 3
        return choices

    async def has_room(self) -> bool:
        """Return whether another event may begin; an event that failed fails the test."""
        if len(self._tasks) >= _AT_ONCE:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.remove(task)
            task.result()
        return len(self._tasks) < _AT_ONCE

    async def finish(self) -> None:
        """End all events, stop every ingress in order, and take over what others left."""
        await asyncio.gather(*self._tasks)
        # Each has a few seconds for its spool, and the pause before it connects again can take as long.
        await connected(*(ingress.role for _, ingress in self.ingresses))
        for host, ingress in self.ingresses:
            await ingress.role.stop()
            host.ingress.remove(ingress)
            assert ingress.role.returncode == EXIT_OK
        for host in [*self.hosts]:
            if spool_files(host.directory):
                await self.take_over(host, wait_s=LIMIT_S)
        left = [host for host in self.hosts if spool_files(host.directory)]
        assert [read_contents(host.directory) for host in left] == []


_SETTINGS = {
    "CALLFOLD_SPOOL_DRAIN_SECONDS": paced(15),
    "CALLFOLD_PUBLISH_TIMEOUT_SECONDS": paced(3),
    **UNMEASURED,
}


@dataclass(slots=True)
class _Load:
    """Sends the callbacks of calls, each until an ingress has answered 200, as behind a load balancer that tries another one."""

    world: _World
    ended: set[int] = field(default_factory=set)
    callbacks: int = 0
    unanswered: int = 0
    is_over: bool = False

    async def run(self, number: int) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_S)) as session:
            for call in itertools.count(number, 10):
                if self.is_over:
                    return
                for line in lines_of(1000 + call):
                    await self._send(session, line)
                self.ended.add(1000 + call)
                await asyncio.sleep(0.05)

    async def _send(self, session: aiohttp.ClientSession, line: str) -> None:
        for attempt in itertools.count():
            ports = self.world.ports
            with suppress(aiohttp.ClientError, TimeoutError):
                url = f"http://127.0.0.1:{ports[(self.callbacks + attempt) % len(ports)]}/callbacks/default?{line}"
                async with session.get(url) as response:
                    if response.status == 200:
                        self.callbacks += 1
                        return
            self.unanswered += 1
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _loaded(world: _World) -> AsyncIterator[_Load]:
    """Send as long as the body runs, and then finish the calls that were begun."""
    load = _Load(world)
    tasks = [asyncio.create_task(load.run(number)) for number in range(3)]
    try:
        yield load
        assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
    finally:
        load.is_over = True
        await asyncio.gather(*tasks)


@asynccontextmanager
async def _flapping(port: int) -> AsyncIterator[Wire]:
    wire = Wire(free_port(), port)
    await wire.listen()
    try:
        yield wire
    finally:
        if wire.server is not None:
            wire.server.close()
            wire.cut()


@dataclass(slots=True)
class _Published:
    """The events of calls: one body for each id, and the last revision of each call."""

    queue: AbstractQueue
    bodies: dict[str, bytes] = field(default_factory=dict)
    last: dict[int, dict[str, object]] = field(default_factory=dict)
    repeated: int = 0

    async def count(self) -> int:
        """Take what has arrived, and count the calls."""
        for event in await waiting_events(self.queue):
            body = orjson.dumps(event.body, option=orjson.OPT_SORT_KEYS)
            self.repeated += str(event.message_id) in self.bodies
            assert self.bodies.setdefault(str(event.message_id), body) == body
            data = event.body["data"]
            if data["revision"] > self.last.get(data["request_id"], {"revision": 0})["revision"]:
                self.last[data["request_id"]] = data
        return len(self.last)


async def _traces(servers: Servers, settings: Settings, missing: Collection[int]) -> str:
    """Return what the journals and the dead letters have of calls that were not published."""
    names = {b"%d" % number for number in missing}
    found = [f"not published: {sorted(missing)}"]
    for stream in (CALLBACKS_JOURNAL, CALLS_JOURNAL):
        async with journal_until_now(settings, "first", stream=stream) as deliveries:
            found += [
                f"{stream} {delivery.offset}: {delivery.body[:2000]!r}"
                async for delivery in deliveries
                if any(name in delivery.body for name in names)
            ]
    dead = await servers.take_all(CALLBACKS_DEAD)
    found += [f"dead letter {message.headers}: {message.body[:2000]!r}" for message in dead]
    return "\n".join(found)


@pytest.mark.parametrize("events", sizes(10, 1000))
async def test_no_callback_is_lost_while_ingress_and_workers_come_and_go_and_the_broker_flaps(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    seed = 5130 + events
    began = time.monotonic()
    async with _flapping(servers.stack.rabbitmq.port) as wire, servers.subscribed("call.#") as queue:
        published = _Published(queue)
        async with servers.fleet(CALLFOLD_AMQP_URL=f"amqp://guest:guest@127.0.0.1:{wire.port}/", **_SETTINGS) as fleet:
            world = _World(servers, fleet, wire, seed)
            await asyncio.gather(world.start_ingress(), world.start_ingress(), world.start_worker(), world.start_worker())
            done = 0
            async with _loaded(world) as load:
                while done < events and time.monotonic() < began + _LONGEST_S:
                    if await world.has_room():
                        done += world.begin_event()
                    await published.count()
            await world.finish()
            try:
                while load.ended - published.last.keys():  # a slow machine has a long way to go, but goes on
                    await eventually_as_many(len(published.last) + 1, published.count)
            except AssertionError:
                missing = load.ended - published.last.keys()
                settings = settings_here(monkeypatch, servers.environment())
                raise AssertionError(await _traces(servers, settings, missing)) from None

            async def are_answered() -> bool:
                await published.count()
                return {data["outcome"] for data in published.last.values()} == {"answered"}

            await eventually(are_answered)
            print(  # noqa: T201 - the figures of the run
                f"\n{done} scale events (seed {seed}) in {time.monotonic() - began:.0f} s: {dict(world.counts)}; {len(load.ended)} calls, "
                f"{load.callbacks} callbacks accepted, {load.unanswered} tried again; {len(published.bodies)} events, "
                f"{published.repeated} repeated; lost 0, no file of callbacks left"
            )
