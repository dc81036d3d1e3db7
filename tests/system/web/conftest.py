"""Servers that the tests of one module share: emptied once, before its fleet starts."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.helpers.servers import Servers, Stack


@pytest_asyncio.fixture(scope="module")
async def shared_servers(fresh_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Servers:
    return Servers(fresh_stack, tmp_path_factory.mktemp("shared"))
