"""Faults in a running installation: each raises its alert within two minutes, no other alert fires, and it clears after the repair.

Prometheus scrapes and evaluates as often as in deploy/prometheus/prometheus.yml. `-s` prints the times.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
import yaml

from tests.helpers.prometheus import DEPLOY
from tests.helpers.servers import Servers, Stack
from tests.helpers.watched_stack import Watched, shipped_policies, watched

pytestmark = pytest.mark.volume

RAISED_WITHIN_S = 120
CLEARED_WITHIN_S = 480
EVERY_S = int(yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))["global"]["scrape_interval"].removesuffix("s"))

Step = Callable[[Watched], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is broken, how it is repaired, and the only alert that fires.

    Attributes:
        lasts_s: how long it lasts at least, so that alerts which wait for longer have the time to fire.
    """

    what: str
    alert: str
    begin: Step
    repair: Step
    lasts_s: int = RAISED_WITHIN_S


def _killed(*names: str) -> Step:
    async def kill(stack: Watched) -> None:
        for name in names:
            await stack.process(name).stop(signal.SIGKILL)

    return kill


def _started(*names: str) -> Step:
    async def start(stack: Watched) -> None:
        await asyncio.gather(*(stack.process(name).start() for name in names))

    return start


async def _write_wrong_sources(stack: Watched) -> None:
    text = stack.sources_file.read_text("utf-8")
    stack.sources_file.write_text(text.replace("recording_url", "recording_urls"), "utf-8")


async def _write_right_sources(stack: Watched) -> None:
    text = stack.sources_file.read_text("utf-8")
    stack.sources_file.write_text(text.replace("recording_urls", "recording_url"), "utf-8")


async def _fill_the_archive(stack: Watched) -> None:
    stack.full_archive.touch()


async def _empty_the_archive(stack: Watched) -> None:
    stack.full_archive.unlink()


async def _send_invalid_callbacks(stack: Watched) -> None:
    assert [await stack.send(f"CallType=API&Event=pickup&CallID=none&RequestID={number}") for number in range(3)] == [400] * 3


async def _drop_dead_letters(stack: Watched) -> None:
    assert len(await stack.servers.take_all("callbacks.dead")) == 3


async def _send_wrong_secrets(stack: Watched) -> None:
    query = "CallType=API&Event=pickup&CallID=9&RequestID=9&EventCode=2"
    assert [await stack.send(query, token="wrong-word") for _ in range(50)] == [401] * 50


async def _nothing(_: Watched) -> None:
    """The sender has stopped."""


async def _refuse_recordings(stack: Watched) -> None:
    stack.pbx.status = 403


async def _serve_recordings(stack: Watched) -> None:
    stack.pbx.status = 200


async def _delete_policies(stack: Watched) -> None:
    stack.policies.clear()


async def _import_policies(stack: Watched) -> None:
    stack.policies.extend(shipped_policies())


FAULTS = (
    Fault(
        "RabbitMQ is stopped",
        "CallfoldBrokerAway",
        lambda stack: stack.servers.stack.rabbitmq.stop(),
        lambda stack: stack.servers.stack.rabbitmq.start(),
        lasts_s=240,
    ),
    Fault(
        "Redis is stopped",
        "CallfoldRedisAway",
        lambda stack: stack.servers.stack.redis.stop(),
        lambda stack: stack.servers.stack.redis.start(),
        lasts_s=240,
    ),
    Fault(
        "all workers are killed",
        "CallfoldWorkerDown",
        _killed("worker-1", "worker-2"),
        _started("worker-1", "worker-2"),
        lasts_s=240,
    ),
    Fault("ingress is killed", "CallfoldIngressDown", _killed("ingress"), _started("ingress"), lasts_s=240),
    Fault("the console is killed", "CallfoldConsoleDown", _killed("console"), _started("console")),
    Fault("the history is killed", "CallfoldHistoryDown", _killed("history"), _started("history")),
    Fault("the archive is full", "CallfoldArchiveAway", _fill_the_archive, _empty_the_archive),
    Fault("the PBX refuses recordings", "CallfoldRecordingsFailing", _refuse_recordings, _serve_recordings),
    Fault("the sources file has a fault", "CallfoldSourcesFileInvalid", _write_wrong_sources, _write_right_sources),
    Fault("callbacks are invalid", "CallfoldDeadLetters", _send_invalid_callbacks, _drop_dead_letters),
    Fault("callbacks have a wrong secret", "CallfoldCallbacksRefused", _send_wrong_secrets, _nothing),
    Fault("the policies of RabbitMQ are deleted", "CallfoldPolicyMissing", _delete_policies, _import_policies),
)


@pytest_asyncio.fixture(scope="module")
async def stack(fresh_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    async with watched(Servers(fresh_stack, tmp_path_factory.mktemp("watched")), every_s=EVERY_S) as running:
        yield running


async def _names(stack: Watched) -> set[str]:
    return {alert.name for alert in await stack.prometheus.firing()}


async def _raised_alone(stack: Watched, fault: Fault) -> float:
    """Wait until the alert fires and the fault has lasted; returns the seconds until it fired."""
    began, fired_after = time.monotonic(), None
    while (since := time.monotonic() - began) < max(fault.lasts_s, RAISED_WITHIN_S) or fired_after is None:
        names = await _names(stack)
        assert names <= {fault.alert}, f"after {since:.0f} s"
        if fired_after is None and fault.alert in names:
            fired_after = since
        assert fired_after is not None or since < RAISED_WITHIN_S, "it does not fire"
        await asyncio.sleep(1)
    return fired_after


async def _cleared(stack: Watched, fault: Fault) -> float:
    """Wait until no alert fires any more; returns the seconds until then."""
    began = time.monotonic()
    while names := await _names(stack):
        assert names <= {fault.alert}, f"{time.monotonic() - began:.0f} s after the repair"
        assert time.monotonic() - began < CLEARED_WITHIN_S
        await asyncio.sleep(1)
    return time.monotonic() - began


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
async def test_a_fault_raises_its_alert_alone_until_it_is_repaired(stack: Watched, fault: Fault) -> None:
    await _quiet(stack)
    await fault.begin(stack)
    try:
        raised_s = await _raised_alone(stack, fault)
    finally:
        await fault.repair(stack)
    cleared_s = await _cleared(stack, fault)
    print(f"{fault.what}: {fault.alert} after {raised_s:.0f} s, cleared {cleared_s:.0f} s after the repair")  # noqa: T201


async def _quiet(stack: Watched) -> None:
    """Wait until every target was scraped, calls are published, and nothing fires or is about to."""
    began = time.monotonic()
    expression = "count(callfold_build_info) == 5 and on () (sum(rate(callfold_calls_completed_total[1m])) > 0)"
    while not await stack.prometheus.query(expression) or (await stack.prometheus.get("alerts"))["alerts"]:
        pending = (await stack.prometheus.get("alerts"))["alerts"]
        assert time.monotonic() - began < CLEARED_WITHIN_S, pending
        await asyncio.sleep(1)
