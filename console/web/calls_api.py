"""`GET /calls` as JSON or CSV, and `GET /calls/{source}/{call}` as JSON or vCon."""

from __future__ import annotations

import orjson
from aiohttp import web
from pydantic import ValidationError

from console.call_query import CallQuery
from console.lookup.csv_export import CSV, write_csv_in_steps
from console.lookup.lookup import Lookup
from console.web.models import CallDetailQuery
from console.web.negotiation import preferred
from console.web.parameters import read_parameters
from console.web.problems import invalid, problem
from console.web.vcon_response import VCON_TYPES, VconResponses
from shared.config.sources import unknown_source_message
from shared.domain.ids import CallKey, CallRef, SourceName

_JSON = "application/json"
_VARY = {"Vary": "Accept"}


class CallsApi:
    """Serves calls from Redis and the history."""

    def __init__(self, lookup: Lookup, vcons: VconResponses) -> None:
        self._lookup = lookup
        self._vcons = vcons

    async def list(self, request: web.Request) -> web.Response:
        """Return a page of calls, newest start first."""
        try:
            query = read_parameters(request, CallQuery)
        except ValidationError as error:
            return invalid(error, CallQuery)
        page = await self._lookup.find(query)
        if query.source is not None and not page.rows and not await self._lookup.knows(query.source):
            return problem(400, unknown_source_message(query.source, self._lookup.sources), parameter="source")
        cursor = query.cursor_at(page.next) if page.next else None
        if wants_csv(request):
            if page.problem:  # CSV has no field that could say that calls are missing
                return problem(503, page.problem, {"Retry-After": "5"})
            headers = {"Content-Disposition": 'attachment; filename="calls.csv"'} | _next_page_header(request, cursor)
            return web.Response(text=await write_csv_in_steps(page.rows), content_type=CSV, charset="utf-8", headers=headers)
        body = {"calls": [row.model_dump(mode="json") for row in page.rows], "next": cursor, "problem": page.problem}
        return web.json_response(body=orjson.dumps(body), headers=_next_page_header(request, cursor))

    async def get(self, request: web.Request) -> web.Response:
        """Return everything known about one call, or a vCon of a published revision; 404 if it is unknown."""
        key = CallKey(SourceName(request.match_info["source"]), CallRef(request.match_info["call"]))
        try:
            query = read_parameters(request, CallDetailQuery)
        except ValidationError as error:
            return invalid(error, CallDetailQuery)
        media = preferred(",".join(request.headers.getall("Accept", [])), (_JSON, *VCON_TYPES))
        if media is None:
            return problem(406, f"A call is available as {_JSON} and as {VCON_TYPES[0]}. Name one of them in Accept.", _VARY)
        if media != _JSON:
            return await self._vcons.respond(request, key, media, query.revision)
        if query.revision is not None:
            title = f"A single revision is available as vCon only. Send Accept: {VCON_TYPES[0]}, or leave the revision out."
            return problem(406, title, _VARY, parameter="revision")
        detail = await self._lookup.detail(key)
        if detail is None:
            return problem(404, f"Unknown call {key}: it was never received, or is no longer retained.", _VARY)
        return web.json_response(body=orjson.dumps(detail.to_json()), headers=_VARY)


def wants_csv(request: web.Request) -> bool:
    return CSV in request.headers.get("Accept", "")


def _next_page_header(request: web.Request, cursor: str | None) -> dict[str, str]:
    """Link to the next page (RFC 8288), if there is one."""
    if cursor is None:
        return {}
    return {"Link": f'<{request.rel_url.update_query(cursor=cursor)}>; rel="next"'}
