"""The page shows a source that sends one RequestID for many calls, or has a wrong clock; without Redis it is as before."""

from __future__ import annotations

from contextlib import aclosing

import aiohttp
import pytest

from console.commands.doctor import CHECKS, run_check
from console.live import monitor
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.state.pbx_clocks import PbxClockNote
from shared.state.store import Store
from tests.helpers.console import AUTHORIZED, KEY, console_here
from tests.helpers.servers import Servers

_TO_CORRECT = "An adapter link must be corrected"


async def test_the_page_shows_which_call_has_too_many_legs(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_FRESH_S", 0)
    monkeypatch.setattr(monitor, "_OLDEST_S", 0)
    monkeypatch.setenv("CALLFOLD_REDIS_URL", servers.stack.redis_url)
    refused, other = (CallKey(SourceName("default"), CallRef(call)) for call in ("7", "8"))
    at = utc_now()
    async with aclosing(Store(servers.stack.redis_url)) as store:
        await store.merge({key: [[("dial", at)]] for key in (refused, other)})
        await store.refused_legs.record({refused: at})
        placeholders = {"CallUUID": (other.call, at), "DID": (refused.call, "2026-01-01T00:00:00.000000Z")}
        await store.unreplaced.record({other.source: placeholders})
    async with (
        console_here(servers, monkeypatch, CALLFOLD_CONSOLE_KEY=KEY) as url,
        aiohttp.ClientSession(url, headers=AUTHORIZED) as session,
    ):

        async def page(path: str) -> str:
            async with session.get(path) as response:
                assert response.status == 200
                return await response.text()

        assert "The clock of a PBX is wrong" not in await page("/")
        async with aclosing(Store(servers.stack.redis_url)) as store:
            await store.pbx_clocks.record({refused.source: PbxClockNote(240.0, at)})
        assert "source default is ahead of that of ingress. Synchronize it with NTP. They differ by 240.0 s." in await page("/")
        for path in ("/", "/ui/calls/default/7"):
            text = await page(path)
            assert _TO_CORRECT in text
            assert f"default/7 has too many legs. The last one was refused at {at}." in text
        assert _TO_CORRECT not in await page("/ui/calls/default/8")
        unreplaced = f"Source default: {{{{CallUUID}}}} (parameter Guid) arrived unreplaced, last in call default/8 at {at}."
        assert unreplaced in await page("/")
        finding = await run_check("placeholders", CHECKS["placeholders"], Settings())
        assert (finding.ok, finding.warning) == (True, True)
        assert unreplaced in finding.detail
        link = "https://hooks.example.com/callbacks/default?CallType=API&Event=missed&CallID=7&Guid={{CallUUID}}&RequestID=-1"
        async with session.post("/ui/adapter", data={"link": link}) as response:
            text = await response.text()
        assert unreplaced in text
        assert "DialApiRequestID=-1</code>: it is no RequestID, so the leg is a separate call" in text
        await servers.stack.redis.kill()
        try:
            text = await page("/")
            assert (_TO_CORRECT in text, "Redis cannot be reached: open calls are not shown." in text) == (False, True)
        finally:
            await servers.stack.redis.start()
