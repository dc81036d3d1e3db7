"""Policies of RabbitMQ that can lose messages, and subscribers, as the management API of 3.10 lists them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
import pytest_asyncio
from aiohttp import encode_basic_auth, web

from shared.amqp.definitions import PRIORITY, policies
from shared.amqp.policies import Policy, changed_limits, harmful_policies, missing_limits, read_policies
from shared.amqp.subscribers import read_endpoint_queues, read_subscriptions
from shared.amqp.topology import topology
from shared.errors import BrokerUnavailableError

QUEUES = [queue.name for queue in topology((5,)).queues]


@pytest.mark.parametrize(
    ("pattern", "keys", "harmed"),
    [
        (".*", {"message-ttl"}, QUEUES),
        ("^callbacks", {"expires"}, [name for name in QUEUES if name.startswith("callbacks")]),
        ("journal$", {"max-age"}, [name for name in QUEUES if name.endswith("journal")]),
        (".*", {"max-length-bytes"}, [name for name in QUEUES if name.endswith("journal")]),
        (".*", {"delivery-limit"}, ["callbacks.dead", "recordings.dead", "forward.dead"]),
        (".*", {"ha-mode", "dead-letter-exchange", "queue-leader-locator"}, []),
        ("^recordings$", {"overflow"}, ["recordings"]),
        ("^other", {"message-ttl"}, []),
        ("(?no Python", {"message-ttl"}, QUEUES),
    ],
)
def test_a_policy_is_harmful_by_its_keys_and_the_queues_that_it_matches(pattern: str, keys: set[str], harmed: list[str]) -> None:
    policy = Policy("bad", pattern, dict.fromkeys(keys, "drop-head"))
    assert [queue for queue in QUEUES if policy.harms(queue)] == harmed
    assert len(harmful_policies([policy], QUEUES)) == bool(harmed)


@pytest.mark.parametrize(
    ("queue", "definition", "keys"),
    [
        ("forward.crm", {"overflow": "reject-publish"}, ["overflow"]),
        ("forward.crm", {"overflow": "reject-publish-dlx", "max-length": 5}, ["overflow"]),
        ("forward.crm", {"overflow": "drop-head", "max-length-bytes": 5}, []),
        ("forward.crm", {"delivery-limit": 5, "message-ttl": 5}, ["delivery-limit", "message-ttl"]),
        ("forward.crm.retry.5s", {"overflow": "drop-head"}, ["overflow"]),
        ("forward.crm.retry.5s", {"overflow": "reject-publish", "delivery-limit": 5}, []),
        ("forward.dead", {"overflow": "reject-publish"}, ["overflow"]),
        ("forward.journal", {"overflow": "reject-publish"}, []),
        ("forward.order.journal", {"overflow": "reject-publish"}, []),
        ("recordings", {"overflow": "reject-publish"}, []),
    ],
)
def test_the_queue_of_an_endpoint_must_drop_and_its_delays_must_refuse(
    queue: str, definition: dict[str, object], keys: list[str]
) -> None:
    assert Policy("bad", r"^forward\.|^recordings", definition).harms(queue) == keys


def test_a_policy_that_lets_an_endpoint_stop_all_publishing_is_named_with_that_effect() -> None:
    (sentence,) = harmful_policies([Policy("bad", r"^forward\.c", {"overflow": "reject-publish"})], [*QUEUES, "forward.crm"])
    assert sentence.endswith("of forward.crm. Once forward.crm is full, no event can be published to calls")


def test_the_sentence_names_the_policy_its_keys_and_the_queues() -> None:
    (sentence,) = harmful_policies([Policy("bad", r"\.dead$", {"message-ttl": 1, "expires": 1, "x": 1})], QUEUES)
    assert sentence == "The policy bad (expires, message-ttl) can lose messages of callbacks.dead, recordings.dead, forward.dead"


def _shipped() -> list[Policy]:
    return [
        Policy(str(each["name"]), str(each["pattern"]), cast("dict[str, object]", each["definition"]), PRIORITY)
        for each in policies(topology((5,)), vhost="/")
    ]


def test_the_shipped_policies_harm_nothing_and_every_limit_is_there() -> None:
    shipped = _shipped()
    assert harmful_policies(shipped, QUEUES) == []
    assert missing_limits(shipped, topology((5,)).queues) == []
    assert changed_limits(shipped, topology((5,)).queues) == []


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ([], []),
        ([Policy("weak", ".*", {"max-length": 1}, PRIORITY - 1)], []),
        ([Policy("operator", ".*", {"max-length-bytes": 1}, PRIORITY + 1, is_operator=True)], []),
        ([Policy("strong", "^calls", {"max-length": 1}, PRIORITY + 1)], ["calls.journal"]),
        ([Policy("equal", "^calls", {"max-length": 1}, PRIORITY)], []),
    ],
)
def test_a_policy_with_a_higher_priority_takes_the_limits_away(more: list[Policy], missing: list[str]) -> None:
    assert missing_limits([*more, *_shipped()], topology((5,)).queues) == missing


def test_without_policies_every_queue_that_is_not_for_dead_letters_or_retries_lacks_its_limits() -> None:
    assert missing_limits([], topology((5,)).queues) == [
        name for name in QUEUES if not name.endswith(".dead") and ".retry." not in name
    ]


def test_a_changed_limit_is_shown_and_does_no_harm() -> None:
    changed = [
        replace(policy, definition={**policy.definition, "max-age": "14D"}) if policy.name == "callfold-calls.journal" else policy
        for policy in _shipped()
    ]
    assert changed_limits(changed, topology((5,)).queues) == ["calls.journal: max-age 14D instead of 7D"]
    assert harmful_policies(changed, QUEUES) == []


def test_a_policy_that_another_one_overrides_is_not_reported() -> None:
    general = Policy("general", ".*", {"max-age": "1h"}, 0)
    (sentence,) = harmful_policies([general, *_shipped()], QUEUES)
    assert "journal" not in sentence


def test_what_the_command_ships_is_the_file() -> None:
    """After a change of a limit: `callfold broker definitions > deploy/definitions.json`."""
    shipped = orjson.loads((Path(__file__).parents[2] / "deploy" / "definitions.json").read_bytes())
    assert shipped == {"policies": policies(topology(()), vhost="/")}


def _entry(name: str, apply_to: str) -> dict[str, Any]:
    return {"vhost": "a/b", "name": name, "pattern": ".*", "apply-to": apply_to, "definition": {"expires": 1}, "priority": 0}


@pytest_asyncio.fixture
async def management() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != encode_basic_auth("o", "p@ss"):
            return web.Response(status=401)
        match request.rel_url.raw_path.removeprefix("/prefix/api/"):
            case "policies/a%2Fb":
                return web.json_response([_entry("one", "queues"), _entry("none", "exchanges")])
            case "operator-policies/a%2Fb":
                return web.json_response([_entry("two", "all")])
            case "exchanges/a%2Fb/calls/bindings/source":
                bound = "crm", "calls.journal", "forward.crm"
                return web.json_response([{"destination": name, "routing_key": "call.#"} for name in bound])
        return web.json_response(["neither policies nor bindings"])

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
    assert [(policy.name, policy.is_operator, policy.priority) for policy in found] == [("one", False, 0), ("two", True, 0)]


async def test_the_subscribers_of_the_virtual_host_are_read_without_queues_of_callfold(management: str) -> None:
    found = await read_subscriptions(
        f"http://o:p%40ss@{management}", "amqp://u:p@127.0.0.1/a%2Fb", {"calls.journal", "forward.crm"}
    )
    assert [str(each) for each in found] == ["crm (call.#)"]


async def test_the_queues_of_endpoints_are_found_by_their_bindings(management: str) -> None:
    found = await read_endpoint_queues(f"http://o:p%40ss@{management}", "amqp://u:p@127.0.0.1/a%2Fb", (30, 5, 5))
    assert found == ["forward.crm", "forward.crm.retry.5s", "forward.crm.retry.30s"]


@pytest.mark.parametrize("what", ["policies", "subscribers"])
async def test_an_answer_of_another_program_is_an_api_that_cannot_be_read(management: str, what: str) -> None:
    url, other = f"http://o:p%40ss@{management}", "amqp://u:p@127.0.0.1/"
    with pytest.raises(BrokerUnavailableError, match=f"Cannot read the {what} at "):
        await (read_policies(url, other) if what == "policies" else read_subscriptions(url, other, ()))


async def test_a_refusal_is_said_without_the_password(management: str) -> None:
    with pytest.raises(BrokerUnavailableError, match="status 401") as error:
        await read_policies(f"http://o:wrong-password@{management}", "amqp://u:p@127.0.0.1/")
    assert "wrong-password" not in str(error.value)


async def test_an_api_that_is_away_is_said() -> None:
    with pytest.raises(BrokerUnavailableError, match=r"Cannot read the policies at 127\.0\.0\.1:1"):
        await read_policies("http://127.0.0.1:1", "amqp://u:p@127.0.0.1/")
