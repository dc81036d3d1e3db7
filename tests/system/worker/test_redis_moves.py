"""Redis fails over behind one name: worker and console say so while they cannot write, and go on by themselves in both directions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import aiohttp
import pytest_asyncio
from redis.asyncio import Redis

from console.local.ports import free_port
from console.local.processes import ServiceProcess
from console.local.stack import Server
from tests.helpers.moving_name import moving_name
from tests.helpers.redis_servers import ask, demote, fail_over, redis_server
from tests.helpers.servers import Servers, begin_generation, call_back, callfold, eventually, lines_of, next_new, waiting_events

_OUTAGES = {
    "redis_unavailable": "redis_available",
    "markers_not_sent": "markers_sent",
    "round_report_failed": "round_reported",
    "timers_paused": "timers_resumed",
}


@pytest_asyncio.fixture
async def redis_pair(tmp_path: Path) -> AsyncIterator[tuple[Server, Server]]:
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    async with redis_server(tmp_path / "one", *durable) as one, redis_server(tmp_path / "two", *durable) as two:
        await demote(two, one)
        yield one, two


async def _readiness(process: ServiceProcess) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(process.metrics_url.replace("metrics", "readyz")) as answer:
        return answer.status, " ".join((await answer.json())["problems"])


async def test_worker_and_console_follow_redis_to_another_server_and_back(
    servers: Servers, redis_pair: tuple[Server, Server]
) -> None:
    port = free_port()
    one, two = redis_pair
    await begin_generation(f"redis://127.0.0.1:{one.port}/0", servers.stack.amqp_url)
    async with moving_name(one.port) as name, servers.subscribed("call.#") as events:
        settings = {"CALLFOLD_REDIS_URL": name.url}
        async with servers.fleet(**settings) as fleet:
            fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
            worker = fleet.add("worker", "worker", {})
            console = fleet.add("console", "console", {"CALLFOLD_CONSOLE_PORT": "0"})
            await fleet.start_all()
            for call, old, new in ((513, one, two), (514, two, one)):
                await call_back(port, lines_of(call)[:2])
                await fail_over(old, new)

                async def say_so(old: Server = old) -> bool:
                    found = [await _readiness(process) for process in (worker, console)]
                    wrong = f"Redis at localhost:{name.port} (127.0.0.1:{name.port}) is a replica"
                    return all(status == 503 and wrong in said for status, said in found)

                await eventually(say_so)
                code, out, err = await callfold("doctor", "--json", **servers.environment(**settings))
                (finding,) = [row for row in map(json.loads, out.splitlines()) if row["check"] == "redis"]
                assert code == 1, err
                assert "is a replica" in finding["detail"]
                name.move(new.port)
                await call_back(port, lines_of(call)[2:])
                (event,) = await next_new(events, 1)
                assert (event.body["data"]["request_id"], event.body["data"]["outcome"]) == (call, "answered")

                async def are_ready() -> bool:
                    return [await _readiness(process) for process in (worker, console)] == [(200, "")] * 2

                await eventually(are_ready)
            for process in (worker, console):
                await eventually(partial(_has_logged_the_end_of_each_outage, process))


async def _has_logged_the_end_of_each_outage(process: ServiceProcess) -> bool:
    logged = [json.loads(line) for line in process.log_path.read_text("utf-8").splitlines()]
    for began, ended in _OUTAGES.items():
        lines = [line for line in logged if line["event"] in {began, ended}]
        assert len(lines) <= 12 + 10 * _minutes(lines), "it logged each attempt"
        if lines and lines[-1]["event"] == began:
            return False
    return True


def _minutes(lines: Sequence[Mapping[str, str]]) -> int:
    """Return how many minutes lie between the first and the last line: what lasts is logged again each minute."""
    times = [datetime.fromisoformat(line["timestamp"]) for line in lines]
    return (times[-1] - times[0]) // timedelta(minutes=1) if times else 0


async def test_a_full_redis_is_named_costs_no_callback_and_takes_no_console_away_from_its_readers(
    servers: Servers, redis_pair: tuple[Server, Server]
) -> None:
    one, _ = redis_pair
    port = free_port()
    redis_url = f"redis://127.0.0.1:{one.port}/0"
    await begin_generation(redis_url, servers.stack.amqp_url)
    async with servers.subscribed("call.#") as events, servers.fleet(CALLFOLD_REDIS_URL=redis_url) as fleet:
        ingress = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        worker = fleet.add("worker", "worker", {})
        console = fleet.add("console", "console", {"CALLFOLD_CONSOLE_PORT": "0"})
        await fleet.start_all()
        await call_back(port, lines_of(513)[:2])
        async with Redis.from_url(redis_url) as redis:

            async def is_folded() -> int:
                return len([key async for key in redis.scan_iter("*513")])

            await eventually(is_folded)
            await ask(one, "CONFIG", "SET", "maxmemory", 1)
            before = await _facts(redis)
            wanted = f"Redis at 127.0.0.1:{one.port} refuses writes because its memory is full (OOM)"
            await _are((503, wanted), worker)
            await _are((200, wanted), console)
            await _are((200, ""), ingress)
            assert set(await call_back(port, [*lines_of(513)[2:], *lines_of(514)])) == {200}
            await eventually(lambda: _has_logged(worker, "redis_unavailable"))
            assert (await _facts(redis), await waiting_events(events)) == (before, [])
            await ask(one, "CONFIG", "SET", "maxmemory", 0)
            published = await next_new(events, 2)
        assert {event.message_id for event in published} == {"default/513/1", "default/514/1"}
        assert {event.body["data"]["outcome"] for event in published} == {"answered"}
        await _are((200, ""), worker, console)
    assert await servers.take_all("callbacks.dead") == []


async def _are(expected: tuple[int, str], *processes: ServiceProcess) -> None:
    async def are_so() -> bool:
        return {await _readiness(process) for process in processes} == {expected}

    await eventually(are_so)


async def _facts(redis: Redis) -> dict[bytes, bytes | None]:
    return {key: await redis.dump(key) async for key in redis.scan_iter("*") if key.endswith((b"513", b"514"))}


async def _has_logged(process: ServiceProcess, event: str) -> bool:
    return any(json.loads(line)["event"] == event for line in process.log_path.read_text("utf-8").splitlines())
