"""The page and `callfold doctor` name a source that uses a previous secret, a faulty sources file, and a PBX with a fault."""

from __future__ import annotations

from contextlib import aclosing

import aiohttp
import pytest

from console import pbx_watch
from console.commands.doctor import CHECKS, run_check
from console.live import monitor
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.domain.ids import SourceName
from shared.state.pbx_watch import PbxObservations
from shared.state.store import Store
from tests.helpers.console import AUTHORIZED, KEY, console_here
from tests.helpers.servers import Servers, eventually

_ROTATED = '[sources.default]\nsecret = "hunter3-of-now"\nprevious_secrets = ["hunter2-of-before"]\n'


async def test_the_page_and_doctor_name_a_source_that_uses_a_previous_secret_and_a_file_with_a_fault(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_FRESH_S", 0)
    monkeypatch.setattr(monitor, "_OLDEST_S", 0)
    monkeypatch.setattr(pbx_watch, "_FRESH_S", 0)
    monkeypatch.setenv("CALLFOLD_REDIS_URL", servers.stack.redis_url)
    path, name, at = servers.directory / "sources.toml", SourceName("default"), utc_now()
    path.write_text(_ROTATED)
    monkeypatch.setenv("CALLFOLD_SOURCES", str(path))
    async with (
        console_here(servers, monkeypatch, CALLFOLD_CONSOLE_KEY=KEY) as url,
        aiohttp.ClientSession(url, headers=AUTHORIZED) as session,
    ):

        async def page(path: str) -> str:
            async with session.get(path) as response:
                assert response.status == 200
                return await response.text()

        async def doctor(check: str = "previous secrets") -> tuple[bool, str]:
            finding = await run_check(check, CHECKS[check], Settings())
            return finding.warning, finding.detail

        link = "/ui/adapter?source=default&public_url=https%3A%2F%2Fhooks.example.com"
        unused = "Source default has not used a previous secret. Remove `previous_secrets` once no link in FocalScope has one."
        assert await doctor() == (False, unused)
        assert "previous secret" not in await page("/") + await page(link)
        assert await doctor("pbx") == (False, "default: no callback is known.")
        async with aclosing(Store(servers.stack.redis_url)) as store:
            await store.previous_secrets.record({name: "2026-01-01T00:00:00.000000Z"})
            assert (await doctor())[1].startswith(
                "Source default last used a previous secret at 2026-01-01T00:00:00.000000Z. Remove"
            )
            await store.previous_secrets.record({name: at})
            await store.previous_secrets.record({name: "2026-01-02T00:00:00.000000Z"})
            await store.pbx_watch.add(name, PbxObservations(dials={513: at, 514: at}, unheard=1), None)
        used = f"Source default still uses a previous secret, last at {at}. Give FocalScope the link"
        for shown in (await page("/"), await page(link)):
            assert used in shown
            assert "hunter2" not in shown
        unheard = "default: no callback followed 1 of 2 dial requests in the last 24 h."
        assert unheard in await page("/")
        is_warning, detail = await doctor("pbx")
        assert is_warning
        assert detail.startswith(unheard)
        is_warning, detail = await doctor()
        assert is_warning
        assert detail.startswith(used)
        path.write_text("[sources.default")

        async def is_named() -> bool:
            return "The sources file has a fault" in await page("/")

        await eventually(is_named)
        assert used in await page("/")
