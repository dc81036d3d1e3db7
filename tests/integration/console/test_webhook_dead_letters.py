"""Dead letters of webhooks are redriven to the queue of their endpoint, and those of unknown endpoints stay."""

from __future__ import annotations

import uuid
from pathlib import Path

import orjson
import pytest

from console.commands.dead_letters import redrive
from console.dead_letters.queue import DeadLetterQueue, Filter
from shared.amqp.connection import BrokerAddress
from shared.amqp.dead_letters import dead_letter_headers
from shared.amqp.publisher import Message
from shared.amqp.server_check import check_server
from shared.amqp.topology import FORWARD_DEAD, endpoint_topology, forward_queue
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.streams.connections import wait_until_connected
from shared.webhooks.signing import new_secret
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually
from tests.helpers.settings import settings_here

_AT = "2026-11-23T07:44:00.000000Z"


def _dead_letter(endpoint: str) -> Message:
    body = orjson.dumps({"id": "acme/513/1", "source": "/callfold/acme"})
    headers = {**dead_letter_headers("forward_failed", "status 500", _AT), "endpoint": endpoint, "routing_key": "call.x"}
    return Message("", FORWARD_DEAD, body, uuid.uuid4().hex, headers=headers)


async def test_a_redrive_takes_the_events_of_known_endpoints_and_leaves_the_others(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "endpoints.toml"
    file.write_text(f'[endpoints.crm]\nurl = "https://crm.example.com/"\nsecret = "{new_secret()}"\n', "utf-8")
    settings = settings_here(monkeypatch, servers.environment(CALLFOLD_ENDPOINTS=str(file)))
    await check_server(BrokerAddress((servers.stack.amqp_url,), endpoint_topology("crm", ["no.such.key"], ()), "tests"))
    publisher = create_publisher(settings, "tests")
    async with background(publisher.run()):
        await wait_until_connected(publisher)
        await publisher.publish(*map(_dead_letter, ("removed", "crm")))
    assert await redrive(settings, DeadLetterQueue.FORWARD, Filter(), dry_run=False, as_json=False) == 0
    said = capsys.readouterr()
    assert (said.out.endswith("1 redriven\n"), "its webhook does not exist" in said.err) == (True, True)
    # A queue with a single active consumer has no basic.get.
    async with servers.queue(forward_queue("crm")) as queue, queue.iterator(timeout=LIMIT_S) as events:
        event = await anext(events)
        await event.ack()
    assert (event.headers, event.message_id != "") == ({"routing_key": "call.x"}, True)
    (left,) = await eventually(lambda: servers.take_all(FORWARD_DEAD))
    assert left.headers["endpoint"] == "removed"
