"""Connections that break again and again leave nothing behind: memory, descriptors and tasks of each process stay as they were."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from console.local.ports import free_port
from console.local.processes import ServiceProcess
from tests.chaos.links import Links
from tests.helpers.downstream import DOWNSTREAM, downstream
from tests.helpers.servers import UNMEASURED, Servers, call_back, eventually, lines_of, taken_from

LINKS = 4
LOOKS, LOOK_S = 10, 0.5
WARM_UP = 20
# Caches of the interpreter and of its allocator still grow a little after the first rounds.
MORE_BYTES, MORE_OF_OTHERS = 6 << 20, 4


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds."""

    resident_bytes: int
    descriptors: int
    tasks: Sequence[str]


async def _held(process: ServiceProcess) -> Held:
    count = Path(process.environment["TASKS_FILE"])
    count.unlink(missing_ok=True)
    process.send_signal(signal.SIGUSR1)

    async def is_written() -> bool:
        return count.exists()

    await eventually(is_written)
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    return Held(pages * os.sysconf("SC_PAGE_SIZE"), descriptors, count.read_text().splitlines())


async def _rested(process: ServiceProcess) -> Held:
    """Return the least of some seconds: a connection that is just being made or closed is no leak."""
    looks = []
    for _ in range(LOOKS):
        looks.append(await _held(process))
        await asyncio.sleep(LOOK_S)  # nothing to wait for: it must be idle
    return Held(
        min(held.resident_bytes for held in looks),
        min(held.descriptors for held in looks),
        min((held.tasks for held in looks), key=len),
    )


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
@pytest.mark.parametrize("reconnects", [pytest.param(500, marks=pytest.mark.volume)])
async def test_reconnects_leave_memory_descriptors_and_tasks_flat(servers: Servers, reconnects: int) -> None:
    async with downstream(servers), Links() as links, servers.fleet(CALLFOLD_TIMER_HOLD_OFF_SECONDS="0") as fleet:
        port = free_port()
        rabbitmq, redis = servers.stack.rabbitmq.port, servers.stack.redis.port
        for module in ("ingress", "worker"):
            amqp = await links.open("rabbitmq", module, "rabbitmq", rabbitmq)
            settings = {
                **UNMEASURED,
                "COUNTED_MODULE": module,
                "TASKS_FILE": str(servers.directory / f"{module}.tasks"),
                "CALLFOLD_AMQP_URL": f"amqp://guest:guest@127.0.0.1:{amqp}/",
                "CALLFOLD_REDIS_URL": f"redis://127.0.0.1:{await links.open('redis', module, 'redis', redis)}/0",
                "CALLFOLD_INGRESS_PORT": str(port),
                "PYTHONUNBUFFERED": "1",  # starts cold
            }
            fleet.add(module, "tests.helpers.counting_process", settings)
        await fleet.start_all()
        before: dict[str, Held] = {}
        assert len(links.links) == LINKS
        for number in range(WARM_UP + reconnects // LINKS):
            if number == WARM_UP:
                before = {process.name: await _rested(process) for process in fleet.processes}
            for link in links.links.values():
                await links.cut(link)
            lines = [line.replace("IsCallRecorded=1", "IsCallRecorded=") for line in lines_of(1000 + number)]
            assert await call_back(port, lines) == [200] * 4
            await eventually(partial(_is_published, servers, 1000 + number))
        after = {process.name: await _rested(process) for process in fleet.processes}
    for name, held in after.items():
        print(f"\n{name}, {reconnects} reconnects: before {_figures(before[name])}; after {_figures(held)}")  # noqa: T201
        grown = Counter(held.tasks) - Counter(before[name].tasks)
        assert grown.total() <= MORE_OF_OTHERS, (
            f"{name} has {len(held.tasks)} tasks, {len(before[name].tasks)} before; new: {grown}"
        )
        assert held.descriptors <= before[name].descriptors + MORE_OF_OTHERS, (name, before[name].descriptors, held.descriptors)
        assert held.resident_bytes <= before[name].resident_bytes + MORE_BYTES, (
            name,
            before[name].resident_bytes,
            held.resident_bytes,
        )


def _figures(held: Held) -> str:
    return f"{held.resident_bytes / (1 << 20):.1f} MiB, {held.descriptors} descriptors, {len(held.tasks)} tasks"


async def _is_published(servers: Servers, number: int) -> bool:
    async with servers.queue(DOWNSTREAM) as queue:
        while message := await taken_from(queue):
            if message.message_id == f"default/{number}/1":
                return True
    return False
