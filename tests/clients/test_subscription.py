"""The TypeScript client against a real RabbitMQ: order, acks, replay, lost connections, poison and conditions."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

import callfold_client
from shared.amqp.roles import subscriber
from tests.helpers.cut_wire import cut_wire
from tests.helpers.frozen_wire import frozen_wire
from tests.helpers.node import PROGRAMS, NodeProgram, node
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually
from tests.helpers.subscribers_broker import Broker, event, subscribers_broker

_QUEUE = "node.calls"


@pytest_asyncio.fixture
async def broker(rabbitmq_only: Servers) -> AsyncIterator[Broker]:
    async with subscribers_broker(rabbitmq_only, _QUEUE) as made:
        yield made


@asynccontextmanager
async def _subscriber(urls: str, **options: Any) -> AsyncIterator[NodeProgram]:  # noqa: ANN401
    given = json.dumps({"urls": urls, "queue": _QUEUE, "timeoutSeconds": LIMIT_S / 4, **options})
    async with node(PROGRAMS / "subscriber.mjs", given) as program:
        await program.until(lambda lines: any("connected" in line.get("message", "") for line in lines))
        yield program


def port_of(url: str) -> int:
    return urlsplit(url).port or 5672


def _ids(lines: list[Any]) -> list[str]:
    return [line["id"] for line in lines if "id" in line]


def _done(lines: list[Any]) -> list[str]:
    return [line["done"] for line in lines if "done" in line]


async def test_each_event_arrives_once_and_an_old_revision_not_at_all(broker: Broker) -> None:
    async with _subscriber(broker.url, onlyNewer=True) as program:
        await broker.publish(event(1), event(2), event(1), event(3, revision=2), event(3), event(4))
        await program.until(lambda lines: "acme/4/1" in _done(lines))
        await program.request("stop")
        assert await program.end() == 0
    assert _ids(program.lines) == ["acme/1/1", "acme/2/1", "acme/3/2", "acme/4/1"]
    assert await broker.waiting(_QUEUE) == []


async def test_an_event_is_acked_after_the_body_of_the_loop(broker: Broker) -> None:
    async with _subscriber(broker.url, hold=True) as program:
        await broker.publish(event(1))
        await program.until(_ids)
    async with _subscriber(broker.url) as program:  # the first was killed within the body
        await program.until(_done)
        assert _ids(program.lines) == ["acme/1/1"]


@pytest.mark.parametrize("option", ["throwAt", "breakAt"])
async def test_a_loop_that_is_left_early_gets_its_event_again(broker: Broker, option: str) -> None:
    async with _subscriber(broker.url, **{option: "acme/2/1"}) as program:
        await broker.publish(event(1), event(2), event(3))
        await program.end()
    assert _done(program.lines) == ["acme/1/1"]
    async with _subscriber(broker.url) as program:
        await program.until(lambda lines: "acme/3/1" in _done(lines))
    assert _ids(program.lines) == ["acme/2/1", "acme/3/1"]


async def test_a_newcomer_reads_the_journal_and_its_queue_without_gap_or_double(broker: Broker) -> None:
    await broker.publish(*(event(call) for call in range(1, 301)))
    async with _subscriber(broker.url, hold=True, replaySince="first") as program:
        await program.until(_ids)  # it has bound its queue
        await broker.publish(*(event(call) for call in range(301, 601)))
        await program.request(*["go"] * 600)
        lines = await program.until(lambda lines: len(_done(lines)) >= 600)
        await program.request("stop")
        assert await program.end() == 0
    assert _ids(lines) == [f"acme/{call}/1" for call in range(1, 601)]
    replayed = [line["isReplayed"] for line in lines if "isReplayed" in line]
    assert replayed == sorted(replayed, reverse=True)
    assert (replayed[299], replayed[-1]) == (True, False)


async def test_a_replay_since_a_time_without_events_goes_on_with_the_queue(broker: Broker) -> None:
    await broker.publish(event(1))
    async with _subscriber(broker.url, replaySince="2100-01-01T00:00:00Z") as program:
        await broker.publish(event(2))
        assert _ids(await program.until(_done)) == ["acme/2/1"]


async def test_lost_connections_cost_no_event_and_repeat_none(broker: Broker) -> None:
    budgets = itertools.chain((4_000, 20_000, 60_000, 90_000, 120_000, 150_000), itertools.repeat(1 << 40))
    await broker.publish(*(event(call) for call in range(1, 101)))
    async with cut_wire(port_of(broker.url), budgets) as wire:
        url = broker.url.replace(str(port_of(broker.url)), str(wire.port))
        async with _subscriber(url, replaySince="first") as program:
            await broker.publish(*(event(call) for call in range(101, 201)))
            await program.until(lambda lines: len(_done(lines)) >= 200 and wire.cut > 6)
            await program.request("stop")
            assert await program.end() == 0
    assert sorted(_ids(program.lines)) == sorted(f"acme/{call}/1" for call in range(1, 201))
    assert any("Next attempt" in line.get("message", "") for line in program.lines)


async def test_a_second_host_takes_over(broker: Broker) -> None:
    async with cut_wire(port_of(broker.url), itertools.chain([5_000], itertools.repeat(0))) as wire:
        first = broker.url.replace(str(port_of(broker.url)), str(wire.port))
        dead = broker.url.replace(str(port_of(broker.url)), "1")
        async with _subscriber(f"{dead},{first},{broker.url}") as program:
            await broker.publish(*(event(call) for call in range(1, 51)))
            await program.until(lambda lines: len(_done(lines)) >= 50)
    assert _ids(program.lines) == [f"acme/{call}/1" for call in range(1, 51)]


async def test_what_is_no_event_and_what_is_rejected_are_dead_letters(broker: Broker) -> None:
    wrong = b'{"id": "acme/8/1", "type": "callfold.call.completed.v1", "source": "x", "subject": "8", "time": "t", "data": {}}'
    async with _subscriber(broker.url, rejectAll=True) as program:
        await broker.publish(("call.completed.acme.answered", "a", b"no JSON"), ("call.x.acme.y", "b", wrong), event(3))
        await program.until(_done)
        await program.request("stop")
        assert await program.end() == 0
    assert _ids(program.lines) == ["acme/3/1"]
    assert await broker.waiting(f"{_QUEUE}.dead") == ["a", "b", "acme/3/1"]


async def test_what_is_put_into_the_queue_by_its_name_is_delivered(broker: Broker) -> None:
    """A redrive of dead letters does so, and their routing key is the name of the queue."""
    _, event_id, body = event(1)
    async with _subscriber(broker.url) as program:
        await broker.put(_QUEUE, event_id, body)
        await program.until(lambda lines: event_id in _done(lines))
        await program.request("stop")
        assert await program.end() == 0


async def test_an_event_that_ends_the_program_each_time_is_a_dead_letter_and_takes_no_other_along(broker: Broker) -> None:
    async with _subscriber(broker.url):
        pass
    await broker.publish(*(event(call) for call in range(1, 31)))
    done: set[str] = set()
    dead: list[str | None] = []
    while not dead:
        async with _subscriber(broker.url, throwAt="acme/11/1") as program:

            async def is_over(lines: list[Any] = program.lines) -> bool:
                dead.extend(await broker.waiting(f"{_QUEUE}.dead"))
                return bool(dead) or any("failed" in line for line in lines)

            await eventually(is_over)
            done |= {*_done(program.lines)}
    async with _subscriber(broker.url) as program:
        await broker.publish(event(31))
        await program.until(lambda lines: "acme/31/1" in _done(lines))
    done |= {*_done(program.lines)}
    assert {f"acme/{call}/1" for call in range(1, 32)} - done == {"acme/11/1"}
    assert dead == ["acme/11/1"]


async def test_a_limit_ends_the_loop_with_the_last_event_acked(broker: Broker) -> None:
    async with _subscriber(broker.url, limit=2) as program:
        await broker.publish(event(1), event(2), event(3))
        assert await program.end() == 0
    assert _done(program.lines) == ["acme/1/1", "acme/2/1"]
    assert await broker.waiting(_QUEUE) == ["acme/3/1"]


async def test_a_server_that_no_longer_answers_is_noticed_by_its_heartbeats(broker: Broker) -> None:
    async with frozen_wire(port_of(broker.url)) as wire:
        first = broker.url.replace(str(port_of(broker.url)), str(wire.port))
        async with _subscriber(first, heartbeatSeconds=1) as program:
            await broker.publish(event(1))
            await program.until(_done)
            wire.freeze()
            await broker.publish(event(2))
            await program.until(lambda lines: any("Heartbeat" in line.get("message", "") for line in lines))
            wire.thaw()
            await program.until(lambda lines: "acme/2/1" in _done(lines))
    assert _ids(program.lines) == ["acme/1/1", "acme/2/1"]


async def test_both_clients_share_a_queue_and_each_event_goes_to_one_of_them(broker: Broker) -> None:
    async with _subscriber(broker.url, prefetch=1) as program, callfold_client.subscribe(broker.url, queue=_QUEUE) as python:
        await broker.publish(*(event(call) for call in range(1, 41)))
        in_python, count = Counter[str](), 40

        async def consume() -> None:
            async for received in python:
                in_python[received.id] += 1

        async def both_have_some() -> bool:
            """Publish on, since one of them can begin after the other has taken all."""
            nonlocal count
            count += 1
            await broker.publish(event(count))
            return bool(in_python and _ids(program.lines))

        consuming = asyncio.create_task(consume())
        await eventually(both_have_some)
        await eventually(lambda: _all_of(in_python, program, count))
        python.stop()
        await consuming
        await program.request("stop")
        assert await program.end() == 0
    assert sorted([*in_python.elements(), *_ids(program.lines)]) == sorted(f"acme/{call}/1" for call in range(1, count + 1))


async def _all_of(in_python: Counter[str], program: NodeProgram, count: int) -> bool:
    return in_python.total() + len(_done(program.lines)) >= count


async def test_filter_and_condition_select_events(broker: Broker) -> None:
    options = {"filter": ["call.completed.acme.answered", "call.amended.#"], "where": "talk_seconds > 60"}
    async with _subscriber(broker.url, **options) as program:
        await broker.publish(
            *(event(1, talk_seconds=60), event(2, talk_seconds=60.5), event(3, talk_seconds=None)),
            *(event(4, talk_seconds=90, outcome="missed"), event(5, talk_seconds=90, revision=2)),
        )
        await program.until(lambda lines: "acme/5/2" in _done(lines))
        await program.request("stop")
        await program.end()
    assert _ids(program.lines) == ["acme/2/1", "acme/5/2"]
    assert await broker.waiting(_QUEUE) == []


async def test_a_user_with_the_rights_of_a_subscriber_gets_the_events_of_its_source_alone(broker: Broker) -> None:
    async with broker.user("node", subscriber("node", "acme")) as url:
        for pattern in ("#", "call.#", "call.*.other.#"):
            given = json.dumps({"urls": url, "queue": _QUEUE, "filter": pattern})
            async with node(PROGRAMS / "subscriber.mjs", given) as program:
                assert await program.end() == 1
            assert (program.lines[-1]["failed"], "ACCESS_REFUSED" in program.lines[-1]["message"]) == ("RefusedError", True)
        async with _subscriber(url, filter="call.*.acme.#") as program:
            await broker.publish(event(1), event(2, source="other"), event(3))
            await program.until(lambda lines: "acme/3/1" in _done(lines))
    assert _ids(program.lines) == ["acme/1/1", "acme/3/1"]


@pytest.mark.parametrize(
    ("user", "vhost", "name", "text"),
    [("guest:hunter2", "", "RefusedError", "403"), ("guest:guest", "nowhere", "TransportLostError", "virtual host")],
)
async def test_a_wrong_password_and_a_wrong_vhost_end_the_loop_with_the_reason(
    broker: Broker, user: str, vhost: str, name: str, text: str
) -> None:
    given = {"urls": f"amqp://{user}@127.0.0.1:{port_of(broker.url)}/{vhost}", "queue": _QUEUE, "connectWithinSeconds": 0}
    async with node(PROGRAMS / "subscriber.mjs", json.dumps(given)) as program:
        assert await program.end() == 1
    line = program.lines[-1]
    assert (line["failed"], text in line["message"]) == (name, True)
    assert "hunter2" not in line["message"]
