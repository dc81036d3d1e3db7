"""A world that loses state, and one that does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from tests.helpers.lost_state import MAX_CALL_S, Journals, World
from tests.helpers.servers import Servers
from tests.helpers.settings import settings_here


@pytest.fixture
async def worlds(redis_only: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[tuple[World, World]]:
    """Return a world that loses state, and one that does not."""
    variables = {"CALLFOLD_MAX_CALL_SECONDS": str(MAX_CALL_S), "CALLFOLD_RECORDING_DIR": str(tmp_path)}
    settings = settings_here(monkeypatch, redis_only.environment(**variables))
    async with AsyncExitStack() as stack:
        made = [await _world(redis_only, settings, stack, number) for number in (1, 2)]
        made[0].journals.install(monkeypatch)
        yield made[0], made[1]


async def _world(servers: Servers, settings: Settings, stack: AsyncExitStack, database: int) -> World:
    url = servers.stack.redis_url.rpartition("/")[0] + f"/{database}"
    redis = await stack.enter_async_context(Redis.from_url(url))
    world = World(redis, url, Journals(), settings, is_guarded=database == 1)
    stack.push_async_callback(world.store.aclose)
    return world
