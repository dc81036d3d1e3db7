"""Nodes of RabbitMQ are drained one after the other under load: nothing is lost, every answer is quick, connections even out."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import orjson
import pytest
from aio_pika import connect

from console.local.ports import free_port
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.rabbitmq_cluster import RabbitMQCluster
from tests.helpers.servers import Servers, Stack, connected, eventually, lines_of, metric

pytestmark = pytest.mark.volume

CALLBACKS_PER_S = 40
ANSWER_S = 7
# What the processes wait for at most before a connection goes home: two probes, and the spread.
EVEN_S = 150


class _Sender:
    """Sends the callbacks of one call after the other at a steady rate, and keeps the answers."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/callbacks/default"
        self.accepted: set[int] = set()
        self.slowest_s = 0.0
        self.refused: list[int] = []
        self.stop = asyncio.Event()

    async def run(self, first: int, step: int) -> None:
        async with aiohttp.ClientSession() as session:
            number = first
            while not self.stop.is_set():
                for line in lines_of(number):
                    began = time.monotonic()
                    async with session.get(f"{self.url}?{line}") as response:
                        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                        if response.status != 200:
                            self.refused.append(response.status)
                    await asyncio.sleep(1 / CALLBACKS_PER_S)
                self.accepted.add(number)
                number += step


@pytest.mark.timeout(1500)
async def test_nodes_are_drained_in_turn_under_load(
    redis_only: Servers, rabbitmq_cluster: RabbitMQCluster, tmp_path: Path
) -> None:
    port = free_port()
    assert isinstance(redis_only.stack, Stack)
    servers = Servers(redis_only.stack, tmp_path)
    seen: dict[int, bytes] = {}
    async with servers.fleet(CALLFOLD_AMQP_URL=rabbitmq_cluster.amqp_url, CALLFOLD_INGRESS_PORT=str(port)) as fleet:
        fleet.add("ingress", "ingress", {})
        fleet.add("worker-1", "worker", {})
        fleet.add("worker-2", "worker", {})
        await fleet.start_all()
        await connected(*fleet.processes)
        sender = _Sender(port)
        sending = [asyncio.create_task(sender.run(1000 + each, 4)) for each in range(4)]
        for node in rabbitmq_cluster.nodes:
            known = len(sender.accepted)
            await node.drain()
            await eventually(lambda known=known: _more(sender, known + 20))  # type: ignore[misc]
            await node.revive()
            await eventually(lambda node=node: _is_back(rabbitmq_cluster, node.erlang_name), timeout_s=EVEN_S + LIMIT_S)  # type: ignore[misc]
        sender.stop.set()
        await asyncio.gather(*sending)
        await _read_events(rabbitmq_cluster, sender.accepted, seen)
        spooled = await metric(fleet.processes[0], "callfold_spool_messages")
    print(f"\n{len(sender.accepted)} calls, the slowest answer after {sender.slowest_s:.2f} s")  # noqa: T201 - the figures of the run
    assert not sender.refused
    assert set(seen) >= sender.accepted
    assert all(b'"outcome":"answered"' in body for body in seen.values())
    assert spooled == 0
    assert sender.slowest_s < ANSWER_S * max(1, PACE / 2), sender.slowest_s


async def _more(sender: _Sender, calls: int) -> bool:
    return len(sender.accepted) > calls


async def _is_back(cluster: RabbitMQCluster, name: str) -> bool:
    """Return whether a node has connections again."""
    return (await cluster.connections())[name] > 0


async def _read_events(cluster: RabbitMQCluster, calls: set[int], seen: dict[int, bytes]) -> None:
    """Read the journal of call events from its beginning until it has every call."""
    done = asyncio.Event()

    async with await connect(cluster.nodes[0].amqp_url, timeout=LIMIT_S) as connection, asyncio.timeout(LIMIT_S):
        channel = await connection.channel()
        await channel.set_qos(200)

        async def read(message: object) -> None:
            body = message.body  # type: ignore[attr-defined]
            event = orjson.loads(body)
            if event["type"].startswith("callfold.call."):
                seen[event["data"]["request_id"]] = body
            await message.ack()  # type: ignore[attr-defined]
            if seen.keys() >= calls:
                done.set()

        queue = await channel.get_queue("calls.journal")
        await queue.consume(read, arguments={"x-stream-offset": "first"})
        await done.wait()
