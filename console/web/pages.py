"""The pages of the console except those of dead letters."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiohttp import web
from yarl import URL

from console.call_query import CallQuery
from console.live.monitor import Monitor
from console.lookup.csv_export import CSV, write_csv_in_steps
from console.lookup.lookup import Lookup
from console.page import render
from console.page.call_models import CallPage
from console.page.link_explanation import explain_callback, secret_problem
from console.page.models import AdapterPage, CallsPage
from console.page.search_form import read_query
from console.page.urls import call_url, search_url
from console.web.keys import IDENTITY
from console.web.page_responses import error_page, html, viewer_of
from console.web.parameters import read_form
from console.web.playback import Presenter
from shared.clock import utc_now
from shared.config.live_sources import LiveSources
from shared.config.sources import Source, unknown_source_message
from shared.domain.adapter_link import make_link, parse_link
from shared.domain.ids import CallKey, CallRef, SourceName, is_call_ref
from shared.errors import ConfigError, InvalidCallbackError

_SEARCH_TOO_LARGE = "Too many calls to search for one file. Choose a source or a shorter period, or use `callfold calls --csv`."

_MAX_ROWS = 200  # a page is rendered in one step


class Pages:
    """Serves live calls, searches, single calls, and help with adapter links."""

    def __init__(self, lookup: Lookup, monitor: Monitor, sources: LiveSources, presenter: Presenter) -> None:
        self._lookup = lookup
        self._monitor = monitor
        self._sources = sources
        self._presenter = presenter

    async def live(self, request: web.Request) -> web.Response:
        return html(render.live_page(viewer_of(request), await self._monitor.current()))

    async def find(self, request: web.Request) -> web.Response:
        """Redirect to the call with this RequestID, or to the calls with this number. Several sources may use a RequestID."""
        text = request.query.get("q", "").strip()
        rows = await self._lookup.find_by_ref(CallRef(text)) if is_call_ref(text) else ()
        if len(rows) > 1:
            return html(render.calls_page(viewer_of(request), CallsPage({}, rows, sources=[*self._sources.current])))
        raise web.HTTPSeeOther(call_url(rows[0].source, rows[0].call) if rows else search_url(text))

    async def calls(self, request: web.Request) -> web.Response:
        parameters = dict(request.query)
        query = read_query(parameters)
        if isinstance(query, dict):
            page = CallsPage(parameters, (), errors=query, sources=[*self._sources.current])
            return html(render.calls_page(viewer_of(request), page), status=400)
        query = query.model_copy(update={"limit": min(query.limit, _MAX_ROWS)})
        result = await self._lookup.find_at_least(query, 1)
        cursor = query.cursor_at(result.next) if result.next else None
        other = await self._other_state(query) if not result.rows and cursor is None else None
        page = CallsPage(
            parameters, result.rows, cursor, sources=[*self._sources.current], problem=result.problem, other_state=other
        )
        return html(render.calls_page(viewer_of(request), page))

    async def _other_state(self, query: CallQuery) -> str | None:
        """Return another state of which calls match, if the query has a state of which none does."""
        if query.state is None:
            return None
        other = "open" if query.state == "complete" else "complete"
        result = await self._lookup.find_at_least(query.model_copy(update={"state": other, "cursor": None, "limit": 1}), 1)
        return other if result.rows else None

    async def calls_csv(self, request: web.Request) -> web.Response:
        """Send the newest matching calls as a CSV file."""
        parameters = dict(request.query)
        query = read_query(parameters)
        if isinstance(query, dict):
            raise web.HTTPSeeOther(URL("/ui/calls").with_query(parameters))
        query = query.model_copy(update={"limit": render.CSV_ROWS})
        page = await self._lookup.find_at_least(query, render.CSV_ROWS)
        problem = page.problem or (_SEARCH_TOO_LARGE if page.next and len(page.rows) < render.CSV_ROWS else None)
        if problem:  # CSV has no field that could say that calls are missing
            return error_page(request, 503, "Request failed", problem)
        headers = {"Content-Disposition": 'attachment; filename="calls.csv"'}
        return web.Response(text=await write_csv_in_steps(page.rows), content_type=CSV, charset="utf-8", headers=headers)

    async def call(self, request: web.Request) -> web.Response:
        key = CallKey(SourceName(request.match_info["source"]), CallRef(request.match_info["call"]))
        detail, request_id = await asyncio.gather(self._lookup.detail(key), self._lookup.request_id_problem(key))
        if detail is None:
            return error_page(request, 404, "No such call", f"{key} was never received, or is no longer retained.")
        page = CallPage.of(detail.to_json(), utc_now(), request_id)
        shown = await self._presenter.present(request[IDENTITY].name, page.source, page.recordings[: render.MAX_RECORDINGS])
        page = replace(page, recordings=[*shown, *page.recordings[len(shown) :]])
        # The page of a large call takes long, and others must have their turn.
        return html(await asyncio.to_thread(render.call_page, viewer_of(request), page))

    async def adapter(self, request: web.Request) -> web.Response:
        """Help with adapter links: create one for a source, or explain a pasted one."""
        form = dict(await read_form(request)) if request.method == "POST" else {}
        source, public_url = request.query.get("source"), request.query.get("public_url")
        link, link_problem = self._link(source, public_url) if source and public_url else (None, None)
        pasted = str(form["link"]).strip() if form.get("link") else None
        page = AdapterPage([*self._sources.current], source, public_url, link, link_problem, pasted)
        if link and source:
            page = replace(page, previous_secrets=await self._previous_secrets(source))
        if pasted:
            page = replace(await asyncio.to_thread(self._explained, page, pasted), unreplaced=await self._unreplaced(pasted))
        return html(render.adapter_page(viewer_of(request), page))

    def _explained(self, page: AdapterPage, pasted: str) -> AdapterPage:
        """Explain a pasted link, or a callback: the link of a source as FocalScope called it, with values."""
        try:
            return replace(page, parsed=parse_link(pasted), secret_problem=secret_problem(pasted, self._sources.current))
        except ConfigError as error:
            source, link_problem = self._source_of(pasted), str(error)
            if source is None:
                return replace(page, pasted_problem=link_problem)
        try:
            callback = explain_callback(source.adapter, pasted.partition("?")[2])
            return replace(page, callback=callback, secret_problem=secret_problem(pasted, self._sources.current))
        except InvalidCallbackError as invalid:
            if "{{" in pasted:  # a link that lacks something, rather than a callback
                return replace(page, pasted_problem=link_problem)
            return replace(page, pasted_problem=f"As a callback of {source.name}: the {invalid}.")

    def _source_of(self, link: str) -> Source | None:
        """Return the source that a link names in its path."""
        name = link.partition("?")[0].rstrip("/").rpartition("/")[2]
        return self._sources.current.get(SourceName(name))

    async def _unreplaced(self, pasted: str) -> list[str]:
        """Describe the placeholders of a link's source that arrived unreplaced; of every source, if the link names none."""
        source = self._source_of(pasted)
        problems = await self._lookup.unreplaced(self._sources.current if source is None else {source.name: source})
        return [problem.detail for problem in problems]

    async def _previous_secrets(self, name: str) -> list[str]:
        """Describe the use of a previous secret by the source whose link is shown."""
        source = self._sources.current.get(SourceName(name))
        return [] if source is None else await self._lookup.previous_secrets({source.name: source})

    def _link(self, name: str, public_url: str) -> tuple[str | None, str | None]:
        sources = self._sources.current
        source = sources.get(SourceName(name))
        if source is None:
            return None, unknown_source_message(name, sources)
        if not public_url.startswith(("http://", "https://")):
            return None, "The public address is not a URL. Enter it with http:// or https://."
        return make_link(public_url, name, source.secret.get_secret_value() if source.secret else None), None
