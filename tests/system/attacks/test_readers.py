"""Readers that request look-ups at full speed: dials keep their time, and each look-up is answered or refused by name."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from console import service
from console.lookup.lookup import Lookup
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey
from shared.state.store import Store
from tests.helpers.attacks import ATTACK_S, assert_unharmed, measuring, undisturbed, within_bounds
from tests.helpers.console import AUTHORIZED, KEY, DialEndpoint, World, console_here, sources, world
from tests.helpers.folding import ADAPTER, SOURCE, callback
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers

_SOURCES = '[sources.acme]\ndial_url = "http://127.0.0.1:{port}/dial?agent={agent}&number={number}"\n'
_CALLS = 2000
_READERS = 40
_PATHS = ("/calls?limit=500", "/calls?limit=500&csv", "/", "/ui/calls", "/ui/calls.csv", "/ui/find?q=777")
_DIAL_P99_S = 0.5


@pytest_asyncio.fixture
async def here(servers: Servers) -> AsyncIterator[World]:
    async with world(servers, _SOURCES, "console", CALLFOLD_CONSOLE_KEY=KEY, CALLFOLD_DIALS_PER_MINUTE="100000") as made:
        await _fill(servers)
        yield made


async def test_a_dial_needs_no_connection_that_look_ups_use(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    stores: list[Store] = []

    def lookup(settings: Settings, known: LiveSources, store: Store, *others: Any) -> Lookup:  # noqa: ANN401
        stores.append(store)
        return Lookup(settings, known, store, *others)

    monkeypatch.setattr(service, "Lookup", lookup)
    dialing = DialEndpoint()
    path = sources(servers.directory, _SOURCES.replace("{port}", str(dialing.port)))
    async with (
        dialing.running(),
        console_here(servers, monkeypatch, CALLFOLD_SOURCES=path, CALLFOLD_CONSOLE_KEY=KEY) as url,
        aiohttp.ClientSession(headers=AUTHORIZED) as session,
    ):
        pool = stores[0]._redis.connection_pool
        taken = [await pool.get_connection() for _ in range(pool.max_connections)]  # type: ignore[no-untyped-call]
        async with session.get(f"{url}/calls") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
        body = {"source": "acme", "agent": "1001", "number": "112"}
        async with session.post(f"{url}/dial", json=body, headers={"Idempotency-Key": "513"}) as response:
            assert response.status == 201, await response.text()
        for connection in taken:
            await pool.release(connection)
        async with session.get(f"{url}/calls") as response:
            assert response.status == 200


async def _fill(servers: Servers) -> None:
    """Write calls of two legs, half of them open, as the fold would."""
    store = Store(servers.stack.redis_url)
    try:
        calls = dict(_facts(number) for number in range(_CALLS))
        keys = list(calls)
        for first in range(0, _CALLS, 500):
            await store.merge({key: [calls[key]] for key in keys[first : first + 500]})
    finally:
        await store.aclose()


def _facts(number: int) -> tuple[CallKey, list[tuple[str, str]]]:
    more = f"RequestID={number}&CallerID=%2B4530{number:06}&Guid=bfa2dbc8-ab8a-34c8-f243-c2aad8{number:06x}"
    legs = [("API", 1, "pickup"), ("Outgoing", 2, "pickup"), ("Outgoing", 2, "hangup"), ("API", 1, "hangup")]
    events = [
        callback(number + seconds, f"CallType={kind}&Event={event}&CallID={number}{leg}&IsCallRecorded=1&{more}")
        for seconds, (kind, leg, event) in enumerate(legs[: 2 + 2 * (number % 2)])
    ]
    rows = [facts_of(event, ADAPTER) for event in events]
    return CallKey(SOURCE, rows[0][0].call), [fact for _, facts in rows for fact in facts]


async def _attack(here: World) -> dict[str, int]:
    """Read from another process; returns the number of answers of each kind."""
    paths = [*_PATHS, *(f"/calls/acme/{number}" for number in (1, 10, 100))]
    arguments = ("-m", "tests.helpers.readers", here.console, KEY, str(_READERS), str(ATTACK_S), *paths)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(ATTACK_S + LIMIT_S):
        output, _ = await process.communicate()
    results: dict[str, int] = orjson.loads(output)
    return results


async def test_readers_at_full_speed_delay_no_dial(here: World) -> None:
    async def dial() -> None:
        body = {"source": "acme", "agent": "1001", "number": "112"}
        status, answer, _ = await here.ask("POST", "/dial", headers=AUTHORIZED, json=body)
        assert status == 201, answer

    before = await undisturbed(dial)
    async with within_bounds(*here.roles.values()), measuring(dial) as during:
        results = await _attack(here)
    assert_unharmed(during, before, limit_s=_DIAL_P99_S)
    assert results.get("200", 0) > 0, results
    assert {result for result in results if not result.startswith(("200", "303", "503 The console"))} == set(), results
