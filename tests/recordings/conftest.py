"""A PBX for every test of recordings that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.recordings.support import Pbx, serving


@pytest_asyncio.fixture
async def pbx() -> AsyncIterator[Pbx]:
    async with serving() as served:
        yield served
