"""Private servers, each started when a test first asks for it; and what a test needs, as its markers.

`servers` is RabbitMQ and Redis, `redis_only` and `rabbitmq_only` one of them; each is emptied before the test.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from console.local.stack import LocalStack
from tests.helpers import checked_events, quick_rabbitmq, shared_machine, warm
from tests.helpers.pace import PACE
from tests.helpers.postgres import PostgreSQL, postgresql
from tests.helpers.rabbitmq_cluster import RabbitMQCluster
from tests.helpers.recordings import Pbx, serving
from tests.helpers.s3 import Busy, busy_s3, environment, s3_server
from tests.helpers.servers import Servers, Stack, complaints, declare_streams, empty, empty_streams, make_killable
from tests.helpers.volume import LONGER

# What is made while tests are collected stays to the end: to look through it for garbage again and again takes a third of that time.
gc.disable()

# What the machine's user has set must not reach the processes under test.
for variable in [name for name in os.environ if name.startswith("CALLFOLD_")]:
    del os.environ[variable]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A slow machine is no failure. The same inputs are tried in every run, new ones in those of volume.
_HYPOTHESIS = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("tests", _HYPOTHESIS, derandomize=True)
hypothesis.settings.register_profile("volume", _HYPOTHESIS)

shared_machine.keep_to(imports_all=True)
quick_rabbitmq.keep_to()
os.environ.pop(checked_events.FILE, None)  # each process of the tests has its own
checked_events.install()


# A fixture that a test needs, itself or through others, gives it a marker.
MARKERS = {
    "browser": "browser",
    "rabbitmq_server": "rabbitmq",
    "rabbitmq_cluster": "rabbitmq",
    "postgres": "postgres",
    "s3_port": "s3",
    "redis_server": "redis",
    "redis_pair": "redis",
}
# The heaviest first, so that no test process is left alone with one at the end.
ORDER = ("browser", "processes", "rabbitmq", "postgres", "s3", "redis")
PROCESSES = ("tests/system/", "tests/browser/")
# Tests that need tools which `make test` does not install, and their markers.
TOOLS = {"tests/deploy/": "deploy", "tests/clients/": "clients"}
# A test with one of these runs only where `-m` names it.
ON_REQUEST = ("volume", "deploy", "clients")
# Whole clusters: a load balancer, deaths and outages under load, everything that `up` starts. Of each folder one test at a time.
CLUSTERS = ("tests/system/chaos/", "tests/system/clusters/", "tests/system/attacks/")
# Begun early, they cost least: the history reads all that other tests have published, and those of the worker wait for leases.
EARLY = ("tests/integration/history/", "tests/system/worker/")


_PROCESS_BYTES = 1 << 30  # a test process with RabbitMQ, Redis, and what a test starts


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("volume" if _is_volume(config) else "tests")


def _is_volume(config: pytest.Config) -> bool:
    return _names(config, "volume")


def _names(config: pytest.Config, marker: str) -> bool:
    return marker in config.option.markexpr.replace(f"not {marker}", "")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Follow the cores for `-n auto`, three for each and one more: tests wait for most of their time. Each needs memory for its servers."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(usable_cores() + 1, min(3 * usable_cores() + 1, memory_bytes // _PROCESS_BYTES))


@pytest.hookimpl(tryfirst=True)  # pytest selects by markers later
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    limit_s = PACE * float(config.getoption("timeout") or config.getini("timeout"))
    for item in items:
        for marker in needs(item):
            item.add_marker(marker)
        item.add_marker(pytest.mark.timeout(limit_s * (LONGER if item.get_closest_marker("volume") else 1)))
    for marker in ON_REQUEST:
        if not _names(config, marker):
            config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker(marker)])
            items[:] = [item for item in items if not item.get_closest_marker(marker)]
    items.sort(key=_weight)


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.enable()
    gc.freeze()


def _weight(item: pytest.Item) -> tuple[bool, bool, str, int]:
    is_cluster, early = item.nodeid.startswith(CLUSTERS), next((place for place in EARLY if item.nodeid.startswith(place)), "")
    need = next((place for place, name in enumerate(ORDER) if item.get_closest_marker(name)), len(ORDER))
    return not is_cluster, not early, early, need


def needs(item: pytest.Item) -> set[str]:
    """Read what a test needs from its fixtures, and from its folder whether it starts processes of Callfold."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    found = {marker for fixture, marker in MARKERS.items() if fixture in fixtures}
    found |= {marker for folder, marker in TOOLS.items() if item.nodeid.startswith(folder)}
    return found | ({"processes"} if item.nodeid.startswith(PROCESSES) else set())


class _Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Give the tests of a file to one process of pytest, and a folder of those that start whole clusters: it runs them in turn.

    The groups that pytest-xdist has of its own are lost with pytest 9.2, which keeps ids of tests elsewhere.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((folder for folder in CLUSTERS if path.startswith(folder)), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    gc.enable()  # the process that deals out the tests collects none
    return _Groups(config, log)


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


@pytest.fixture(autouse=True)
def valid_events(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test while which an event was published or read that does not match its schema."""
    yield
    invalid = checked_events.take()
    if not request.node.get_closest_marker("foreign_events"):
        assert invalid == []


@pytest_asyncio.fixture(scope="session")
async def redis_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    async with LocalStack(tmp_path_factory.mktemp("redis"), only=frozenset({"redis"})) as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    async with LocalStack(tmp_path_factory.mktemp("rabbitmq"), only=frozenset({"rabbitmq"})) as running:
        await declare_streams(running)
        yield running


@pytest.fixture(scope="session")
def stack(redis_server: LocalStack, rabbitmq_server: LocalStack) -> Stack:
    return Stack(with_redis=redis_server, with_rabbitmq=rabbitmq_server)


@pytest_asyncio.fixture(scope="module")
async def fresh_stack(stack: Stack) -> Stack:
    """The servers without what earlier modules published, for a module that reads journals from their beginning."""
    await empty(stack)
    await empty_streams(stack)
    return stack


@pytest_asyncio.fixture
async def servers(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Servers:
    await _empty(stack, request)
    return Servers(stack, tmp_path)


async def _empty(stack: Stack, request: pytest.FixtureRequest) -> None:
    if "rabbitmq.kill()" in request.path.read_text("utf-8"):
        await make_killable(stack)
    await empty(stack)


@pytest_asyncio.fixture
async def redis_only(redis_server: LocalStack, tmp_path: Path) -> Servers:
    stack = Stack(with_redis=redis_server)
    await empty(stack)
    return Servers(stack, tmp_path)


@pytest_asyncio.fixture
async def rabbitmq_only(rabbitmq_server: LocalStack, tmp_path: Path, request: pytest.FixtureRequest) -> Servers:
    stack = Stack(with_rabbitmq=rabbitmq_server)
    await _empty(stack, request)
    return Servers(stack, tmp_path)


@pytest_asyncio.fixture
async def rabbitmq_cluster(tmp_path: Path) -> AsyncIterator[RabbitMQCluster]:
    """Three nodes for one test: what a test does to a cluster stays with it."""
    async with RabbitMQCluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="session")
async def postgres() -> AsyncIterator[PostgreSQL]:
    async with postgresql() as server:
        yield server


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


@pytest_asyncio.fixture
async def pbx() -> AsyncIterator[Pbx]:
    async with serving() as served:
        yield served


@pytest_asyncio.fixture(scope="session", autouse=True)
async def _warm_start() -> AsyncIterator[None]:
    yield
    warm.close()


@pytest.fixture(autouse=True)
def _scrubbed() -> Iterator[None]:
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
