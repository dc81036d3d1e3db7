"""Policies of RabbitMQ that can lose messages, as the management API of 3.10 lists them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import encode_basic_auth, web

from shared.amqp.policies import Policy, harmful_policies, read_policies
from shared.amqp.topology import topology
from shared.errors import BrokerUnavailableError

QUEUES = [queue.name for queue in topology((5,)).queues]


@pytest.mark.parametrize(
    ("pattern", "keys", "harmed"),
    [
        (".*", {"message-ttl"}, QUEUES),
        ("^callbacks", {"expires"}, [name for name in QUEUES if name.startswith("callbacks")]),
        ("journal$", {"max-age"}, [name for name in QUEUES if name.endswith("journal")]),
        (".*", {"max-length-bytes", "overflow"}, [name for name in QUEUES if name.endswith("journal")]),
        (".*", {"delivery-limit"}, ["callbacks.dead", "recordings.dead"]),
        (".*", {"ha-mode", "overflow", "dead-letter-exchange", "queue-leader-locator"}, []),
        ("^other", {"message-ttl"}, []),
        ("(?no Python", {"message-ttl"}, QUEUES),
    ],
)
def test_a_policy_is_harmful_by_its_keys_and_the_queues_that_it_matches(pattern: str, keys: set[str], harmed: list[str]) -> None:
    policy = Policy("bad", pattern, frozenset(keys))
    assert [queue for queue in QUEUES if policy.harms(queue)] == harmed
    assert len(harmful_policies([policy], QUEUES)) == bool(harmed)


def test_the_sentence_names_the_policy_its_keys_and_the_queues() -> None:
    (sentence,) = harmful_policies([Policy("bad", r"\.dead$", frozenset({"message-ttl", "expires", "x"}))], QUEUES)
    assert sentence == "The policy bad (expires, message-ttl) can lose messages of callbacks.dead, recordings.dead"


def _entry(name: str, apply_to: str) -> dict[str, Any]:
    return {"vhost": "a/b", "name": name, "pattern": ".*", "apply-to": apply_to, "definition": {"expires": 1}, "priority": 0}


@pytest_asyncio.fixture
async def management() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != encode_basic_auth("o", "p@ss"):
            return web.Response(status=401)
        if request.rel_url.raw_path == "/prefix/api/policies/a%2Fb":
            return web.json_response([_entry("one", "queues"), _entry("none", "exchanges")])
        return web.json_response([_entry("two", "all")])

    server = web.ServerRunner(web.Server(answer))  # type: ignore[arg-type]
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{server.addresses[0][1]}/prefix/"
    finally:
        await server.cleanup()


async def test_both_kinds_of_policies_of_the_virtual_host_are_read(management: str) -> None:
    found = await read_policies(f"http://o:p%40ss@{management}", "amqp://u:p@127.0.0.1/a%2Fb")
    assert [policy.name for policy in found] == ["one", "two"]


async def test_a_refusal_is_said_without_the_password(management: str) -> None:
    with pytest.raises(BrokerUnavailableError, match="status 401") as error:
        await read_policies(f"http://o:wrong-password@{management}", "amqp://u:p@127.0.0.1/")
    assert "wrong-password" not in str(error.value)


async def test_an_api_that_is_away_is_said() -> None:
    with pytest.raises(BrokerUnavailableError, match=r"Cannot read the policies at 127\.0\.0\.1:1"):
        await read_policies("http://127.0.0.1:1", "amqp://u:p@127.0.0.1/")
