"""A cluster of three RabbitMQ nodes with the shipped configuration."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import aio_pika
import pytest

from shared.amqp.topology import CALLS_JOURNAL, topology
from shared.config.settings import Settings
from shared.runtime.broker import broker_address
from shared.streams import journal
from shared.streams.journal import journal_end, journal_until_now
from tests.helpers.pace import LIMIT_S
from tests.helpers.rabbitmq_cluster import Node, RabbitMQCluster
from tests.helpers.servers import RETRY_S, declare
from tests.helpers.settings import settings_here

pytestmark = pytest.mark.volume


async def test_leaders_of_queues_and_of_streams_are_spread_over_the_nodes(rabbitmq_cluster: RabbitMQCluster) -> None:
    await declare(rabbitmq_cluster.nodes[0].amqp_url)
    leaders = await rabbitmq_cluster.leaders()
    queues = topology(RETRY_S).queues
    assert set(leaders) == {queue.name for queue in queues}
    for kind in ("quorum", "stream"):
        counts = Counter(leaders[queue.name] for queue in queues if queue.arguments["x-queue-type"] == kind)
        assert len(counts) == len(rabbitmq_cluster.nodes), (kind, counts)
        assert max(counts.values()) - min(counts.values()) <= 1, (kind, counts)


def _replication_to(node: Node, act: str) -> str:
    """Return the code that suspends or resumes what a leader sends to the replicas of a node."""
    is_to_node = f"fun(Each) -> is_pid(Each) andalso node(Each) =:= '{node.erlang_name}' end"
    senders = "{_, Pid, _, _} <- supervisor:which_children(osiris_replica_reader_sup)"
    if act == "resume":
        return f"[sys:resume(Pid) || {senders}]."
    return f"[sys:suspend(Pid) || {senders}, lists:any({is_to_node}, tuple_to_list(sys:get_state(Pid)))]."


async def _publish(node: Node, count: int) -> None:
    async with await aio_pika.connect(node.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        for _ in range(count):
            await channel.default_exchange.publish(aio_pika.Message(b"{}"), CALLS_JOURNAL, timeout=LIMIT_S)


async def test_a_journal_is_read_to_its_end_although_the_replica_that_is_read_is_behind(
    rabbitmq_cluster: RabbitMQCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await declare(rabbitmq_cluster.nodes[0].amqp_url)
    name = (await rabbitmq_cluster.leaders())[CALLS_JOURNAL]
    leader = next(node for node in rabbitmq_cluster.nodes if node.erlang_name == name)
    behind = next(node for node in rabbitmq_cluster.nodes if node is not leader)
    settings = settings_here(monkeypatch, {"CALLFOLD_AMQP_URL": rabbitmq_cluster.amqp_url})
    only_behind = replace(broker_address(settings, "tests"), urls=(behind.amqp_url,), hosts=None)
    monkeypatch.setattr(journal, "broker_address", lambda *_: only_behind)
    await _publish(leader, 5)
    assert await _read(settings) == list(range(5))
    await leader.run("rabbitmqctl", "eval", _replication_to(behind, "suspend"))
    await _publish(leader, 5)
    readers = [asyncio.create_task(_read(settings)), asyncio.create_task(journal_end(settings, stream=CALLS_JOURNAL))]
    assert await asyncio.wait(readers, timeout=3) == (set(), set(readers))
    await leader.run("rabbitmqctl", "eval", _replication_to(behind, "resume"))
    assert await asyncio.gather(*readers) == [list(range(10)), 9]


async def _read(settings: Settings) -> list[int]:
    async with journal_until_now(settings, "first", stream=CALLS_JOURNAL, connect_s=LIMIT_S) as deliveries:
        return [delivery.offset async for delivery in deliveries]
