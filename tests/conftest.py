"""Real RabbitMQ and Redis for the whole run, emptied before each test that asks for `servers`."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import cast

import hypothesis
import pytest
import pytest_asyncio

from console import fleet
from console import stack as stack_module
from console.stack import LocalStack
from tests.pace import LIMIT_S, PACE
from tests.support import Servers, complaints, empty, prepare

# What the machine's user has set must not reach the processes under test.
for variable in [name for name in os.environ if name.startswith("CALLFOLD_")]:
    del os.environ[variable]


# A slow machine is no failure.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")

# How long a process may take to start and to stop.
fleet._READY_TIMEOUT_S = fleet._STOP_TIMEOUT_S = round(LIMIT_S)
stack_module._START_TIMEOUT_S = stack_module._STOP_TIMEOUT_S = round(LIMIT_S)


class _TakenPorts(set[int]):
    """Ports that this or another process of tests on this machine has given out: one byte of a file is locked for each."""

    def __init__(self) -> None:
        super().__init__()
        self._locks = os.open(Path(tempfile.gettempdir(), f"callfold-tests-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT, 0o600)

    def __contains__(self, port: object) -> bool:
        if super().__contains__(port):
            return True
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, cast("int", port))
        except OSError:
            return True
        return False


fleet._given_out = _TakenPorts()


# The longest first, so that no process is left alone with one at the end.
_LONGEST = (
    "worker/test_crash_pairs.py",
    "worker/test_timers.py",
    "console/test_rebuild_race.py",
    "history/test_process.py",
    "worker/test_watermark.py",
    "recordings/test_copies.py",
    "worker/test_crash_and_outage.py",
    "console/test_repair.py",
    "deploy/test_haproxy.py",
    "recordings/test_s3.py",
    "fold/test_reference.py",
    "browser/test_page.py",
    "web/test_outages.py",
    "web/test_openapi.py",
    "console/test_rebuild_and_show.py",
    "console/test_dead_letters.py",
    "web/test_events.py",
    "console/test_recordings.py",
    "recordings/test_recordings.py",
    "recordings/test_faults.py",
    "ingress/test_outage.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else float(item.config.getoption("timeout") or item.config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(seconds * PACE), append=False)


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


@pytest.fixture(autouse=True)
def _scrubbed() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
