"""A PBX, and an object store, for every test of recordings that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.recordings.s3 import Busy, busy_s3, environment, s3_server
from tests.recordings.support import Pbx, serving


@pytest_asyncio.fixture
async def pbx() -> AsyncIterator[Pbx]:
    async with serving() as served:
        yield served


@pytest_asyncio.fixture(scope="module")
async def s3_port() -> AsyncIterator[int]:
    async with s3_server() as port:
        yield port


@pytest_asyncio.fixture
async def s3(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Busy]:
    async with busy_s3(s3_port) as busy:
        for name, value in environment(busy.url).items():
            monkeypatch.setenv(name, value)
        yield busy
