"""The pages of dead letters: the list, and the confirmation of a redrive."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from pydantic import ValidationError
from yarl import URL

from console.dead_letters.listing import Listing, LookRequest, find
from console.dead_letters.queue import DeadLetterQueue, Filter
from console.live.monitor import Monitor
from console.page import render
from console.page.models import DeadLetterRow, DeadLettersPage, RedrivePage
from console.web.dead_letters_api import DeadLettersAction, DeadLettersApi
from console.web.keys import IDENTITY
from console.web.page_responses import error_page, html, viewer_of
from console.web.parameters import read_form
from shared.amqp.topology import CALLBACKS_DEAD, RECORDINGS_DEAD
from shared.config.settings import Settings

_MAX_ROWS = 100
_MAX_COUNT_DIGITS = 6
_QUEUES = {DeadLetterQueue.CALLBACKS: CALLBACKS_DEAD, DeadLetterQueue.RECORDINGS: RECORDINGS_DEAD}


class DeadLetterPages:
    """Lists dead letters and redrives the selected ones."""

    def __init__(self, api: DeadLettersApi, monitor: Monitor, settings: Settings) -> None:
        self._api = api
        self._monitor = monitor
        self._settings = settings

    async def show(self, request: web.Request) -> web.Response:
        which = _which(request.query.get("which"))
        reason, source = request.query.get("reason") or None, request.query.get("source") or None
        rows, listing = await self._find(which, Filter((), reason, source))
        page = DeadLettersPage(
            which=which,
            dead_letters=rows,
            match_count=listing.count,
            is_complete=listing.is_complete,
            depths=await self._depths(),
            reason=reason,
            source=source,
            reasons=sorted({row.reason for row in rows}),
            sources=sorted({name for row in rows for name in row.sources}),
            notice=_notice(request.query),
        )
        return html(render.dead_letters_page(viewer_of(request), page))

    async def confirm_redrive(self, request: web.Request) -> web.Response:
        """Ask the user to confirm the redrive of the selected dead letters."""
        which, ids = _which(request.query.get("which")), request.query.getall("id", [])
        if not ids:
            raise web.HTTPSeeOther(URL("/ui/dead-letters").with_query(which=which))
        rows, _ = await self._find(which, Filter(tuple(ids)))
        page = RedrivePage(which, rows, str(URL("/ui/dead-letters").with_query(which=which)))
        return html(render.redrive_page(viewer_of(request), page))

    async def redrive(self, request: web.Request) -> web.Response:
        """Redrive the dead letters that the user has confirmed."""
        form = await read_form(request)
        which, ids = _which(str(form.get("which", ""))), [str(value) for value in form.getall("id", [])]
        count = 0
        if ids:
            try:
                action = DeadLettersAction(action="redrive", queue=which, ids=ids)
            except ValidationError:
                return error_page(request, 400, "Request failed", "The ids are invalid. Select dead letters in the list.")
            count = (await self._api.settle(action, request[IDENTITY].name)).done
        raise web.HTTPSeeOther(URL("/ui/dead-letters").with_query(which=which, redriven=count))

    async def _find(self, which: DeadLetterQueue, matching: Filter) -> tuple[list[DeadLetterRow], Listing]:
        listing = await find(self._settings, which, LookRequest(matching, _MAX_ROWS))
        rows = [DeadLetterRow(**row) for row in listing.dead_letters]  # type: ignore[arg-type]  # as `QueuedDeadLetter.describe` returns it
        return rows, listing

    async def _depths(self) -> Mapping[DeadLetterQueue, int | None]:
        depths = (await self._monitor.take()).depths
        return {which: depths[queue] for which, queue in _QUEUES.items()}


def _which(text: str | None) -> DeadLetterQueue:
    return DeadLetterQueue.RECORDINGS if text == DeadLetterQueue.RECORDINGS else DeadLetterQueue.CALLBACKS


def _notice(query: Mapping[str, str]) -> str | None:
    count = query.get("redriven", "")
    return f"{int(count)} redriven." if count.isdecimal() and len(count) <= _MAX_COUNT_DIGITS else None
