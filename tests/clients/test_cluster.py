"""The TypeScript client in a cluster of three RabbitMQ nodes, of which each dies once."""

from __future__ import annotations

import asyncio
import itertools
import json

from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLS, topology
from shared.runtime.process import background
from tests.helpers.node import PROGRAMS, node
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.rabbitmq_cluster import RabbitMQCluster
from tests.helpers.servers import RETRY_S, declare
from tests.helpers.subscribers_broker import event

_QUEUE = "node.cluster"


async def test_a_replaying_newcomer_gets_every_event_once_while_each_node_dies(rabbitmq_cluster: RabbitMQCluster) -> None:
    urls = rabbitmq_cluster.amqp_url
    await declare(rabbitmq_cluster.nodes[0].amqp_url)
    for each in rabbitmq_cluster.nodes:  # RabbitMQ 3.10 writes its register of new streams when it stops, or seconds later
        await each.stop()
        await each.start()
    calls = itertools.count(1)
    published: list[str] = []
    publisher = Publisher(BrokerAddress(tuple(urls.split(",")), topology(RETRY_S), "tests"), timeout_s=10 * PACE)

    async def publish(count: int) -> None:
        events = [event(call) for call in itertools.islice(calls, count)]
        async with asyncio.timeout(LIMIT_S):
            await publisher.publish_until_confirmed(Message(CALLS, key, body, event_id) for key, event_id, body in events)
        published.extend(event_id for _, event_id, _ in events)

    given = json.dumps({"urls": urls, "queue": _QUEUE, "replaySince": "first", "heartbeatSeconds": 2, "hold": True})
    async with background(publisher.run()):
        await publish(50)
        async with node(PROGRAMS / "subscriber.mjs", given) as program:
            await program.until(lambda lines: any("id" in line for line in lines))
            for each in rabbitmq_cluster.nodes:
                await each.kill()
                async with asyncio.TaskGroup() as group:  # a queue may have its majority again only with this node
                    group.create_task(publish(20))
                    group.create_task(each.start())
                await program.request(*["go"] * 15)  # the replay of the first 50 is still going on when the last node dies
            await publish(20)
            await program.request(*["go"] * len(published))
            await program.until(lambda lines: {*published} <= {line.get("done") for line in lines})
            await program.request("stop")
            assert await program.end() == 0
    assert sorted(line["id"] for line in program.lines if "id" in line) == sorted(published)
    assert any("Next attempt" in line.get("message", "") for line in program.lines)
