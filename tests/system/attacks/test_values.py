"""Values that are costly to decode, to mask or to show: they delay no other source, and no process spends long on one of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from urllib.parse import quote

import aiohttp
import pytest

from tests.helpers.attacks import ATTACK_S, assert_unharmed, measuring, undisturbed, within_bounds
from tests.helpers.console import AUTHORIZED, KEY, World, world
from tests.helpers.servers import Servers, connected, lines_of

_CALLBACK_S = 0.25
_LOOK_UP_S = 0.5
SOURCES = '[sources.acme]\nsecret = "hunter2-hunter2"\n[sources.other]\nsecret = "hunter3-hunter3"\n'
_CALL = "CallType=API&Event=pickup&CallID=7&RequestID=7"
_BYTES = 60_000  # a form may have 64 KiB
# Kept as dead letters, which the console shows.
BEYOND = (
    "CallerID=%" + "25" * (_BYTES // 2),
    "CallerID=%4" + "%3" * (_BYTES // 2) + "1",
    "RecordingURL=" + "token%3Da%26" * (_BYTES // 12),
    "foreign=" + '"token"%3A[a%26' * (_BYTES // 15),
    "&" * _BYTES,
    "n" * _BYTES + "=1",
)
# Folded, and shown with their call.
WITHIN = (
    "CallerID=" + quote("token%3Da%26" * 340),
    "RecordingURL=" + quote("%2F%2F%252F%252F%2540" * 390),
    "LastQueueName=" + quote('"token":["a",' * 310),
    "foreign=" + 'cookie: a "' * 700,
    "&".join(f"foreign{number}=token%3Da%26" for number in range(90)),
)


@pytest.mark.parametrize("values", [BEYOND, WITHIN], ids=["beyond the limits", "within them"])
async def test_costly_values_delay_no_other_source(servers: Servers, values: tuple[str, ...]) -> None:
    async with world(servers, SOURCES, "ingress", "worker", "console", CALLFOLD_CONSOLE_KEY=KEY) as running:
        await connected(running.roles["ingress"], running.roles["worker"])
        calls = itertools.count(1000)

        async def call_back() -> None:
            await running.call_back([f"token=hunter3-hunter3&{line}" for line in lines_of(next(calls))[:1]], "other")

        async def look_up() -> None:
            status, _, _ = await running.get("/calls?source=other&limit=1", headers=AUTHORIZED)
            assert status == 200

        before = await undisturbed(call_back), await undisturbed(look_up)
        statuses: set[int] = set()
        async with (
            measuring(call_back) as callbacks,
            measuring(look_up) as look_ups,
            within_bounds(*running.roles.values()),
        ):
            until = time.monotonic() + ATTACK_S
            await asyncio.gather(*(_attack(running, value, until, statuses) for value in values), _look(running, until))
        assert statuses == {400 if values is BEYOND else 200}
        assert_unharmed(callbacks, before[0], limit_s=_CALLBACK_S)
        assert_unharmed(look_ups, before[1], limit_s=_LOOK_UP_S)


async def _attack(running: World, value: str, until: float, statuses: set[int]) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    url = f"http://127.0.0.1:{running.ingress_port}/callbacks/acme?token=hunter2-hunter2"
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < until:
            async with session.post(url, data=f"{_CALL}&{value}", headers=headers) as response:
                statuses.add(response.status)
                assert len(await response.read()) < 1000
            await asyncio.sleep(0.05)


async def _look(running: World, until: float) -> None:
    """Look at what became of the values, as somebody at the console does."""
    while time.monotonic() < until:
        await running.get("/calls/acme/7", headers=AUTHORIZED)
        status, _, _ = await running.get("/dead-letters?limit=5", headers=AUTHORIZED)
        assert status == 200
