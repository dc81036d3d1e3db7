"""A running installation moves from one RabbitMQ to another. In `make matrix`, from the machine's own release to a newer one."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import orjson
import pytest

from console.broker_move.move import BrokerMove
from console.local import stack as local_stack
from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from console.local.stack import LocalStack
from shared.amqp.connection import BrokerAddress
from shared.amqp.server_check import check_server
from shared.amqp.topology import Topology
from shared.config.settings import load_settings
from shared.domain.barrier import complete_round
from shared.runtime.store import open_store
from shared.state.store import Store
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.servers import CALLFOLD, ROOT, Servers, call_back, callfold, connected, declare, eventually, lines_of
from tests.helpers.settings import settings_here
from tests.helpers.volume import sizes

GRACE_S = round(5 * PACE)  # no callback of the load comes later than that after the one before
QUICK = {
    "CALLFOLD_SETTLE_SECONDS": "1",
    "CALLFOLD_LEG_GRACE_SECONDS": str(GRACE_S),
    "CALLFOLD_MAX_CALL_SECONDS": "600",
    "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0",
}


@asynccontextmanager
async def _old_broker(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalStack]:
    if program := os.environ.get("OLD_RABBITMQ_SERVER"):
        monkeypatch.setattr(local_stack, "_SERVER_DIRECTORIES", (str(Path(program).parent),))
    async with LocalStack(directory, only=frozenset({"rabbitmq"})) as old:
        await declare(old.amqp_url)
        yield old


async def _release(url: str) -> str:
    return str((await check_server(BrokerAddress((url,), Topology(), "tests"))).version)


class _Load:
    """Calls of four callbacks each, sent through whichever ingress takes them, as a load balancer does."""

    def __init__(self, calls: int) -> None:
        self.ports: list[int] = []
        self.calls = range(1000, 1000 + calls)

    async def run(self) -> None:
        async with aiohttp.ClientSession() as session:
            for number in self.calls:
                for line in lines_of(number):
                    await self._send(session, line)

    async def _send(self, session: aiohttp.ClientSession, line: str) -> None:
        for attempt in range(10_000):
            port = self.ports[attempt % len(self.ports)]
            try:
                async with session.get(f"http://127.0.0.1:{port}/callbacks/default?{line}") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
        raise AssertionError("no ingress took a callback")


class _Published:
    """All events of both brokers, as a subscriber sees them that has a queue at each."""

    def __init__(self) -> None:
        self.bodies: dict[str, set[bytes]] = defaultdict(set)

    @asynccontextmanager
    async def read(self, url: str) -> AsyncIterator[None]:
        async with await aio_pika.connect(url, timeout=LIMIT_S) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind("calls", "call.#")
            await queue.consume(self._take, no_ack=True)
            yield

    async def _take(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        self.bodies[message.message_id or ""].add(message.body)

    async def wait_for(self, *request_ids: int) -> None:
        wanted = {f"default/{number}/1" for number in request_ids}

        async def missing() -> bool:
            return wanted <= self.bodies.keys()

        await eventually(missing)

    def problems(self) -> list[str]:
        """Return what breaks a promise: two bodies under one id, a call that was closed without its events, an amendment."""
        found = [f"{name} has {len(bodies)} bodies" for name, bodies in self.bodies.items() if len(bodies) != 1]
        for name, (body, *_) in ((name, tuple(bodies)) for name, bodies in self.bodies.items()):
            event: dict[str, Any] = orjson.loads(body)
            if not (event["data"]["complete"] and event["data"]["outcome"] == "answered" and event["data"]["revision"] == 1):
                found.append(f"{name}: {event['data']['outcome']}, {event['data']['close_reason']}")
        return found


class _Move:
    """A move in this process, until the block ends as if it was killed."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.facts: Mapping[str, Any] = {}

    @asynccontextmanager
    async def running(self, to: str) -> AsyncIterator[None]:
        settings = load_settings()
        async with open_store(settings) as store:
            task = asyncio.create_task(BrokerMove(settings, store, [to], self._note).run(is_finishing=False))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                raise error

    def _note(self, step: str, facts: Mapping[str, object]) -> None:
        self.steps.append(step)
        self.facts = facts

    async def until_switch(self) -> None:
        async def is_switching() -> bool:
            return "switch" in self.steps

        await eventually(is_switching)

    async def until_moving(self, queue: str) -> None:
        async def is_moving() -> bool:
            return "moved" in self.facts and queue not in self.facts["workers"]

        await eventually(is_moving)


async def _replace(fleet: Fleet, process: ServiceProcess, amqp_url: str) -> ServiceProcess:
    await process.stop()
    replaced = fleet.add(f"{process.name}-new", process.module, {**_own(process), "CALLFOLD_AMQP_URL": amqp_url})
    await replaced.start()
    await connected(replaced)
    return replaced


def _own(process: ServiceProcess) -> dict[str, str]:
    return {name: process.environment[name] for name in ("CALLFOLD_INGRESS_PORT",) if name in process.environment}


async def _round_opened_after(store: Store, seconds: float) -> None:
    """Wait until the timers have had the chance to close what was silent for so long."""
    due_ms = (await store.now()).timestamp() * 1000 + seconds * 1000

    async def is_complete() -> bool:
        reports = await store.watermarks.reports()
        complete = complete_round(reports.rounds, reports.members)
        return complete is not None and complete.opened_ms > due_ms

    await eventually(is_complete)


async def _bury(url: str) -> None:
    async with await aio_pika.connect(url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        message = aio_pika.Message(
            b'{"a": 1}',
            headers={
                "reason": "unknown_source",
                "first_seen": "2026-11-23T07:44:00.000000Z",
                "x-death": [{"count": 2, "queue": "q"}],
            },
            content_type="text/x-own",
            message_id="letter-1",
            priority=3,
            correlation_id="c",
            type="t",
            app_id="a",
            timestamp=1_700_000_000,
            delivery_mode=2,
        )
        await channel.default_exchange.publish(message, "recordings.dead")


_Copied = tuple[str | None, str | None, bytes]


async def _messages(url: str, stream: str, *, wanted: Collection[_Copied] = ()) -> set[_Copied]:
    """Read a stream that is not empty until all that is wanted was read and nothing comes for some time."""
    found: set[_Copied] = set()
    async with await aio_pika.connect(url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        await channel.set_qos(200)
        queue = await channel.get_queue(stream)

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            found.add((message.message_id, message.routing_key, message.body))
            await message.ack()

        await queue.consume(take, arguments={"x-stream-offset": "first"})

        async def has_all() -> bool:
            return bool(found) and found.issuperset(wanted)

        await eventually(has_all)
        size = -1
        while len(found) != size:
            size = len(found)
            await asyncio.sleep(PACE)
    return found


@pytest.mark.parametrize("size", sizes(40, 5000))
async def test_a_move_under_load_loses_nothing_and_closes_nothing_early(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    new_url = servers.stack.amqp_url
    async with _old_broker(tmp_path / "old", monkeypatch) as old:
        are_equal = await _release(old.amqp_url) == await _release(new_url)
        assert are_equal == ("OLD_RABBITMQ_SERVER" not in os.environ)
        settings = {**servers.environment(**QUICK), "CALLFOLD_AMQP_URL": old.amqp_url}
        settings_here(monkeypatch, settings)
        published, load, ports = _Published(), _Load(size), [free_port(), free_port()]
        async with (
            published.read(old.amqp_url),
            published.read(new_url),
            servers.fleet(**QUICK) as fleet,
            open_store(load_settings()) as store,
        ):
            at_old = {"CALLFOLD_AMQP_URL": old.amqp_url}
            ingress = [fleet.add(f"ingress-{port}", "ingress", {**at_old, "CALLFOLD_INGRESS_PORT": str(port)}) for port in ports]
            worker = fleet.add("worker", "worker", at_old)
            await fleet.start_all()
            await connected(*fleet.processes)
            await _bury(old.amqp_url)
            load.ports = list(ports)
            loading = asyncio.create_task(load.run())

            move = _Move()
            async with move.running(new_url):
                await move.until_switch()
                await _replace(fleet, worker, new_url)
                await move.until_moving("callbacks.fold")
                await call_back(ports[0], lines_of(77)[:3])
                load.ports = [ports[1]]
                await loading
                await published.wait_for(*load.calls)
            # The move is gone, and the last callback of a call waits on the old broker: no timer may close the call.
            await call_back(ports[0], lines_of(77)[3:])
            await _round_opened_after(store, GRACE_S + 3)
            assert "default/77/1" not in published.bodies

            await _replace(fleet, ingress[0], new_url)  # and the other one is forgotten
            code, out, err = await callfold("broker", "move", "--to", old.amqp_url, **settings)
            assert (code, err) == (2, "callfold: --to names the broker of CALLFOLD_AMQP_URL. Name the new one.\n")
            code, out, err = await callfold(
                "broker", "move", "--to", "env:NEW_URL", "--finish", "--json", **settings, NEW_URL=new_url
            )
            steps = [orjson.loads(line)["step"] for line in out.splitlines()]
            assert (code, err, steps[-1]) == (0, "", "finished"), out + err
            await published.wait_for(77)

            assert await call_back(ports[1], lines_of(78)) == [200] * 4, "it spools"
            await _replace(fleet, ingress[1], new_url)
            await published.wait_for(78)
            assert published.problems() == []
            await call_back(ports[0], [lines_of(79)[0], lines_of(79)[3]])  # ends by a timer: they go on
            await published.wait_for(79)
        (letter,) = [each for each in await servers.take_all("recordings.dead") if each.message_id == "letter-1"]
        assert (letter.body, letter.message_id, letter.priority, letter.correlation_id) == (b'{"a": 1}', "letter-1", 3, "c")
        assert (letter.content_type, letter.type, letter.app_id) == ("text/x-own", "t", "a")
        assert letter.headers["reason"] == "unknown_source"
        for stream in ("callbacks.journal", "calls.journal"):
            there = await _messages(old.amqp_url, stream)
            assert there
            await _messages(new_url, stream, wanted=there)


async def _killed_at(step: str, environment: Mapping[str, str], new_url: str) -> list[str]:
    """Run a move that finishes, and kill it once it reports a step; returns the steps that it reported."""
    process = await asyncio.create_subprocess_exec(
        *(*CALLFOLD, "broker", "move", "--to", "env:NEW_URL", "--finish", "--json"),
        cwd=ROOT,
        env={**os.environ, **environment, "NEW_URL": new_url},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    steps: list[str] = []
    try:
        async with asyncio.timeout(LIMIT_S):
            while (line := await process.stdout.readline()) and step not in steps:
                steps.append(orjson.loads(line)["step"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return steps


@pytest.mark.volume
async def test_a_move_that_is_killed_at_each_step_is_finished_by_a_later_one_and_may_be_repeated(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_url = servers.stack.amqp_url
    async with _old_broker(tmp_path / "old", monkeypatch) as old:
        settings = {**servers.environment(**QUICK), "CALLFOLD_AMQP_URL": old.amqp_url}
        settings_here(monkeypatch, settings)
        published, ports = _Published(), [free_port(), free_port()]
        async with published.read(old.amqp_url), published.read(new_url), servers.fleet(**QUICK) as fleet:
            at_old, at_new = {"CALLFOLD_AMQP_URL": old.amqp_url}, {"CALLFOLD_AMQP_URL": new_url}
            worker = fleet.add("worker", "worker", at_old)
            forgotten = fleet.add("ingress", "ingress", {**at_old, "CALLFOLD_INGRESS_PORT": str(ports[0])})
            await fleet.start_all()
            await connected(*fleet.processes)
            for number in range(100, 130):
                await call_back(ports[0], lines_of(number))
            await published.wait_for(*range(100, 130))
            await worker.stop()
            for number in range(130, 160):  # they wait on the old broker
                assert await call_back(ports[0], lines_of(number)) == [200] * 4
            new = fleet.add("worker-new", "worker", at_new)
            await new.start()
            for step in ("declared", "copying", "switch", "fenced", "moved", "finished", "finished"):
                steps = await _killed_at(step, settings, new_url)
                assert step in steps
                assert await call_back(ports[0], lines_of(200 + len(published.bodies))[:1]) == [200]
            await published.wait_for(*range(100, 160))
            await forgotten.stop()
            again = fleet.add("ingress-new", "ingress", {**at_new, "CALLFOLD_INGRESS_PORT": str(ports[1])})
            await again.start()
            await call_back(ports[1], [lines_of(79)[0], lines_of(79)[3]])  # ends by a timer: they go on
            await published.wait_for(79)
    bodies = {name: values for name, values in published.bodies.items() if 100 <= int(name.split("/")[1]) < 160}
    assert {len(values) for values in bodies.values()} == {1}
    assert all(b'"outcome":"answered"' in body and b'"revision":1' in body for (body,) in map(tuple, bodies.values()))
