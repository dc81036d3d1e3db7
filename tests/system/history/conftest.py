"""An empty history in each database."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio

from tests.helpers.postgres import PostgreSQL


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, postgres: PostgreSQL, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.sqlite'}" if request.param == "sqlite" else await postgres.new_database()
