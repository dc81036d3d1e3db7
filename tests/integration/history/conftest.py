"""Histories in both databases, empty for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from console.history.store import History
from tests.helpers.postgres import PostgreSQL


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, postgres: PostgreSQL, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.sqlite'}" if request.param == "sqlite" else await postgres.new_database()


@pytest_asyncio.fixture
async def history(url: str) -> AsyncIterator[History]:
    async with aclosing(History(url, is_writer=True)) as opened:
        await opened.prepare()
        yield opened


@pytest_asyncio.fixture
async def both(postgres: PostgreSQL, tmp_path: Path) -> AsyncIterator[tuple[History, History]]:
    lite = History(f"sqlite:///{tmp_path / 'both.sqlite'}", is_writer=True)
    great = History(await postgres.new_database(), is_writer=True)
    async with aclosing(lite), aclosing(great):
        for opened in (lite, great):
            await opened.prepare()
        yield lite, great
