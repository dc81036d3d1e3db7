"""Places for those who watch: no key takes all of them."""

from __future__ import annotations

from contextlib import AsyncExitStack

import aiohttp
import pytest

from console.live import feed, monitor
from console.web import event_streams
from tests.helpers.console import AS_VIEWER, AUTHORIZED, KEY, VIEWER_KEY, console_here
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually


async def test_one_key_has_its_share_of_the_places_and_leaves_the_others_theirs(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "_MAX_STREAMS_PER_KEY", 2)
    monkeypatch.setattr(event_streams, "_MAX_STREAMS", 3)
    # Nothing is written in which it would show that a reader has gone.
    monkeypatch.setattr(feed, "_HEARTBEAT_S", 10 * LIMIT_S)
    monkeypatch.setattr(monitor, "_TICK_S", 10 * LIMIT_S)
    keys = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_CONSOLE_VIEWER_KEYS": VIEWER_KEY}
    async with console_here(servers, monkeypatch, **keys) as url, aiohttp.ClientSession(url) as session:

        async def status(headers: dict[str, str]) -> int:
            async with session.get("/live", headers=headers) as response:
                return response.status

        async def is_free() -> bool:
            return await status(AUTHORIZED) == 200

        async with AsyncExitStack() as watching:
            for headers, path in ((AUTHORIZED, "/live"), (AUTHORIZED, "/events?after=0"), (AS_VIEWER, "/live")):
                response = await watching.enter_async_context(session.get(path, headers=headers))
                assert response.status == 200
            assert (await status(AUTHORIZED), await status(AS_VIEWER)) == (429, 503)
        await eventually(is_free)
