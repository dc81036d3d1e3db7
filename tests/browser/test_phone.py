"""The pages on a phone, in the dark and in the light: nothing sticks out, all can be read, and all can be hit with a thumb."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.helpers.browser import SOURCE, System, Visits, until
from tests.helpers.volume import sizes

PHONE = {"width": 390, "height": 844}
LONG = "4530517261" * 8  # one word, wider than the screen
# Elements that can be scrolled sideways, or would have to be to see all of them.
STICKS_OUT = """() => [...document.querySelectorAll('*')]
  .filter(e => !(e instanceof SVGElement) && getComputedStyle(e).display !== 'inline' && e.scrollWidth > e.clientWidth + 1)
  .filter(e => e.getBoundingClientRect().right > 0 && getComputedStyle(e).clipPath === 'none')
  .map(e => `${e.scrollWidth} in ${e.clientWidth}: ${e.outerHTML.slice(0, 80)}`)"""
# Links inside a sentence are as high as its lines (WCAG 2.2, 2.5.8).
TOO_SMALL = """() => [...document.querySelectorAll('a, button, input:not([type=hidden]), select, textarea, summary, audio')]
  .filter(e => e.checkVisibility({visibilityProperty: true}) && e.closest('p:not(.actions, .pager)') === null)
  .map(e => [e, e.getBoundingClientRect()])
  .filter(([e, box]) => box.right > 0 && (box.width < 24 || box.height < 24))
  .map(([e, box]) => `${Math.round(box.width)}x${Math.round(box.height)} ${e.outerHTML.slice(0, 90)}`)"""
# Text under 11 px, or of less contrast to what is behind it than WCAG 2.2 asks for (1.4.3).
UNREADABLE = """() => {
  const draw = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parts = colour => {
    draw.clearRect(0, 0, 1, 1); draw.fillStyle = colour; draw.fillRect(0, 0, 1, 1);
    return [...draw.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = parts(getComputedStyle(element).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const wrong = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
    if (!text || element.closest('title, noscript') || !element.checkVisibility({visibilityProperty: true})) continue;
    const style = getComputedStyle(element), isDrawn = element instanceof SVGElement;
    const [a, b] = [light(parts(isDrawn ? style.fill : style.color)), light(behind(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), contrast = (a + 0.05) / (b + 0.05);
    if (size < 11 || contrast < 4.5) wrong.push(`${size} px, ${contrast.toFixed(1)}: ${text.slice(0, 60)}`);
  }
  return wrong;
}"""


@pytest_asyncio.fixture(scope="module")
async def views(system: System, answered: int) -> dict[str, str]:
    """The address of each view, with a finished call and a dead letter to be seen there."""
    await system.call_back_badly(CallType="API", Event="pickup", CallID="not-a-number", RequestID="20001", CallerID=LONG)
    await system.stored(answered)

    async def letters() -> list[dict[str, str]]:
        found: list[dict[str, str]] = (await system.ask("/dead-letters"))["letters"]
        return found

    letter, *_ = await until(letters)
    return {
        "live": "/",
        "call": f"/ui/calls/{SOURCE}/{answered}",
        "calls": "/ui/calls?since=1h",
        "wrong search": "/ui/calls?since=yesterday&limit=9999",
        "dead letters": "/ui/dead-letters",
        "redrive": f"/ui/dead-letters/redrive?which=callbacks&id={letter['id']}",
        "adapter": f"/ui/adapter?source={SOURCE}&public_url=https://hooks.example.com",
        "log-in": "/login",
    }


@pytest.mark.parametrize("theme", sizes("light", "dark"))  # they differ in colors alone: tests/unit/page/test_themes.py
async def test_every_view_fits_a_phone(
    system: System, visits: Visits, views: dict[str, str], theme: Literal["light", "dark"]
) -> None:
    page = await visits.open("/login", viewport=PHONE, color_scheme=theme, is_mobile=True, has_touch=True)
    await asyncio.gather(*(system.dial(f"100{number}", f"+45305173{number:02}", "crm-77") for number in range(3)))
    for name, url in views.items():
        if name == "wrong search":
            visits.expect("400 (Bad Request)")
        await page.goto(url)
        if name == "live":
            await expect(page.locator(".open-calls .is-talking").first).to_be_visible()
        if name == "adapter":
            await _fits(name, page)
            await page.get_by_label("Adapter link", exact=True).fill(await page.locator("#link").input_value())
            await page.get_by_role("button", name="Explain").click()
            await expect(page.get_by_role("status").first).to_be_visible()
        await page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        await _fits(name, page)


async def _fits(name: str, page: Page) -> None:
    assert await page.evaluate("visualViewport.width") == PHONE["width"], name
    for problems in (STICKS_OUT, TOO_SMALL, UNREADABLE):
        assert await page.evaluate(problems) == [], name
