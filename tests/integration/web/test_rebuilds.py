"""The page and `callfold doctor` say that calls wait for a rebuild, and how far it is."""

from __future__ import annotations

from contextlib import aclosing

import aiohttp
import pytest
from redis.asyncio import Redis

from console.commands.doctor import CHECKS, run_check
from console.commands.list_calls import Form, list_calls
from console.live import monitor
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.state.rebuild_note import REBUILD_NOTE, RebuildNote, RebuildStep
from shared.state.store import Store
from tests.helpers.console import AUTHORIZED, KEY, console_here
from tests.helpers.servers import Servers

_INCOMPLETE = "Redis has lost state. Until a worker has rebuilt it, calls can be missing or incomplete."
_LOST = "Redis lost the state of 16 of 16 partitions. Their calls wait until it is rebuilt"


async def test_the_page_and_doctor_show_a_rebuild_and_its_progress(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_FRESH_S", 0)
    monkeypatch.setattr(monitor, "_OLDEST_S", 0)
    monkeypatch.setenv("CALLFOLD_REDIS_URL", servers.stack.redis_url)

    async def doctor() -> tuple[bool, str]:
        finding = await run_check("lost state", CHECKS["lost state"], Settings())
        return finding.warning, finding.detail

    async with (
        console_here(servers, monkeypatch, CALLFOLD_CONSOLE_KEY=KEY) as url,
        aiohttp.ClientSession(url, headers=AUTHORIZED) as session,
        aclosing(Store(servers.stack.redis_url)) as store,
        Redis.from_url(servers.stack.redis_url) as redis,
    ):

        async def page() -> str:
            async with session.get("/") as response:
                assert response.status == 200
                return await response.text()

        await store.partitions.verify()
        assert await doctor() == (False, "no partition of Redis waits for a rebuild")
        assert "Redis lost the state" not in await page()
        await redis.flushall()
        await store.fence()
        assert await doctor() == (True, f"{_LOST}.")
        note = RebuildNote(RebuildStep.READING, 16, 12345, 0, 7)
        await store.flags.put(REBUILD_NOTE, note.encode(), expires_in_s=3600)
        progress = f"{_LOST}: the journals are read (12,345 messages read, 0 events replayed, 7 s so far)."
        assert await doctor() == (True, progress)
        assert progress in await page()


async def test_a_list_of_calls_during_a_rebuild_says_that_calls_are_missing(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLFOLD_REDIS_URL", servers.stack.redis_url)
    async with (
        console_here(servers, monkeypatch, CALLFOLD_CONSOLE_KEY=KEY) as url,
        aiohttp.ClientSession(url, headers=AUTHORIZED) as session,
        aclosing(Store(servers.stack.redis_url)) as store,
        Redis.from_url(servers.stack.redis_url) as redis,
    ):

        async def problem() -> object:
            async with session.get("/calls") as response:
                assert response.status == 200
                return (await response.json())["problem"]

        async def text(path: str, status: int, **headers: str) -> str:
            async with session.get(path, headers=headers) as response:
                assert response.status == status
                return await response.text()

        await store.partitions.verify()
        assert await problem() is None
        assert _INCOMPLETE not in await text("/ui/calls", 200)
        assert await list_calls(Settings(), {}, 10, Form.TEXT) == 0
        await redis.flushall()
        await store.fence()
        assert await problem() == _INCOMPLETE
        assert _INCOMPLETE in await text("/ui/calls", 200)
        assert _INCOMPLETE in await text("/calls", 503, Accept="text/csv")
        with pytest.raises(CallfoldError) as incomplete:
            await list_calls(Settings(), {}, 10, Form.TEXT)
        assert str(incomplete.value) == _INCOMPLETE
