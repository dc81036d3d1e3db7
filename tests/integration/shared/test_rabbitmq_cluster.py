"""A cluster of three RabbitMQ nodes with the shipped configuration."""

from __future__ import annotations

from collections import Counter

import pytest

from shared.amqp.topology import topology
from tests.helpers.rabbitmq_cluster import RabbitMQCluster
from tests.helpers.servers import RETRY_S, declare

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
