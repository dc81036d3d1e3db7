"""The way of one call over real servers and real processes: callbacks in over HTTP, events out of the topic."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import orjson
import pytest_asyncio

from console.fleet import free_port
from tests.support import (
    AGENT_GUID,
    DIALED_GUID,
    VENDOR_LINES,
    Event,
    Servers,
    call_back,
    lines_of,
    next_events,
    waiting_events,
)

Ports = tuple[Servers, list[int]]


@pytest_asyncio.fixture
async def running(servers: Servers) -> AsyncIterator[Ports]:
    ports = [free_port(), free_port()]
    async with servers.fleet() as fleet:
        for number, port in enumerate(ports):
            fleet.add(f"ingress-{number}", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
            fleet.add(f"worker-{number}", "worker", {})
        await fleet.start_all()
        yield servers, ports


async def test_the_vendors_four_lines_in_every_order_each_sent_twice_are_one_completed_call_each(running: Ports) -> None:
    servers, ports = running
    orders = list(itertools.permutations(range(4)))
    async with servers.subscribed("call.#") as queue:
        # Every order is a call of its own, so that all 24 can be told apart; both ingress processes take part.
        for number, order in enumerate(orders):
            lines = [lines_of(513 + number)[index] for index in order]
            doubled = [line for line in lines for _ in range(2)]
            assert await call_back(ports[number % 2], doubled) == [200] * 8
        events = await next_events(queue, len(orders))
        assert await call_back(ports[0], lines_of(513)) == [200] * 4
        await _fence(servers, ports[0])
        assert [event.body["id"] for event in await waiting_events(queue) if event.body["data"]["request_id"] < 9000] == []
    assert sorted(event.body["id"] for event in events) == sorted(f"default/{513 + n}/1" for n in range(24))
    for event in events:
        _is_the_vendors_call(event)


async def _fence(servers: Servers, port: int) -> None:
    """Wait until whatever came before is folded and acked: the queue is empty and its messages are settled."""
    async with servers.subscribed("call.completed.default.*") as fence:
        for number in range(9001, 9011):
            await call_back(port, lines_of(number))
        await next_events(fence, 10)


def _is_the_vendors_call(event: Event) -> None:
    data = event.body["data"]
    number = data["request_id"]
    assert event.routing_key == "call.completed.default.answered"
    assert event.message_id == event.body["id"] == f"default/{number}/1"
    assert event.body["specversion"] == "1.0"
    assert (event.body["type"], event.body["source"]) == ("callfold.call.completed.v1", "/callfold/default")
    assert event.body["subject"] == str(number)
    assert (data["outcome"], data["complete"], data["close_reason"], data["revision"]) == ("answered", True, "hangup", 1)
    for side, guid, last in (("agent", AGENT_GUID, "49"), ("dialed", DIALED_GUID, "50")):
        leg = data[side]
        assert (leg["guid"], leg["state"], leg["inferred"], leg["recorded"]) == (guid, "ended", False, True)
        assert leg["call_id"] == f"{number}0000878{last}"
        assert None not in (leg["picked_up_at"], leg["hung_up_at"])


async def test_a_complete_call_leaves_two_recording_jobs_and_its_raw_events_in_the_journal(servers: Servers) -> None:
    port = free_port()
    async with servers.fleet() as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await fleet.start_all()
        assert await call_back(port, VENDOR_LINES) == [200] * 4
    raw = [event for message in await servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]
    assert [event["query"] for event in raw] == list(VENDOR_LINES)
    assert {event["source"] for event in raw} == {"default"}


async def test_one_call_spread_over_two_ingresses_at_the_same_moment_completes_once(running: Ports) -> None:
    servers, ports = running
    async with servers.subscribed("call.completed.#") as queue:
        for number in range(600, 640):
            lines = lines_of(number)
            await asyncio.gather(*(call_back(ports[index % 2], [line]) for index, line in enumerate(lines * 2)))
        events = await next_events(queue, 40)
        await _fence(servers, ports[0])
        extra = [event for event in await waiting_events(queue) if event.body["data"]["request_id"] < 9000]
    assert sorted(event.body["data"]["request_id"] for event in events[:40]) == list(range(600, 640))
    assert extra == []
