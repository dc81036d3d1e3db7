"""The pages of dead letters: the list, the confirmation of a redrive or drop, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web
from pydantic import ValidationError
from yarl import URL

from console.dead_letters.listing import Listing, LookRequest, find
from console.dead_letters.prospects import in_words
from console.dead_letters.queue import DeadLetterQueue, Filter
from console.live.monitor import Monitor
from console.page import render
from console.page.models import ConfirmPage, DeadLetterRow, DeadLettersPage
from console.web.dead_letter_results import ActionName, Result
from console.web.dead_letters_api import DeadLettersAction, DeadLettersApi
from console.web.keys import IDENTITY
from console.web.page_responses import error_page, html, viewer_of
from console.web.parameters import read_form
from shared.config.settings import Settings

_MAX_ROWS = 100


class DeadLetterPages:
    """Lists dead letters, and redrives or drops the selected ones."""

    def __init__(self, api: DeadLettersApi, monitor: Monitor, settings: Settings) -> None:
        self._api = api
        self._monitor = monitor
        self._settings = settings

    async def show(self, request: web.Request) -> web.Response:
        which = _which(request.query.get("which"))
        reason, source, endpoint = (request.query.get(name) or None for name in ("reason", "source", "endpoint"))
        rows, listing = await self._find(which, Filter((), reason, source, endpoint=endpoint))
        result = Result.of_query(request.query)
        page = DeadLettersPage(
            which=which,
            dead_letters=rows,
            match_count=listing.count,
            is_complete=listing.is_complete,
            depths=await self._depths(),
            reason=reason,
            source=source,
            endpoint=endpoint,
            endpoints=sorted({row.endpoint for row in rows if row.endpoint}),
            reasons=sorted({row.reason for row in rows}),
            sources=sorted({name for row in rows for name in row.sources}),
            notice=result.notice if result else None,
        )
        return html(render.dead_letters_page(viewer_of(request), page))

    async def confirm_redrive(self, request: web.Request) -> web.Response:
        """Ask the user to confirm the redrive of the selected dead letters."""
        return await self._confirm(request, "redrive")

    async def confirm_drop(self, request: web.Request) -> web.Response:
        """Ask the user to confirm the deletion of the selected dead letters."""
        return await self._confirm(request, "drop")

    async def redrive(self, request: web.Request) -> web.Response:
        """Redrive the dead letters that the user has confirmed."""
        return await self._act(request, "redrive")

    async def drop(self, request: web.Request) -> web.Response:
        """Delete the dead letters that the user has confirmed."""
        return await self._act(request, "drop")

    async def _confirm(self, request: web.Request, action: ActionName) -> web.Response:
        which, ids = _which(request.query.get("which")), request.query.getall("id", [])
        if not ids:
            raise web.HTTPSeeOther(URL("/ui/dead-letters").with_query(which=which))
        rows, _ = await self._find(which, Filter(tuple(ids)))
        warnings: Sequence[str] = ()
        if rows and action == "redrive":
            prospects = await self._api.foresee(_valid(action, which, [row.id for row in rows]), request[IDENTITY].name)
            warnings = in_words(prospects.coming_back)
        page = ConfirmPage(action, which, rows, str(URL("/ui/dead-letters").with_query(which=which)), warnings)
        return html(render.confirm_page(viewer_of(request), page))

    async def _act(self, request: web.Request, name: ActionName) -> web.Response:
        form = await read_form(request)
        which, ids = _which(str(form.get("which", ""))), [str(value) for value in form.getall("id", [])]
        try:
            action = _valid(name, which, ids)
        except ValidationError:
            return error_page(request, 400, "Request failed", "The ids are invalid. Select dead letters in the list.")
        if name == "redrive" and which is DeadLetterQueue.CALLBACKS:
            result = Result.of_redrive(*await self._api.redrive_and_wait(action, request[IDENTITY].name))
        else:
            settled = await self._api.settle(action, request[IDENTITY].name)
            result = Result(name, settled.done, settled.skipped)
        raise web.HTTPSeeOther(URL("/ui/dead-letters").with_query([("which", which), *result.to_query()]))

    async def _find(self, which: DeadLetterQueue, matching: Filter) -> tuple[Sequence[DeadLetterRow], Listing]:
        listing = await find(self._settings, which, LookRequest(matching, _MAX_ROWS))
        rows = [DeadLetterRow(**row) for row in listing.dead_letters]  # type: ignore[arg-type]  # as `QueuedDeadLetter.describe` returns it
        return rows, listing

    async def _depths(self) -> Mapping[DeadLetterQueue, int | None]:
        depths = (await self._monitor.take()).depths
        return {which: depths[which.queue_name] for which in DeadLetterQueue}


def _valid(name: ActionName, which: DeadLetterQueue, ids: list[str]) -> DeadLettersAction:
    """Return the action on dead letters.

    Raises:
        ValidationError: there are too many ids, none, or invalid ones.
    """
    return DeadLettersAction(action=name, queue=which, ids=ids)


def _which(text: str | None) -> DeadLetterQueue:
    return next((queue for queue in DeadLetterQueue if queue == text), DeadLetterQueue.CALLBACKS)
