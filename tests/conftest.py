"""Real RabbitMQ and Redis for the whole run, emptied before each test that asks for `servers`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from console import fleet
from console.stack import LocalStack
from tests.helpers.recordings import Pbx, serving
from tests.helpers.s3 import Busy, busy_s3, environment, s3_server
from tests.helpers.servers import Servers, complaints, empty, prepare

# What the machine's user has set must not reach the processes under test.
for variable in [name for name in os.environ if name.startswith("CALLFOLD_")]:
    del os.environ[variable]


# Test processes that run side by side do not take each other's ports.
_first, _last = fleet.PORTS
_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_share = (_last - _first) // max(1, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
fleet.PORTS = (_first + _number * _share, _first + (_number + 1) * _share)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes under test complained of, where a test fails: their logs are gone with the machine of a CI."""
    report = yield
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            found = getattr(value, "servers", value)
            if isinstance(found, Servers):
                report.sections += complaints(found.directory / "logs")
    return report


@pytest_asyncio.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    async with LocalStack(tmp_path_factory.mktemp("stack")) as running:
        await prepare(running)
        yield running


@pytest_asyncio.fixture
async def servers(stack: LocalStack, tmp_path: Path) -> AsyncIterator[Servers]:
    await empty(stack)
    yield Servers(stack, tmp_path)


@pytest_asyncio.fixture
async def pbx() -> AsyncIterator[Pbx]:
    async with serving() as served:
        yield served


@pytest_asyncio.fixture(scope="session")
async def s3_port() -> AsyncIterator[int]:
    async with s3_server() as port:
        yield port


@pytest_asyncio.fixture
async def s3(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Busy]:
    async with busy_s3(s3_port) as busy:
        for name, value in environment(busy.url).items():
            monkeypatch.setenv(name, value)
        yield busy


@pytest.fixture(autouse=True)
def _scrubbed() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
