"""What the browser's tests share: the whole system with a slow FocalScope, and visits that tell of everything that went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.parse import quote

import aiohttp
from playwright.async_api import Browser, BrowserContext, Locator, Page
from yarl import URL

from simulator.focalscope import FocalScope
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Stack, eventually

OPERATOR = "an-operators-key-for-tests"
VIEWER = "a-viewers-key-for-tests"
SECRET = "adapter-secret-of-acme"
SOURCE = "acme"
NOT_QUOTED = "<>\"'=()/"  # as whoever writes a callback by hand may leave them
ALL_TOLD = (
    "document.addEventListener('securitypolicyviolation', e => console.error(`CSP: ${e.violatedDirective} ${e.blockedURI}`))"
)

PLAYS = (
    "audio => new Promise(done => audio.addEventListener('timeupdate', () => audio.currentTime > 0.1 && done(audio.currentTime)))"
)
# Nothing where whoever presses Tab sees what has the focus; the buttons inside a player are marked by the browser.
UNSEEN = """() => {
  const element = document.activeElement, style = getComputedStyle(element), box = element.getBoundingClientRect();
  const isMarked = element.matches('audio:not(:focus)') || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2);
  const isThere = box.width > 0 && box.height > 0 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight;
  return element === document.body || (isMarked && isThere) ? '' : element.outerHTML.slice(0, 120);
}"""


@dataclass(frozen=True, slots=True)
class System:
    """Ingress, worker, console and history as processes, and a FocalScope in slow motion."""

    stack: Stack
    pbx: FocalScope
    console: str
    ingress_port: int

    async def dial(self, agent: str, number: str, reference: str) -> int:
        """Dial through the console, as an integration would; returns the RequestID."""
        body = {"source": SOURCE, "agent": agent, "number": number, "reference": reference}
        async with self._session() as session, session.post("/dial", json=body, raise_for_status=True) as response:
            return int((await response.json())["request_id"])

    async def ask(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Look something up, again while Redis or RabbitMQ takes too long to answer; None for what is not known."""

        async def answered() -> tuple[int, Any] | None:
            async with self._session() as session, session.get(path) as response:
                is_unavailable = response.status == HTTPStatus.SERVICE_UNAVAILABLE
                return None if is_unavailable else (response.status, await response.json())

        status, body = await eventually(answered)
        assert status in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}, body
        return body if status == HTTPStatus.OK else None

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.console, headers={"Authorization": f"Bearer {OPERATOR}"})

    async def call_back(self, source: str = SOURCE, **values: str) -> None:
        """Send one callback by the names of a link that `callfold adapter-link` makes."""
        await self._send(source, values, 200)

    async def call_back_badly(self, source: str = SOURCE, **values: str) -> None:
        """Send a callback that is answered 400 and dead-lettered."""
        await self._send(source, values, 400)

    async def _send(self, source: str, values: Mapping[str, str], status: int) -> None:
        query = "&".join(f"{name}={quote(value, safe=NOT_QUOTED)}" for name, value in ({"token": SECRET} | dict(values)).items())
        url = URL(f"http://127.0.0.1:{self.ingress_port}/callbacks/{source}?{query}", encoded=True)
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert (response.status, await response.text()) == (status, ANY)

    async def stored(self, request_id: int) -> dict[str, Any]:
        """Wait until a call is complete, in the history, and its two recordings are stored; returns all that is known of it."""

        async def found() -> dict[str, Any] | None:
            detail: dict[str, Any] | None = await self.ask(f"/calls/{SOURCE}/{request_id}")
            if detail is None:  # its dial is answered before it is folded
                return None
            states = [recording["state"] for recording in detail["recordings"]]
            is_known = detail["revisions"] and detail["is_timeline_whole"]
            return detail if is_known and states == ["stored", "stored"] else None

        told: dict[str, Any] = await eventually(found)
        return told


@dataclass(slots=True)
class Visits:
    """The browser of one test. `problems` are errors of scripts, refused contents, dialogs, and requests that lead elsewhere."""

    browser: Browser
    console: str
    closing: AsyncExitStack
    problems: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)

    async def open(self, path: str = "/", *, key: str | None = OPERATOR, **options: Any) -> Page:  # noqa: ANN401
        """Open a page in a browser of its own, logged in with a key."""
        # Nothing here is about the light that pulses on the live page, and to draw it takes a fifth of the CPU time.
        context = await self.browser.new_context(base_url=self.console, reduced_motion="reduce", **options)
        self.closing.push_async_callback(context.close)
        context.set_default_timeout(LIMIT_S * 1000)
        await context.add_init_script(ALL_TOLD)
        self._listen(context)
        if key is not None:
            answer = await context.request.post("/login", form={"key": key, "next": "/"}, max_redirects=0)
            assert answer.status == 303
        page = await context.new_page()
        await page.goto(path)
        return page

    def _listen(self, context: BrowserContext) -> None:
        context.on("console", lambda message: self._note(message.type, message.text) if message.type != "log" else None)
        context.on("weberror", lambda error: self._note("script", str(error.error)))
        context.on("dialog", lambda dialog: self._note("dialog", dialog.message))
        context.on("request", lambda request: self._note_strange(request.url))

    def _note_strange(self, url: str) -> None:
        if not url.startswith((f"{self.console}/", "data:")):
            self._note("request", url)

    def _note(self, kind: str, text: str) -> None:
        expected = next((part for part in self._expected if part in text), None)
        if expected is None:
            self.problems.append(f"{kind}: {text}")
        else:
            self._expected.remove(expected)

    def expect(self, part: str) -> None:
        """Have one line of the console not count, which the test provokes; that it comes is checked at the end."""
        self._expected.append(part)

    def check(self) -> None:
        assert not self.problems, self.problems
        assert not self._expected, f"did not come: {self._expected}"


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
    return await eventually(condition)


async def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until something has the focus; fails where it cannot be reached so, or where a focus on the way cannot be seen."""
    for _ in range(60):
        if await wanted.evaluate("element => element === document.activeElement"):
            return
        await page.keyboard.press("Tab")
        unseen = await page.evaluate(UNSEEN)
        assert not unseen, f"the focus is not seen: {unseen}"
    raise AssertionError("Tab does not lead there")


def write_sources(path: Path, pbx_url: str, sectok: str) -> None:
    link = f"{pbx_url}/_cros_/master/?uid=form_faster_downloadcall&sectok={sectok}&nId={{call_id}}"
    path.write_text(
        f'[sources.{SOURCE}]\nsecret = "{SECRET}"\ndial_url = "{pbx_url}/dial?agent={{agent}}&number={{number}}"\n'
        f'recording_url = "{link}"\n[sources.other]\nsecret = "{SECRET}"\n'
    )
