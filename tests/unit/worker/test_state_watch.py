"""The watch of Redis waits for the first connection to RabbitMQ without a warning, but not for a RabbitMQ that stays away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from structlog.testing import capture_logs

from shared.amqp.publisher import Publisher
from shared.errors import BrokerUnavailableError
from shared.outage import Outage
from shared.runtime.process import background
from shared.state.positions import Positions
from shared.state.store import Store
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import eventually
from worker.folding import state_watch
from worker.folding.state_journal import StateJournal
from worker.folding.state_watch import StateWatch


class _Journal(StateJournal):
    """A journal that can be read while RabbitMQ is connected."""

    def __init__(self, connected: asyncio.Event) -> None:
        self._connected = connected
        self._publisher = cast("Publisher", SimpleNamespace(wait_until_up=connected.wait))

    async def sync(self) -> None:
        if not self._connected.is_set():
            raise BrokerUnavailableError("RabbitMQ is not connected")


def _store() -> Store:
    async def verify() -> None:
        partitions.is_verified = True

    partitions = SimpleNamespace(is_verified=False, verification_due=asyncio.Event(), verify=verify)
    positions = cast("Positions", SimpleNamespace(not_ready=list))
    return cast("Store", SimpleNamespace(partitions=partitions, positions=positions))


@pytest.fixture(autouse=True)
def _new_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_watch, "_CHECKS", Outage(state_watch.log, "state_not_verified", "state_verified"))


async def test_a_start_that_waits_for_rabbitmq_for_a_moment_logs_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_watch, "_CONNECT_S", LIMIT_S)
    connected, store = asyncio.Event(), _store()

    async def is_verified() -> bool:
        return store.partitions.is_verified

    with capture_logs() as lines:
        async with background(StateWatch(store, _Journal(connected)).run()):
            for _ in range(10):
                await asyncio.sleep(0)
            connected.set()
            await eventually(is_verified)
    assert lines == []


async def test_a_rabbitmq_that_stays_away_at_the_start_is_a_warning_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_watch, "_CONNECT_S", 0.0)
    connected, store = asyncio.Event(), _store()

    async def logged() -> bool:
        return [line["event"] for line in lines] == expected

    with capture_logs() as lines:
        async with background(StateWatch(store, _Journal(connected)).run()):
            expected = ["state_not_verified"]
            await eventually(logged)
            connected.set()
            expected = ["state_not_verified", "state_verified"]
            await eventually(logged)
    assert lines[0]["detail"] == "RabbitMQ is not connected"
