"""The look for partitions to rebuild while Redis cannot be reached."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

from prometheus_client import REGISTRY

from shared.config.live_sources import LiveSources
from shared.config.settings import load_settings
from shared.errors import StoreUnavailableError
from shared.runtime.process import background
from shared.state.store import Store
from tests.helpers.servers import eventually
from worker.rebuilding.rebuilder import Rebuilder


async def test_a_redis_that_is_away_while_nothing_is_to_be_rebuilt_is_no_failed_rebuild() -> None:
    looks: list[str] = []

    async def rebuilding() -> dict[int, int]:
        looks.append("look")
        if len(looks) == 1:
            raise StoreUnavailableError("Redis is away")
        return {}

    async def has_looked_again() -> bool:
        return len(looks) > 1

    due = asyncio.Event()
    due.set()
    store = cast("Store", SimpleNamespace(rebuilding=rebuilding, positions=SimpleNamespace(rebuild_due=due)))
    failed = _failed()
    async with background(Rebuilder(store, load_settings(), LiveSources.load(None)).run()):
        await eventually(has_looked_again)
    assert _failed() == failed


def _failed() -> float:
    return REGISTRY.get_sample_value("callfold_rebuilds_total", {"result": "failed"}) or 0.0
