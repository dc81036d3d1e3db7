"""The broker goes away: nothing that was answered 200 is lost, and it goes out in order when the broker is back."""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial

import aiohttp
import orjson

from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from shared.clock import utc_now
from tests.helpers.pace import LIMIT_S, paced
from tests.helpers.servers import Servers, call_back, connected, eventually, metric


def _line(number: int) -> str:
    return f"CallType=API&Event=pickup&CallID={number}&RequestID={number}"


async def _numbers(servers: Servers) -> list[int]:
    events = [event for message in await servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]
    return [int(event["query"].rpartition("=")[2]) for event in events]


async def _ready(fleet: Fleet, index: int = 0) -> bool:
    url = f"http://127.0.0.1:{fleet.processes[index].metrics_port}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status == 200


async def _problems(fleet: Fleet) -> list[str]:
    url = f"http://127.0.0.1:{fleet.processes[0].metrics_port}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return list((await response.json())["problems"])


async def _spooled(fleet: Fleet) -> float:
    url = f"http://127.0.0.1:{fleet.processes[0].metrics_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("callfold_spooled_messages_total "))


async def test_while_the_broker_is_away_callbacks_are_spooled_and_drain_in_order(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet() as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await fleet.start_all()
        assert await call_back(port, [_line(1)]) == [200]
        await servers.stack.rabbitmq.kill()
        try:
            assert await call_back(port, [_line(number) for number in range(2, 60)]) == [200] * 58
            assert await call_back(port, [_line(60).replace("CallID=60", "CallID=x")]) == [400]
            await eventually(lambda: _ready(fleet))
            assert await _problems(fleet) == ["RabbitMQ is not connected, so callbacks are spooled"]
            assert await _spooled(fleet) >= 58
        finally:
            await servers.stack.rabbitmq.start()
        await _drained(servers)
        taken = await _numbers(servers)
        assert list(dict.fromkeys(taken)) == list(range(1, 60))
        assert len(await servers.take_all("callbacks.dead")) == 1


async def _drained(servers: Servers) -> None:
    import sqlite3  # noqa: PLC0415

    async def is_empty() -> bool:
        with sqlite3.connect(f"file:{servers.directory / 'spool' / 'spool.sqlite'}?mode=ro", uri=True) as db:
            count = db.execute("select count(*) from messages").fetchone()[0]
        db.close()
        return bool(count == 0)

    await eventually(is_empty)


async def test_what_was_spooled_goes_out_after_a_kill_of_ingress_and_a_restart(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet() as fleet:
        role = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await servers.stack.rabbitmq.kill()
        try:
            await role.start()
            assert await call_back(port, [_line(number) for number in range(20)]) == [200] * 20
            await role.stop(signal.SIGKILL)
        finally:
            await servers.stack.rabbitmq.start()
        await role.start()
        await _drained(servers)
        assert list(dict.fromkeys(await _numbers(servers))) == list(range(20))


async def _shows(role: ServiceProcess, line: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{role.metrics_port}/metrics") as response:
        return line in (await response.text()).splitlines()


async def test_two_processes_of_one_machine_share_the_spool_and_each_message_goes_out_once(servers: Servers) -> None:
    ports = [free_port(), free_port()]
    # What is confirmed late would be published twice.
    began = utc_now()
    async with servers.fleet(CALLFOLD_PUBLISH_TIMEOUT_SECONDS=f"{LIMIT_S:g}", CALLFOLD_OPS_HOLD_SECONDS="1") as fleet:
        await servers.stack.rabbitmq.kill()
        try:
            for number, port in enumerate(ports):
                fleet.add(f"ingress-{number}", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
            await fleet.start_all()
            for number in range(40):
                assert await call_back(ports[number % 2], [_line(number)]) == [200]
            for role in fleet.processes:
                await eventually(partial(_shows, role, "callfold_spool_messages 40.0"))
                assert await metric(role, "callfold_spool_bytes") > 0
                assert 0 < await metric(role, "callfold_spool_oldest_seconds") < LIMIT_S
                assert await metric(role, "callfold_broker_up") == 0
                last = await metric(role, 'callfold_last_callback_timestamp_seconds{source="default"}')
                assert abs(last - time.time()) < LIMIT_S
            await eventually(partial(_any_counts, fleet, "broker_away"))
            await eventually(partial(_any_counts, fleet, "spooling"))
            back_at = utc_now()
        finally:
            await servers.stack.rabbitmq.start()
        await _drained(servers)
        for role in fleet.processes:
            await eventually(partial(_shows, role, "callfold_spool_oldest_seconds 0.0"))
            await eventually(partial(_shows, role, "callfold_broker_up 1.0"))
        assert sorted(await _numbers(servers)) == list(range(40))
        await _assert_raised_and_cleared_once(servers, began, back_at)


async def _any_counts(fleet: Fleet, condition: str) -> bool:
    """Whether one of the processes of the machine has raised a condition."""
    line = f'callfold_ops_conditions{{condition="{condition}"}} 1.0'
    return any([await _shows(role, line) for role in fleet.processes])


async def _assert_raised_and_cleared_once(servers: Servers, began: str, back_at: str) -> None:
    """Read the operator events of this machine, with the times at which it was cut off and connected again."""
    states: dict[str, list[dict[str, str]]] = {"broker_away": [], "spooling": []}

    def is_last(body: bytes) -> bool:
        event = orjson.loads(body)
        if event.get("time", "") >= began and event["data"]["what"] in states:
            states[event["data"]["what"]].append(event["data"])
        return all(found and found[-1]["state"] == "cleared" for found in states.values())

    await servers.read_stream("ops.journal", is_last)
    for found in states.values():
        assert [data["state"] for data in found] == ["raised", "cleared"]
        assert began <= found[0]["since"] == found[1]["since"] < back_at < found[1]["cleared_at"]


async def test_a_broker_that_hangs_costs_a_timeout_and_not_a_callback(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet(CALLFOLD_PUBLISH_TIMEOUT_SECONDS=paced(0.5)) as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await fleet.start_all()
        assert await call_back(port, [_line(0)]) == [200]
        servers.stack.rabbitmq.pause()
        try:
            assert await asyncio.wait_for(call_back(port, [_line(number) for number in range(1, 30)]), LIMIT_S) == [200] * 29
        finally:
            servers.stack.rabbitmq.resume()
        await _drained(servers)

        async def all_there() -> bool:
            seen.update(await _numbers(servers))
            return seen == set(range(30))

        seen: set[int] = set()
        await eventually(all_there)


async def test_a_full_spool_answers_503_with_retry_after_and_readiness_says_why(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet(CALLFOLD_SPOOL_MAX_BYTES=str(1 << 20)) as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await fleet.start_all()
        await servers.stack.rabbitmq.kill()
        try:
            line = _line(1) + "&Note=" + "9" * 7000
            statuses: list[int] = []

            async def refused() -> bool:
                statuses.extend(await call_back(port, [line] * 20))
                return 503 in statuses

            await eventually(refused)
            assert set(statuses) == {200, 503}
            url = f"http://127.0.0.1:{port}/callbacks/default?{line}"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "2")
            assert not await _ready(fleet)
        finally:
            await servers.stack.rabbitmq.start()
        await _drained(servers)
        taken = await _numbers_of_callers(servers)
        assert taken >= statuses.count(200)
        assert await call_back(port, [_line(7)]) == [200]


async def test_a_broker_that_is_there_and_refuses_makes_ingress_not_ready_once_the_spool_is_full(servers: Servers) -> None:
    port = free_port()
    line = _line(1) + "&Note=" + "9" * 7000
    async with servers.fleet(CALLFOLD_SPOOL_MAX_BYTES=str(1 << 20)) as fleet, servers.queue("callbacks.fold") as fold:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await fleet.start_all()
        await connected(*fleet.processes)
        await eventually(lambda: _has_declared(fleet.processes[0]))  # it would bind again what is unbound here
        assert await call_back(port, [line]) == [200]
        async with servers.queue("callbacks.journal") as journal:
            queues = (fold, journal)
            for queue in queues:
                await queue.unbind("callbacks", "")  # nowhere to go: the broker gives back what is published
            try:

                async def is_refused() -> bool:
                    return 503 in await call_back(port, [line] * 20)

                await eventually(is_refused)
                assert not await _ready(fleet)
            finally:
                for queue in queues:
                    await queue.bind("callbacks", "")
        await eventually(lambda: _ready(fleet))
        await _drained(servers)


async def _has_declared(ingress: ServiceProcess) -> bool:
    """Whether both publishers are connected: each declares the topology then."""
    lines = [orjson.loads(line) for line in ingress.log_path.read_bytes().splitlines() if b'"broker_connected"' in line]
    return {line["connection"].partition("-")[0] for line in lines} >= {"ingress", "quarantine"}


async def _numbers_of_callers(servers: Servers) -> int:
    return sum(len(orjson.loads(message.body)) for message in await servers.take_all("callbacks.fold"))
