"""Everything the page is for, with the keyboard alone; whatever has the focus is seen to have it."""

from __future__ import annotations

import asyncio
import re
from typing import Literal

import pytest
from playwright.async_api import Page, expect

from tests.helpers.browser import OPERATOR, PLAYS, SECRET, SOURCE, System, Visits, tab_to, until
from tests.helpers.volume import sizes


async def _to_page(page: Page, name: str) -> None:
    await tab_to(page, page.get_by_role("navigation", name="Pages").get_by_role("link", name=name))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text(name)


async def _skip_to_content(page: Page) -> None:
    await tab_to(page, page.get_by_role("link", name="Skip to the content"))
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()


@pytest.mark.parametrize("theme", sizes("light", "dark"))  # they differ in colors alone: tests/unit/page/test_themes.py
async def test_a_day_at_the_console_without_a_mouse(
    system: System, visits: Visits, answered: int, theme: Literal["light", "dark"]
) -> None:
    await system.stored(answered)
    await system.call_back_badly(CallType="API", Event="pickup", CallID=f"bad-{theme}", RequestID="20001")
    page = await visits.open("/", key=None, color_scheme=theme)
    await _log_in(page)
    await _find_and_hear(page, answered)
    await _redrive(page, f"bad-{theme}")
    await _make_and_explain_a_link(page)
    await tab_to(page, page.get_by_role("button", name="Log out"))
    await page.keyboard.press("Space")
    await page.wait_for_url("**/login")
    assert await page.context.cookies() == []


async def _log_in(page: Page) -> None:
    await expect(page.get_by_label("Console key or viewer key")).to_be_focused()
    await page.keyboard.type(OPERATOR)
    await tab_to(page, page.get_by_role("button", name="Log in"))
    await page.keyboard.press("Space")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Live")


async def _find_and_hear(page: Page, call: int) -> None:
    await tab_to(page, page.get_by_role("searchbox", name="Number or RequestID"))
    await page.keyboard.type("+4530517261")
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile(r"/ui/calls\?"))
    await _skip_to_content(page)
    await tab_to(page, page.get_by_role("link", name=f"{SOURCE}/{call}"))
    await page.keyboard.press("Enter")
    await expect(page.locator(".title")).to_contain_text("Answered")
    await _skip_to_content(page)
    audio = page.locator("audio").first
    await tab_to(page, audio)
    playing = asyncio.ensure_future(audio.evaluate(PLAYS))
    await page.keyboard.press("Space")
    assert await playing > 0.1
    await page.keyboard.press("Space")
    await until(lambda: audio.evaluate("audio => audio.paused"))
    summary = page.get_by_text("as JSON")
    await tab_to(page, summary)
    await page.keyboard.press("Enter")
    await expect(page.locator("details[open] pre")).to_contain_text('"outcome": "answered"')


async def _redrive(page: Page, text: str) -> None:
    await _to_page(page, "Dead letters")
    redrive = page.locator("tr", has_text=text).get_by_role("link", name="Redrive")

    async def died() -> int:
        await page.reload()
        return await redrive.count()

    await until(died)
    for answer in ("Cancel", "Redrive 1"):
        await _skip_to_content(page)
        await tab_to(page, redrive)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Redrive 1 callback?")
        await _skip_to_content(page)
        await tab_to(page, page.locator("main").get_by_text(answer, exact=True))
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Dead letters")
    await expect(page.get_by_role("status")).to_contain_text("1 redriven.")


async def _make_and_explain_a_link(page: Page) -> None:
    await _to_page(page, "Adapter link")
    await _skip_to_content(page)
    await tab_to(page, page.get_by_label("Source"))
    await page.keyboard.type(SOURCE)
    await tab_to(page, page.get_by_label("Public address of ingress"))
    await page.keyboard.type("https://hooks.example.com")
    await tab_to(page, page.get_by_role("button", name="Show the link"))
    await page.keyboard.press("Space")
    await expect(page.locator("#link")).to_have_value(re.compile(f"token={SECRET}&"))
    link = await page.locator("#link").input_value()
    await _skip_to_content(page)
    await tab_to(page, page.get_by_label("Adapter link", exact=True))
    await page.keyboard.insert_text(link)
    await tab_to(page, page.get_by_role("button", name="Explain"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").first).to_contain_text("Every callback of this link can be folded.")
