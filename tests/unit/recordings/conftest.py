"""What tests of downloads share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.helpers.scripted_http import Scripted, scripted


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted() as script:
        yield script
