"""One system and one Chromium for all tests of the page; a visit of its own for each."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from console.local.ports import free_port
from shared.domain.adapter_link import make_link
from simulator.focalscope import FocalScope, Plan
from simulator.scenario import SECTOK
from tests.helpers.browser import OPERATOR, SECRET, SOURCE, VIEWER, System, Visits, write_sources
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.servers import Servers, Stack, WarmFleet

expect.set_options(timeout=LIMIT_S * 1000)  # as long as `eventually` waits
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# The first two calls of this seed are answered. At this speed they are over within 5 s on a quick machine. A test that watches the
# states of a call holds its callbacks.
SEED, SPEED = 9035, 6 / PACE


@pytest_asyncio.fixture(scope="module")
async def system(fresh_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    directory = tmp_path_factory.mktemp("system")
    ingress, console = free_port(), free_port()
    link = make_link(f"http://127.0.0.1:{ingress}", SOURCE, SECRET)
    plan = Plan(adapter=link, seed=SEED, speed=SPEED, recorded_share=1.0, recording_delay_s=0.0, first_request_id=5130)
    shared = Servers(fresh_stack, directory).environment(
        CALLFOLD_SOURCES=str(directory / "sources.toml"),
        CALLFOLD_CONSOLE_KEY=OPERATOR,
        CALLFOLD_CONSOLE_VIEWER_KEYS=VIEWER,
        CALLFOLD_CONSOLE_PORT=str(console),
        CALLFOLD_INGRESS_PORT=str(ingress),
        CALLFOLD_DIALS_PER_MINUTE="600",
        CALLFOLD_HISTORY_URL=f"sqlite:///{directory / 'history.sqlite'}",
    )
    async with FocalScope(plan) as pbx, WarmFleet(directory / "logs", shared) as fleet:
        write_sources(directory / "sources.toml", pbx.url, SECTOK)
        for module in ("ingress", "worker", "console.history", "console"):
            fleet.add(module, module, {})
        await fleet.start_all()
        yield System(fresh_stack, pbx, f"http://127.0.0.1:{console}", ingress)


@pytest_asyncio.fixture(scope="module")
async def answered(system: System) -> int:
    """Dial a call that will be answered and recorded; others can be looked at while it goes on."""
    return await system.dial("1001", "+4530517261", "crm-42")


@pytest_asyncio.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "chromium is needed: apt-get install chromium"
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS], timeout=LIMIT_S * 1000)
        yield running
        await running.close()


@pytest_asyncio.fixture
async def visits(system: System, browser: Browser) -> AsyncIterator[Visits]:
    async with AsyncExitStack() as closing:
        visited = Visits(browser, system.console, closing)
        yield visited
        await asyncio.gather(*(page.close() for context in browser.contexts for page in context.pages))
        visited.check()
