"""More calls in Redis than any page shows: every page stays short, and going from page to page leads past each call exactly once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from console.page.text import number
from shared.domain.adapter_link import make_link, parse_link
from shared.domain.facts import facts_of
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent
from shared.domain.times import rfc3339
from shared.state.store import Store
from tests.helpers.browser import SOURCE, System, Visits
from tests.helpers.servers import empty
from tests.helpers.volume import sizes

FIRST = 700_000
PAGE = 200  # the most that a page shows
CSV_ROWS = 500
MOST_BYTES = 700_000


@pytest_asyncio.fixture(scope="module", params=sizes(650, 5_250))
async def many(system: System, request: pytest.FixtureRequest) -> set[str]:
    """Calls that ring, forty in the same second each; returns what they are called in lists."""
    calls: int = request.param
    adapter, began = (
        parse_link(make_link("https://hooks.example.com", SOURCE, None)),
        datetime.now(UTC) - timedelta(hours=1, seconds=FIRST // 40),
    )
    await empty(system.stack, is_running=True)  # of the calls of other tests
    store = Store(system.stack.redis_url)
    events = {}
    for call in range(FIRST, FIRST + calls):
        query = f"CallType=API&Event=pickup&CallID={call}&RequestID={call}&CallerID=%2B45{call:08}"
        key, facts = facts_of(CallbackEvent(SourceName(SOURCE), rfc3339(began + timedelta(seconds=call // 40)), query), adapter)
        events[key] = [facts]
    keys = list(events)
    for first in range(0, calls, PAGE):
        await store.merge({key: events[key] for key in keys[first : first + PAGE]})
    await store.aclose()
    return {str(key) for key in keys}


async def _names(page: Page) -> list[str]:
    return await page.locator("tbody th a").all_inner_texts()


async def test_pages_lead_past_every_call_once(many: set[str], visits: Visits) -> None:
    page = await visits.open("/ui/calls?limit=500")
    seen = await _names(page)
    while await page.get_by_role("link", name="Next page").count():
        assert len(await page.content()) < MOST_BYTES
        await page.get_by_role("link", name="Next page").click()
        await expect(page.locator("tbody th a").first).not_to_have_text(seen[-PAGE])
        await page.wait_for_load_state("domcontentloaded")  # a page's first rows are there before its last
        here = await _names(page)
        assert len(here) <= PAGE
        seen += here
    assert len(seen) == len(set(seen))
    assert many <= set(seen)  # the history knows of other tests' calls


async def test_a_page_is_short_where_nothing_else_is_asked(many: set[str], visits: Visits) -> None:
    page = await visits.open("/ui/calls")
    assert len(await _names(page)) == 50
    assert len(await page.content()) < MOST_BYTES / 5
    await page.goto("/")
    await expect(page.locator("#open")).to_contain_text(number(len(many)))
    assert await page.locator("li.row").count() == 50
    assert len(await page.content()) < MOST_BYTES / 5


async def test_the_oldest_of_them_is_found_by_its_number(many: set[str], visits: Visits) -> None:
    page = await visits.open()
    await page.get_by_role("searchbox", name="Number or RequestID").fill(f"+45{FIRST:08}")
    await page.keyboard.press("Enter")
    await expect(page.locator("tbody th a")).to_have_text([f"{SOURCE}/{FIRST}"])


async def test_what_a_file_leaves_out_is_said(many: set[str], visits: Visits) -> None:
    page = await visits.open("/ui/calls")
    link = page.get_by_role("link", name="As CSV")
    await expect(link).to_have_text("As CSV (the newest 500)")
    answer = await page.request.get(await link.get_attribute("href") or "")
    assert (answer.status, len((await answer.text()).splitlines())) == (200, 1 + CSV_ROWS)
    await page.goto(f"/ui/calls?number=*{FIRST + 1}")
    await expect(page.get_by_role("link", name="As CSV")).to_have_text("As CSV")
