"""A stream that gets a new leader under load: what counts as confirmed is stored.

RabbitMQ 3.10 confirms messages that it has not stored, on a channel that publishes elsewhere too (`shared/amqp/confirm_order.py`).
"""

from __future__ import annotations

import asyncio
import itertools
import uuid

import pytest

from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS_DEAD, CALLS, CALLS_JOURNAL, topology
from shared.runtime.process import background
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.rabbitmq_cluster import run_tool
from tests.helpers.servers import RETRY_S, Servers, eventually

_LEADER = '{ok, Queue} = rabbit_amqqueue:lookup({resource, <<"/">>, queue, <<"' + CALLS_JOURNAL + '">>})'
_KILL_LEADER = f"{_LEADER}, exit(amqqueue:get_pid(Queue), kill)."
_ROUTING_KEY = "call.completed.acme.answered"
_PUBLISHERS = 20


@pytest.fixture
def servers(rabbitmq_only: Servers) -> Servers:
    return rabbitmq_only


def _event(body: bytes) -> Message:
    return Message(CALLS, _ROUTING_KEY, body, uuid.uuid4().hex)


class _Load:
    """Publishes numbered events, each with two messages to a queue, as a worker does with recording jobs."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._numbers = itertools.count()
        self.confirmed: list[bytes] = []
        self.is_over = False

    async def run(self) -> None:
        while not self.is_over:
            event = _event(b"%d" % next(self._numbers))
            others = [Message("", CALLBACKS_DEAD, b"{}", uuid.uuid4().hex) for _ in range(2)]
            unconfirmed = await self._publisher.publish_once([*others, event], task=self)
            if event not in unconfirmed:
                self.confirmed.append(event.body)
            await asyncio.sleep(0.002)

    async def wait_for_more(self) -> None:
        wanted = len(self.confirmed) + 4 * _PUBLISHERS

        async def are_more() -> bool:
            return len(self.confirmed) >= wanted

        await eventually(are_more)


async def test_what_is_confirmed_while_a_stream_gets_a_new_leader_is_stored(servers: Servers) -> None:
    publisher = Publisher(BrokerAddress((servers.stack.amqp_url,), topology(RETRY_S), "tests"), timeout_s=2 * PACE)
    load = _Load(publisher)
    async with background(publisher.run()):
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
        async with asyncio.TaskGroup() as group:
            for _ in range(_PUBLISHERS):
                group.create_task(load.run())
            for _ in range(2):
                await load.wait_for_more()
                await run_tool(servers.stack.rabbitmq.environment, "rabbitmqctl", "eval", _KILL_LEADER)
            await load.wait_for_more()
            load.is_over = True
        await asyncio.wait_for(publisher.publish_until_confirmed([_event(b"end")]), LIMIT_S)
    stored = await servers.read_stream(CALLS_JOURNAL, lambda body: body == b"end")
    assert set(load.confirmed) - set(stored) == set()
