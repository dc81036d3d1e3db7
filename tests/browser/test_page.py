"""The console's page in a real Chromium, against the whole system, while a FocalScope calls back."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import struct
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from playwright.async_api import Locator, Page, expect

from tests.helpers.browser import OPERATOR, PLAYS, SECRET, SOURCE, VIEWER, System, Visits, tab_to, until

SCRIPT = "<script>alert(document.domain)</script>"
IMAGE = '"><img/src="x"onerror="alert(document.domain)">'
PICTURES = ("live-light.png", "live-dark.png", "call-light.png", "call-dark.png")
SIZE = {"width": 1200, "height": 750}
G722 = (b"RIFF", 8036, b"WAVE", b"fmt ", 16, 0x28F, 1, 16000, 8000, 1, 4, b"data")
SEEKS = """(audio, to) => new Promise(done => {
  audio.pause();
  audio.addEventListener('seeked', () => done(audio.currentTime), {once: true});
  audio.currentTime = to;
})"""
FETCHES = """async ([url, range]) => {
  const answer = await fetch(url, {headers: {Range: range}});
  return [answer.status, answer.headers.get('Content-Range'), (await answer.arrayBuffer()).byteLength];
}"""


def path(page: Page) -> str:
    parts = urlsplit(page.url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def row(page: Page, call: str) -> Locator:
    return page.locator("li.row", has=page.locator(f"#call-{SOURCE}-{call}"))


async def test_a_call_appears_on_the_live_page_moves_to_talking_ends_and_leaves(
    system: System, visits: Visits, answered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FocalScope waits with each step until the page has shown the one before."""
    pickups, hangups, send = asyncio.Event(), asyncio.Event(), system.pbx._send_callback

    async def held(url: str) -> None:
        await (hangups if "Event=hangup" in url else pickups).wait()
        await send(url)

    monkeypatch.setattr(system.pbx, "_send_callback", held)
    visits.closing.callback(hangups.set)  # whatever fails, other tests need the callbacks
    visits.closing.callback(pickups.set)
    page = await visits.open()
    await expect(page.locator("#live-state")).to_have_text("Up to date")
    request_id = str(await system.dial("1002", "+4530517262", "crm-43"))
    shown = row(page, request_id)
    await expect(shown).to_contain_text("Ringing")
    await expect(shown.locator("svg.mini")).to_have_attribute("aria-label", "Agent ringing")
    await expect(shown).to_contain_text("+4530517262")
    pickups.set()
    await expect(shown).to_contain_text("Talking")
    await expect(shown.locator("svg.mini")).to_have_attribute("aria-label", re.compile("^Agent talking, Dialed talking$"))
    bar = shown.locator("rect.talking").last
    began = float((await bar.get_attribute("width") or "").rstrip("%"))

    async def grown() -> bool:
        return float((await bar.get_attribute("width") or "0").rstrip("%")) > began

    await until(grown)
    hangups.set()
    await expect(shown).to_have_count(0)
    await expect(page.locator(".outcomes")).to_contain_text("Answered")
    # What ended can still be found.
    await page.fill("input[name=q]", request_id)
    await page.keyboard.press("Enter")
    await expect(page.locator(".title")).to_contain_text("Answered")


async def test_without_a_key_every_page_leads_to_the_log_in_form_which_refuses_a_wrong_key(visits: Visits, answered: int) -> None:
    page = await visits.open("/ui/calls?state=open", key=None)
    assert path(page).startswith("/login?next=")
    # By keyboard alone: the field has the focus.
    field = page.locator("input[type=password]")
    await expect(field).to_be_focused()
    await page.keyboard.type("wrong-key")
    visits.expect("401 (Unauthorized)")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("Unknown key. Check it and try again.")
    assert "wrong-key" not in await page.content()
    await expect(field).to_be_focused()
    await page.keyboard.type(OPERATOR)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Calls", exact=True)).to_be_visible()
    assert path(page) == "/ui/calls?state=open"
    (cookie,) = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert OPERATOR not in cookie["value"]
    # Out again, by keyboard as well.
    await tab_to(page, page.get_by_role("button", name="Log out"))
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/login")
    assert await page.context.cookies() == []
    await page.goto("/")
    assert path(page) == "/login?next=/"


async def test_a_call_is_found_by_its_number_with_the_keyboard_alone(system: System, visits: Visits, answered: int) -> None:
    page = await visits.open()
    await tab_to(page, page.locator("input[name=q]"))
    await page.keyboard.type("30517261")
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile(r"/ui/calls\?"))
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("+4530517261")
    await tab_to(page, rows.get_by_role("link"))
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/ui/calls/{SOURCE}/{answered}")


async def test_a_request_id_that_two_sources_have_is_found_in_both(system: System, visits: Visits, answered: int) -> None:
    for source in (SOURCE, "other"):
        await system.call_back(source, CallType="Outgoing", Event="missed", CallID="77", RequestID="20772")
        await system.call_back(source, CallType="API", Event="missed", CallID="76", RequestID="20772")

    async def known() -> bool:
        found = (await system.ask("/calls?since=1h&outcome=dialed_missed"))["calls"]
        return {(call["source"], call["call"]) for call in found} >= {(SOURCE, "20772"), ("other", "20772")}

    await until(known)
    page = await visits.open()
    await page.fill("input[name=q]", "20772")
    await page.get_by_role("button", name="Find").click()
    await expect(page.locator("tbody tr")).to_have_count(2)
    await page.get_by_role("link", name="other/20772").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("other/20772")


async def test_a_calls_page_shows_its_legs_every_callback_its_record_and_plays_its_recordings(
    system: System, visits: Visits, answered: int
) -> None:
    record = await system.stored(answered)
    page = await visits.open(f"/ui/calls/{SOURCE}/{answered}")
    await expect(page.locator(".title")).to_contain_text("Answered")
    await expect(page.locator(".why")).to_contain_text("crm-42")
    await expect(page.locator(".why")).to_contain_text("every leg has ended")
    legs = page.get_by_role("region", name="Legs as a table").locator("tbody tr")
    assert [leg.split("\t")[0] for leg in await legs.all_inner_texts()] == ["Agent", "Dialed"]
    # The dial and four callbacks, each at least once: a marker in the picture and a row in the table for each that was kept.
    entries = record["timeline"]
    assert len({entry["what"] for entry in entries}) == 5
    rows = page.locator("table.raw tbody tr")

    async def are_all_read() -> bool:
        """Load the page again if RabbitMQ was too slow for it to show all of the journal."""
        if await rows.count() == len(entries):
            return True
        await page.reload()
        return False

    await until(are_all_read)
    await expect(page.locator("svg.whole .dot")).to_have_count(len(entries))
    assert await page.locator("svg.whole rect.talking").count() == 2
    await expect(page.locator("#record + * tbody tr")).to_contain_text(f"{SOURCE}/{answered}/1")
    await page.get_by_text("The derived record as JSON").click()
    await expect(page.locator("details[open] pre")).to_contain_text('"outcome": "answered"')
    await _plays(page, system, answered)


async def _plays(page: Page, system: System, request_id: int) -> None:
    for number, leg in enumerate(system.pbx.truths[request_id].legs):
        picture, audio = page.locator("img.wave").nth(number), page.locator("audio").nth(number)
        await picture.scroll_into_view_if_needed()
        await until(partial(picture.evaluate, "image => image.complete && image.naturalWidth > 100"))
        playing = asyncio.ensure_future(audio.evaluate(PLAYS))
        await audio.focus()
        await page.keyboard.press("Space")
        assert await playing > 0.1
        assert await audio.evaluate("audio => audio.duration") == pytest.approx(leg.talk_seconds, abs=0.1)
        to = leg.talk_seconds * 0.6
        assert await audio.evaluate(SEEKS, to) == pytest.approx(to, abs=0.5)
        assert await audio.evaluate("audio => audio.seekable.end(0)") == pytest.approx(leg.talk_seconds, abs=0.1)
        size, _ = system.pbx.recordings.fingerprint(leg.call_id)
        url = await audio.get_attribute("src")
        assert await page.evaluate(FETCHES, [url, "bytes=100-299"]) == [206, f"bytes 100-299/{size}", 200]
        assert await page.evaluate(FETCHES, [url, "bytes=-50"]) == [206, f"bytes {size - 50}-{size - 1}/{size}", 50]


async def test_a_recording_that_no_browser_plays_is_converted_or_said_in_words(
    system: System, visits: Visits, tmp_path: Path
) -> None:
    gsm, g722 = tmp_path / "gsm.wav", struct.pack("<4sI4s4sIHHIIHH4sI", *G722, 8000) + bytes(8000)
    soundfile.write(gsm, np.sin(np.arange(16000) / 3), 8000, subtype="GSM610")
    for call_id, content in (("20901", gsm.read_bytes()), ("20902", g722)):
        system.pbx.recordings.add_file(call_id, content)
    both = {"RequestID": "20900", "IsCallRecorded": "1"}
    for kind, call_id, name in (("API", "20901", "5e0f0001"), ("Outgoing", "20902", "5e0f0002")):
        known = both | {"CallType": kind, "CallID": call_id, "Guid": f"{name}-0000-0000-0000-000000000000"}
        await system.call_back(Event="pickup", **known)
        await system.call_back(Event="hangup", **known)
    stored = await system.stored(20900)
    page = await visits.open(f"/ui/calls/{SOURCE}/20900")
    converted, silent = page.locator(".recording").first, page.locator(".recording").last
    await expect(converted).to_contain_text("GSM 6.10, converted for this player.")
    await expect(silent).to_contain_text("G.722 cannot be played here.")
    assert await silent.locator("img, audio").count() == 0
    await expect(silent.get_by_role("link", name="Download")).to_be_visible()
    picture, audio = converted.locator("img"), converted.locator("audio")
    await picture.scroll_into_view_if_needed()
    await until(partial(picture.evaluate, "image => image.complete && image.naturalWidth > 100"))
    playing = asyncio.ensure_future(audio.evaluate(PLAYS))
    await audio.evaluate("audio => audio.play()")
    assert await playing > 0.1
    assert await audio.evaluate("audio => audio.duration") == pytest.approx(2, abs=0.1)
    assert await audio.evaluate(SEEKS, 1.5) == pytest.approx(1.5, abs=0.1)
    assert await audio.evaluate("audio => audio.error") is None
    # A file that is damaged while the page is open has words after an attempt, and at once on a new page.
    await page.reload()
    await expect(audio).to_have_count(1)
    Path(urlsplit(stored["recordings"][0]["uri"]).path).write_bytes(b"<html>" * 100)
    visits.expect("404 (Not Found)")
    await audio.evaluate("audio => { audio.play().catch(() => {}); }")
    await expect(converted).to_contain_text("This recording cannot be played here. Download it instead.")
    await expect(audio).to_have_count(0)
    await page.reload()
    await expect(page.locator(".recording").first).to_contain_text("cannot be played here. Download the recording instead.")


async def test_a_dead_letter_is_redriven_after_a_question(system: System, visits: Visits, answered: int) -> None:
    await system.call_back_badly(CallType="API", Event="pickup", CallID="not-a-number", RequestID="20001")
    page = await visits.open("/ui/dead-letters")
    letter = page.locator("table.dead-letters tbody tr", has_text="not-a-number")

    async def died() -> int:
        await page.reload()
        return await letter.count()

    assert await until(died) == 1
    letter_id = await letter.get_by_role("rowheader").inner_text()
    await letter.get_by_text("Body").click()
    await expect(letter.locator("pre")).to_contain_text("RequestID=20001")
    assert SECRET not in await page.content()
    await letter.get_by_role("link", name="Redrive").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Redrive 1 callback?")
    await expect(page.locator(".ids")).to_contain_text(letter_id)
    await page.get_by_role("link", name="Cancel").click()
    await expect(letter).to_have_count(1)
    await letter.get_by_role("link", name="Redrive").click()
    await expect(page.locator(".banner")).to_contain_text("It would be a dead letter again")
    await expect(page.locator(".banner")).to_contain_text("CallID")
    await page.get_by_role("button", name="Redrive 1").click()
    await expect(page.get_by_role("status")).to_contain_text("1 redriven.")
    await expect(page.get_by_role("status")).to_contain_text("1 is a dead letter again: invalid_callback.")

    # It is folded anew, and is as wrong as before: it comes back as another letter.
    async def back_again() -> bool:
        await page.reload()
        return await letter.count() == 1 and await letter.get_by_role("rowheader").inner_text() != letter_id

    await until(back_again)
    # It can be dropped as well.
    await letter.get_by_role("link", name="Drop").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Delete 1 callback permanently?")
    await page.get_by_role("button", name="Delete 1").click()
    await expect(page.get_by_role("status")).to_contain_text("1 deleted.")
    await expect(letter).to_have_count(0)


async def test_a_change_needs_the_token_of_the_page(system: System, visits: Visits) -> None:
    page = await visits.open("/ui/dead-letters")
    for action in ("redrive", "drop"):
        refused = await page.request.post(f"/ui/dead-letters/{action}", form={"which": "callbacks", "id": "abcd1234"})
        assert refused.status == 403


async def test_an_adapter_link_is_made_copied_pasted_and_explained(visits: Visits) -> None:
    page = await visits.open("/ui/adapter", permissions=["clipboard-read", "clipboard-write"])
    await page.get_by_label("Source").select_option(SOURCE)
    await page.get_by_label("Public address of ingress").fill("https://hooks.example.com")
    await page.get_by_role("button", name="Show the link").click()
    await page.get_by_role("button", name="Copy").click()
    await expect(page.locator(".copied")).to_have_text("Copied")
    link = await page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"https://hooks.example.com/callbacks/{SOURCE}?token={SECRET}&CallType={{{{CallTypeName}}}}&")
    pasted = page.get_by_label("Adapter link", exact=True)
    await pasted.focus()
    await page.keyboard.press("Control+V")
    await page.get_by_role("button", name="Explain").click()
    await expect(page.get_by_role("status").first).to_contain_text("Every callback of this link can be folded.")
    await expect(page.locator("tr", has=page.locator("th code", has_text=re.compile("^Guid$")))).to_contain_text(
        "the recording's name"
    )
    assert SECRET not in await page.content()
    await pasted.fill("https://hooks.example.com/callbacks/acme?a={{CallID}}&CallType={{CallTypeName}}")
    await page.get_by_role("button", name="Explain").click()
    await expect(page.get_by_role("alert")).to_contain_text("{{DialApiEventName}} or {{DialApiEventCode}}")


async def test_what_a_callback_tells_stays_text_on_every_page(system: System, visits: Visits) -> None:
    both = SCRIPT + IMAGE
    told = {"RequestID": "20666", "CallerID": both, "ResponderAgent": both, "Guid": "923041af-adb5-a8ae-f29c-e60ea5e17666"}
    await system.call_back(CallType="API", Event="pickup", CallID="20667", **told)
    await system.call_back_badly(CallType="API", Event=both, CallID="20669", **told)  # a dead letter
    page = await visits.open()
    await _is_text(page, row(page, "20666"))
    await system.call_back(CallType="Outgoing", Event="missed", CallID="20668", **told)
    await system.call_back(CallType="API", Event="hangup", CallID="20667", **told)
    await expect(row(page, "20666")).to_have_count(0)
    await page.goto(f"/ui/calls/{SOURCE}/20666")
    await page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    await _is_text(page, page.locator("pre"))
    await _is_text(page, page.locator(".facts").last)
    await page.fill("input[name=q]", both)
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile(r"/ui/calls\?"))
    await _is_text(page, page.locator("tbody tr"))
    assert await page.input_value("#f-number") == f"*{both}*"
    await page.goto("/ui/dead-letters")
    letter = page.locator("table.dead-letters tbody tr", has_text="<script>")
    await page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    await expect(letter.locator(".detail bdi")).to_contain_text("<scr")
    await _is_text(page, letter.locator("pre"))
    await letter.get_by_role("link", name="Redrive").click()
    await expect(page.locator(".ids")).to_contain_text("<scr")
    await _nothing_was_made(page)
    await page.goto("/ui/adapter")
    await page.get_by_label("Adapter link", exact=True).fill(f"https://h.example/?{both}=1")
    await page.get_by_role("button", name="Explain").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await _nothing_was_made(page)
    await page.goto("/webhooks")
    await page.get_by_label("Name", exact=True).fill("crm")
    await page.get_by_label("URL").fill("https://crm.example.com/in")
    await page.get_by_label("Filter").fill(both)
    visits.expect("400 (Bad Request)")
    await page.get_by_role("button", name="Add").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await page.get_by_label("Filter").input_value() == both
    await _nothing_was_made(page)
    visits.expect("404 (Not Found)")
    await page.goto(f"/ui/calls/{SCRIPT}/1")
    await _nothing_was_made(page)


async def _is_text(page: Page, where: Locator) -> None:
    await expect(where).to_contain_text(SCRIPT)
    await expect(where).to_contain_text("<img/src=")
    await _nothing_was_made(page)


async def _nothing_was_made(page: Page) -> None:
    assert await page.locator("body script, img[src='x'], [onerror]").count() == 0


async def test_a_viewer_sees_the_pages_and_changes_nothing(system: System, visits: Visits, answered: int) -> None:
    await system.call_back_badly(CallType="API", Event="pickup", CallID="not-a-number", RequestID="20002")
    page = await visits.open("/ui/dead-letters", key=VIEWER)
    letter = page.locator("table.dead-letters tbody tr", has_text="not-a-number").first

    async def died() -> int:
        await page.reload()
        return await letter.count()

    await until(died)
    assert await page.get_by_text(re.compile("Redrive|Drop")).count() == 0
    form: dict[str, str | float | bool] = {"which": "callbacks", "id": await letter.get_by_role("rowheader").inner_text()}
    form["csrf"] = await page.locator("form[action='/logout'] [name=csrf]").get_attribute("value") or ""
    for action in ("redrive", "drop"):
        assert (await page.request.post(f"/ui/dead-letters/{action}", form=form)).status == 403
    await page.goto(f"/ui/adapter?source={SOURCE}&public_url=https://hooks.example.com")
    await expect(page.locator("#link")).to_have_value(re.compile(r"token=\*\*\*&CallType="))
    assert SECRET not in await page.content()
    for name, heading in (("Live", "Live"), ("Calls", "Calls"), ("Dead letters", "Dead letters")):
        await page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    await page.goto(f"/ui/calls/{SOURCE}/{answered}")
    await expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"\(1001\) → \+4530517261$"))
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url("**/login")


async def test_the_main_views_in_both_themes(system: System, visits: Visits, answered: int, tmp_path: Path) -> None:
    """With SCREENSHOTS, a directory, those that the README shows are written there (`make screenshots`)."""
    wanted = os.environ.get("SCREENSHOTS")
    calls = 50 if wanted else 3
    await system.call_back_badly(CallType="API", Event="pickup", CallID="n/a", RequestID="20003")
    await system.stored(answered)
    views = {
        "call": f"/ui/calls/{SOURCE}/{answered}",
        "calls": "/ui/calls",
        "dead-letters": "/ui/dead-letters",
        "webhooks": "/webhooks",
    }
    pages = {theme: await visits.open(viewport=SIZE, color_scheme=theme) for theme in ("light", "dark")}
    await _keep_busy(system, pages.values(), calls)
    await asyncio.gather(*(_shoot(page, tmp_path / f"live-{theme}.png") for theme, page in pages.items()))
    for theme, page in pages.items():
        for name, url in views.items():
            await page.goto(url)
            await _shoot(page, tmp_path / f"{name}-{theme}.png")
    backgrounds = [await page.evaluate("getComputedStyle(document.body).backgroundColor") for page in pages.values()]
    assert backgrounds == ["rgb(244, 246, 249)", "rgb(15, 20, 27)"]
    for name in PICTURES if wanted else ():
        shutil.copy(tmp_path / name, Path(wanted or "") / name)


async def _keep_busy(system: System, pages: Iterable[Page], calls: int) -> None:
    """Dial at least so many calls, one with each update of the pages, until all show one that rings and one that talks."""
    for number in range(calls + 20):
        moving = [await page.locator(".open-calls:has(.is-talking):has(.is-ringing)").count() for page in pages]
        if number >= calls and all(moving):
            return
        times = [await page.locator(".asof time").inner_text() for page in pages]
        await system.dial(f"100{number % 4 + 1}", f"+45{30511000 + 7919 * number}", f"crm-{50 + number}")
        for page, time in zip(pages, times, strict=True):
            await expect(page.locator(".asof time")).not_to_have_text(time)
    raise AssertionError("never did one call ring and one talk on both pages")


async def _shoot(page: Page, to: Path) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert len(await page.screenshot(path=to)) > 10_000


_NO_RABBITMQ = re.compile("RabbitMQ (cannot be reached|did not answer within)")  # before, and after it was asked


async def test_without_rabbitmq_a_calls_page_still_shows_its_record(system: System, visits: Visits, answered: int) -> None:
    await system.stored(answered)
    page = await visits.open(f"/ui/calls/{SOURCE}/{answered}")
    system.stack.rabbitmq.pause()
    try:
        await page.reload()
        await expect(page.locator(".title")).to_contain_text("Answered")
        await expect(page.locator(".banner.bad")).to_contain_text(_NO_RABBITMQ)
        await expect(page.locator("table.raw")).to_have_count(0)
        await page.goto("/")
        await expect(page.locator(".banner.bad")).to_contain_text(_NO_RABBITMQ)
    finally:
        system.stack.rabbitmq.resume()
    await expect(page.locator(".banner.bad")).to_have_count(0)
