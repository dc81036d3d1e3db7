"""Calls as a file: all that match, or an answer that says why not."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import pytest_asyncio

from console.lookup import lookup, merge
from console.page import render
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.times import rfc3339
from shared.state.store import Store
from tests.helpers.console import AUTHORIZED, KEY, console_here
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers

# Every third call is one of those that are asked for.
_RARE = [str(number) for number in range(27, -1, -3)]


@pytest_asyncio.fixture
async def session(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[aiohttp.ClientSession]:
    """A console that looks at four calls at a time, with thirty calls."""
    monkeypatch.setattr(merge, "_MAX_SCANNED", 4)
    monkeypatch.setattr(lookup, "_SEARCH_FOR_S", LIMIT_S)  # eight searches one after the other
    began = datetime.now(UTC) - timedelta(hours=1)
    async with aclosing(Store(servers.stack.redis_url)) as store:
        for number in range(30):
            reference = "rare" if str(number) in _RARE else "common"
            key = CallKey(SourceName("default"), CallRef(str(number)))
            await store.merge({key: [[("dial", rfc3339(began + timedelta(seconds=number))), ("dial.reference", reference)]]})
    async with (
        console_here(servers, monkeypatch, CALLFOLD_CONSOLE_KEY=KEY) as url,
        aiohttp.ClientSession(url, headers=AUTHORIZED) as session,
    ):
        yield session


def _calls(text: str) -> list[str]:
    return [row["call"] for row in csv.DictReader(io.StringIO(text, newline=""))]


async def test_the_file_of_the_page_has_all_that_match_however_few_do(session: aiohttp.ClientSession) -> None:
    async with session.get("/ui/calls.csv?reference=rare") as response:
        assert (response.status, _calls(await response.text())) == (200, _RARE)


async def test_the_file_of_the_page_has_the_newest_of_many(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "CSV_ROWS", 5)
    async with session.get("/ui/calls.csv?reference=rare") as response:
        assert (response.status, _calls(await response.text())) == (200, _RARE[:5])


async def test_what_cannot_all_be_looked_through_is_no_file(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_MAX_CONTINUATIONS", 2)
    async with session.get("/ui/calls.csv?reference=rare") as response:
        assert (response.status, "Too many calls to search" in await response.text()) == (503, True)
    async with session.get("/ui/calls?reference=rare") as response:
        assert (response.status, "Next page" in await response.text()) == (200, True)


async def test_the_api_leads_from_each_part_of_the_file_to_the_next(session: aiohttp.ClientSession) -> None:
    path, found, parts = "/calls?reference=rare", [], 0
    while path:
        async with session.get(path, headers={"Accept": "text/csv"}) as response:
            assert response.status == 200
            found += _calls(await response.text())
            path, parts = str(response.links["next"]["url"]) if response.links else "", parts + 1
    assert (found, parts) == (_RARE, 8)
