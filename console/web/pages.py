"""The pages: what is asked for, looked up and written as HTML."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from pydantic import ValidationError
from yarl import URL

from console.call_query import CallQuery
from console.dead_letters.queue import Filter, Which
from console.dead_letters.settle import find
from console.live.monitor import Monitor
from console.lookup.csv_export import CSV, write_csv
from console.lookup.lookup import Lookup, Page
from console.page import render
from console.page.assets import ASSETS
from console.page.models import (
    AdapterPage,
    CallPage,
    CallsPage,
    DeadLetterRow,
    DeadLettersPage,
    ErrorPage,
    RedrivePage,
    Viewer,
)
from console.page.search_form import read_query
from console.page.urls import call_url, search_url
from console.web.access import WHO, read_form
from console.web.letters_api import LettersAction, LettersApi
from console.web.problems import html
from shared.amqp.topology import CALLBACKS_DEAD, RECORDINGS_DEAD
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.config.sources import Sources, unknown_source_message
from shared.domain.adapter_link import make_link, parse_link
from shared.domain.ids import CallKey, CallRef, SourceName, is_call_ref
from shared.errors import ConfigError

_SHOWN = 100
# So many looks at a few thousand calls each, before a person is asked whether to go on.
_LOOKS = 20
_TOO_MANY = (
    "There are too many calls to look through for one file. Choose a source or a shorter time, or use `callfold calls --csv`."
)
_DEPTHS = {Which.CALLBACKS: CALLBACKS_DEAD, Which.RECORDINGS: RECORDINGS_DEAD}


class Pages:
    """Everything a browser is shown."""

    def __init__(self, lookup: Lookup, monitor: Monitor, letters: LettersApi, settings: Settings, sources: Sources) -> None:
        self._lookup = lookup
        self._monitor = monitor
        self._letters = letters
        self._settings = settings
        self._sources = sources

    def viewer(self, request: web.Request) -> Viewer:
        identity = request[WHO]
        return Viewer(identity.who, identity.role, identity.csrf, can_log_out=identity.is_session)

    async def live(self, request: web.Request) -> web.Response:
        return html(render.live_page(self.viewer(request), await self._monitor.take()))

    async def find(self, request: web.Request) -> web.Response:
        """Lead to the call of that RequestID, or to the calls with such a number; several sources can have the RequestID."""
        wanted = request.query.get("q", "").strip()
        rows = await self._lookup.named(CallRef(wanted)) if is_call_ref(wanted) else ()
        if len(rows) > 1:
            return html(render.calls_page(self.viewer(request), CallsPage({}, rows, sources=[*self._sources])))
        raise web.HTTPSeeOther(call_url(rows[0].source, rows[0].call) if rows else search_url(wanted))

    async def calls(self, request: web.Request) -> web.Response:
        asked, query = self._asked(request)
        if isinstance(query, dict):
            page = CallsPage(asked, (), errors=query, sources=[*self._sources])
            return html(render.calls_page(self.viewer(request), page), status=400)
        found = await self._look_on(query, 1)
        next_cursor = query.cursor_at(found.next) if found.next else None
        page = CallsPage(asked, found.rows, next_cursor, sources=[*self._sources], problem=found.problem)
        return html(render.calls_page(self.viewer(request), page))

    async def calls_csv(self, request: web.Request) -> web.Response:
        """Send what the search finds as a file; at most the newest five hundred."""
        asked, query = self._asked(request)
        if isinstance(query, dict):
            raise web.HTTPSeeOther(URL("/ui/calls").with_query(asked))
        found = await self._look_on(query.model_copy(update={"limit": render.CSV_ROWS}), render.CSV_ROWS)
        problem = found.problem or (_TOO_MANY if found.next and len(found.rows) < render.CSV_ROWS else None)
        if problem:  # a file cannot tell that it is not whole
            return self.error(request, 503, "This did not work", problem)
        headers = {"Content-Disposition": 'attachment; filename="calls.csv"'}
        return web.Response(text=write_csv(found.rows), content_type=CSV, charset="utf-8", headers=headers)

    async def _look_on(self, query: CallQuery, wanted: int) -> Page:
        """Look until so many calls are found, or there are no more: one look goes through so many calls only."""
        page = await self._lookup.find(query)
        rows, problem = [*page.rows], page.problem
        for _ in range(_LOOKS):
            if len(rows) >= wanted or page.next is None:
                break
            rest = {"cursor": query.cursor_at(page.next), "limit": query.limit - len(rows)}
            page = await self._lookup.find(query.model_copy(update=rest))
            rows += page.rows
            problem = problem or page.problem
        return Page(rows, page.next, problem)

    def _asked(self, request: web.Request) -> tuple[dict[str, str], CallQuery | dict[str, str]]:
        asked = dict(request.query)
        return asked, read_query(asked)

    async def call(self, request: web.Request) -> web.Response:
        key = CallKey(SourceName(request.match_info["source"]), CallRef(request.match_info["call"]))
        detail = await self._lookup.detail(key)
        if detail is None:
            return self.error(request, 404, "No such call", f"{key} was never seen, or is no longer kept.")
        return html(render.call_page(self.viewer(request), CallPage.of(detail.told(), utc_now())))

    async def letters(self, request: web.Request) -> web.Response:
        which = _which(request.query.get("which"))
        reason, source = request.query.get("reason") or None, request.query.get("source") or None
        found, count = await find(self._settings, which, Filter((), reason, source), _SHOWN)
        rows = [DeadLetterRow(**told) for told in found]  # type: ignore[arg-type]  # as `Letter.told` describes it
        page = DeadLettersPage(
            which=which,
            dead_letters=rows,
            match_count=count,
            depths=await self._letter_depths(),
            reason=reason,
            source=source,
            reasons=sorted({row.reason for row in rows}),
            sources=sorted({name for row in rows for name in row.sources}),
            notice=_notice(request.query),
        )
        return html(render.dead_letters_page(self.viewer(request), page))

    async def _letter_depths(self) -> Mapping[Which, int | None]:
        depths = (await self._monitor.take()).depths
        return {which: depths[queue] for which, queue in _DEPTHS.items()}

    async def redrive(self, request: web.Request) -> web.Response:
        """Ask whether letters are to be put back."""
        which, ids = _which(request.query.get("which")), request.query.getall("id", [])
        if not ids:
            raise web.HTTPSeeOther(URL("/ui/dead-letters").with_query(which=which))
        found, _ = await find(self._settings, which, Filter(tuple(ids)), _SHOWN)
        rows = [DeadLetterRow(**told) for told in found]  # type: ignore[arg-type]  # as `Letter.told` describes it
        page = RedrivePage(which, rows, str(URL("/ui/dead-letters").with_query(which=which)))
        return html(render.redrive_page(self.viewer(request), page))

    async def redrive_now(self, request: web.Request) -> web.Response:
        """Put letters back, as confirmed on the page before."""
        form = await read_form(request)
        which, ids = _which(str(form.get("which", ""))), [str(value) for value in form.getall("id", [])]
        done = 0
        if ids:
            try:
                wanted = LettersAction(action="redrive", queue=which, ids=ids)
            except ValidationError:
                return self.error(request, 400, "This did not work", "These are no ids of dead letters.")
            done = (await self._letters.settle(wanted, request[WHO].who)).letters
        raise web.HTTPSeeOther(URL("/ui/dead-letters").with_query(which=which, redriven=done))

    async def adapter(self, request: web.Request) -> web.Response:
        """Help with adapter links: write one for a source, or say how a pasted one would be understood."""
        form = dict(await read_form(request)) if request.method == "POST" else {}
        source, public_url = request.query.get("source"), request.query.get("public_url")
        link, link_problem = self._link(source, public_url) if source and public_url else (None, None)
        pasted = str(form["link"]).strip() if form.get("link") else None
        understood, pasted_problem = None, None
        if pasted:
            try:
                understood = parse_link(pasted)
            except ConfigError as error:
                pasted_problem = str(error)
        page = AdapterPage([*self._sources], source, public_url, link, link_problem, pasted, understood, pasted_problem)
        return html(render.adapter_page(self.viewer(request), page))

    def _link(self, name: str, public_url: str) -> tuple[str | None, str | None]:
        source = self._sources.get(SourceName(name))
        if source is None:
            return None, unknown_source_message(name, self._sources)
        if not public_url.startswith(("http://", "https://")):
            return None, "The public address is not an http or https address."
        return make_link(public_url, name, source.secret.get_secret_value() if source.secret else None), None

    async def static(self, request: web.Request) -> web.Response:
        asset = ASSETS.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        is_named = request.query.get("v") == asset.fingerprint
        kept = "public, max-age=31536000, immutable" if is_named else "no-cache"
        return web.Response(body=asset.body, headers={"Content-Type": asset.content_type, "Cache-Control": kept})

    def error(self, request: web.Request, status: int, title: str, detail: str) -> web.Response:
        viewer = self.viewer(request) if WHO in request else None
        return html(render.error_page(viewer, ErrorPage(status, title, detail)), status=status)


def _which(text: str | None) -> Which:
    return Which.RECORDINGS if text == Which.RECORDINGS else Which.CALLBACKS


def _notice(query: Mapping[str, str]) -> str | None:
    done = query.get("redriven", "")
    return f"{int(done)} put back." if done.isdecimal() and len(done) < len("1000000") else None
