"""A cluster of three RabbitMQ nodes with the shipped configuration."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import aio_pika
import pytest

from callfold_client import stream_cursor
from callfold_client.stream_cursor import StreamCursor
from callfold_client.stream_reader import StreamReader
from console.broker_move.streams import StreamCopy
from console.live.feed import Feed
from shared.amqp import connection
from shared.amqp.broker_admin import BrokerAdmin
from shared.amqp.topology import CALLS_JOURNAL, topology
from shared.config.settings import Settings
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.state.broker_move import BrokerMoveNotes
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


@dataclass(frozen=True, slots=True)
class _Behind:
    """A journal of which the server that readers connect to has 5 messages, and the others 10."""

    settings: Settings
    leader: Node
    server: Node

    async def catch_up(self) -> None:
        await self.leader.run("rabbitmqctl", "eval", _replication_to(self.server, "resume"))


@pytest.fixture
async def behind(rabbitmq_cluster: RabbitMQCluster, monkeypatch: pytest.MonkeyPatch) -> _Behind:
    await declare(rabbitmq_cluster.nodes[0].amqp_url)
    name = (await rabbitmq_cluster.leaders())[CALLS_JOURNAL]
    leader = next(node for node in rabbitmq_cluster.nodes if node.erlang_name == name)
    server = next(node for node in rabbitmq_cluster.nodes if node is not leader)
    settings = settings_here(monkeypatch, {"CALLFOLD_AMQP_URL": rabbitmq_cluster.amqp_url})

    def it_first(urls: Sequence[str], count: int) -> list[str]:
        assert len(urls) == count
        return sorted(urls, key=lambda url: url != server.amqp_url)

    monkeypatch.setattr(connection, "random", SimpleNamespace(sample=it_first, uniform=random.uniform))
    await _publish(leader, 5)
    assert await _read(settings) == list(range(5))
    await leader.run("rabbitmqctl", "eval", _replication_to(server, "suspend"))
    await _publish(leader, 5)
    return _Behind(settings, leader, server)


async def test_a_journal_is_read_to_its_end_although_the_replica_that_is_read_is_behind(behind: _Behind) -> None:
    readers = [
        asyncio.create_task(_read(behind.settings)),
        asyncio.create_task(journal_end(behind.settings, stream=CALLS_JOURNAL)),
    ]
    assert await asyncio.wait(readers, timeout=3) == (set(), set(readers))
    await behind.catch_up()
    assert await asyncio.gather(*readers) == [list(range(10)), 9]


class _NewBroker:
    """Counts what is copied to it."""

    copied = 0

    async def copy_until_confirmed(self, copies: Sequence[object]) -> None:
        self.copied += len(copies)


class _Notes:
    async def copied(self, _stream: str, _next_offset: int) -> None:
        """Note nothing: there is no second run."""


async def test_a_move_copies_a_journal_to_its_end_although_the_replica_that_is_read_is_behind(behind: _Behind) -> None:
    new, old = _NewBroker(), BrokerAdmin(broker_address(behind.settings, "tests"), timeout_s=LIMIT_S)
    copy = StreamCopy(CALLS_JOURNAL, old, cast("BrokerAdmin", new), cast("BrokerMoveNotes", _Notes()), 0)
    async with background(copy.run()):
        copying = asyncio.create_task(copy.catch_up())
        assert await asyncio.wait([copying], timeout=3) == (set(), {copying})
        assert (new.copied, copy.end) == (5, 10)
        await behind.catch_up()
        await asyncio.wait_for(copying, LIMIT_S)
    assert new.copied == 10


async def test_a_journal_was_not_replaced_because_the_replica_that_is_read_is_behind(
    behind: _Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_cursor, "ANSWER_TIMEOUT_S", -1)
    feed = Feed(behind.settings)
    async with background(feed.consumer.run()):
        await feed.consumer.wait_until_up()
        assert (await feed.consumer.stream_end(), await feed.consumer.latest_stream_end()) == (4, 9)
        assert [await feed.resume_offset(seen) for seen in (4, 9, 10)] == [4, 9, -1]
        feed.consumer.get_waiting(1 << 20)
        for seen in (9, 10):
            cursor = StreamCursor("first", last=(seen, b"{}"))
            cursor.request()
            assert await StreamReader(feed.consumer, cursor).is_lost() == (seen > 9)


async def _read(settings: Settings) -> list[int]:
    async with journal_until_now(settings, "first", stream=CALLS_JOURNAL, connect_s=LIMIT_S) as deliveries:
        return [delivery.offset async for delivery in deliveries]
