"""The way of one call over real servers and real processes: callbacks in over HTTP, events out of the topic."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import orjson
import pytest
import pytest_asyncio

from console.local.ports import free_port
from shared.config.settings import Settings, load_settings
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.times import rfc3339
from shared.streams.journal import journal_until_now
from tests.helpers.console import sources
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import (
    AGENT_GUID,
    DIALED_GUID,
    VENDOR_LINES,
    Event,
    Servers,
    call_back,
    connected,
    lines_of,
    next_events,
    settled,
    waiting_events,
)
from tests.helpers.settings import settings_here

Running = tuple[Servers, list[int]]

# A callback whose confirm is late would be published twice, and a call whose hangup is late would be closed without it.
PATIENT = dict.fromkeys(("CALLFOLD_PUBLISH_TIMEOUT_SECONDS", "CALLFOLD_SETTLE_SECONDS"), f"{LIMIT_S:g}")
ORDERS = {f"order-{number}": order for number, order in enumerate(itertools.permutations(VENDOR_LINES), start=1)}


@pytest_asyncio.fixture
async def running(servers: Servers) -> AsyncIterator[Running]:
    ports = [free_port(), free_port()]
    names = sources(servers.directory, "".join(f"[sources.{name}]\n" for name in ("default", *ORDERS)))
    async with servers.fleet(CALLFOLD_SOURCES=names, **PATIENT) as fleet:
        for number, port in enumerate(ports):
            fleet.add(f"ingress-{number}", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
            fleet.add(f"worker-{number}", "worker", {})
        await fleet.start_all()
        await connected(*fleet.processes)
        yield servers, ports


async def test_the_vendors_four_lines_in_every_order_each_sent_twice_are_one_event_and_two_recording_jobs(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order is a call of another source: the vendor's RequestID is the same in all of them."""
    servers, ports = running
    sent: dict[str, list[str]] = {}
    started = datetime.now(UTC)
    async with servers.subscribed("call.#") as events, servers.subscribed("recordings", exchange="recordings") as jobs:
        for number, (source, order) in enumerate(ORDERS.items()):
            sent[source] = [line for line in order for _ in range(2)]
            assert await call_back(ports[number % 2], sent[source], source=source) == [200] * 8
            (event,) = await next_events(events, 1)
            _is_the_vendors_call(event, source)
            _are_the_jobs_of(event, await next_events(jobs, 2), source)
        await settled(servers, *(CallKey(SourceName(source), CallRef("513")) for source in ORDERS))
        await _fence(servers, ports[0])
        assert [event for event in await waiting_events(events) if event.body["data"]["request_id"] == 513] == []
        assert [job for job in await waiting_events(jobs) if job.body["request_id"] == 513] == []
    settings_here(monkeypatch, servers.environment())
    assert await _journal_of_513(load_settings(), started) == sent


def _is_the_vendors_call(event: Event, source: str) -> None:
    data = event.body["data"]
    assert event.routing_key == f"call.completed.{source}.answered"
    assert event.message_id == event.body["id"] == f"{source}/513/1"
    assert event.body["specversion"] == "1.0"
    assert (event.body["type"], event.body["source"]) == ("callfold.call.completed.v1", f"/callfold/{source}")
    assert event.body["subject"] == "513"
    assert (data["source"], data["request_id"], data["revision"], data["other_legs"]) == (source, 513, 1, [])
    assert (data["outcome"], data["complete"], data["close_reason"]) == ("answered", True, "hangup")
    for side, call_id, guid in (("agent", "1000000087849", AGENT_GUID), ("dialed", "1000000087850", DIALED_GUID)):
        leg = data[side]
        assert (leg["call_id"], leg["guid"], leg["state"], leg["inferred"], leg["recorded"]) == (
            call_id,
            guid,
            "ended",
            False,
            True,
        )
        assert None not in (leg["picked_up_at"], leg["hung_up_at"])


def _are_the_jobs_of(event: Event, jobs: list[Event], source: str) -> None:
    assert sorted((job.body["leg"], job.body["call_id"], job.body["guid"]) for job in jobs) == [
        ("agent", "1000000087849", AGENT_GUID),
        ("dialed", "1000000087850", DIALED_GUID),
    ]
    for job in jobs:
        assert (job.body["source"], job.body["call"], job.body["fetch"]) == (source, "513", True)
        assert job.body["record"] == {name: value for name, value in event.body["data"].items() if name != "annotations"}


async def _journal_of_513(settings: Settings, since: datetime) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    async with journal_until_now(settings, since, stream="callbacks.journal") as deliveries:
        async for delivery in deliveries:
            for event in orjson.loads(delivery.body):
                if event["received_at"] >= rfc3339(since) and "RequestID=513" in event.get("query", ""):
                    assert event["kind"] == "callback"
                    found.setdefault(event["source"], []).append(event["query"])
    return found


async def _fence(servers: Servers, port: int) -> None:
    """Wait until whatever came before is folded and acked: the queue is empty and its messages are settled."""
    async with servers.subscribed("call.completed.default.*") as fence:
        for number in range(9001, 9011):
            await call_back(port, lines_of(number))
        await next_events(fence, 10)


async def test_one_call_spread_over_two_ingresses_at_the_same_moment_completes_once(running: Running) -> None:
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
