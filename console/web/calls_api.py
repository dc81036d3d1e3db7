"""Looking up calls over HTTP: `GET /calls` as JSON or CSV, and everything about one call."""

from __future__ import annotations

import orjson
from aiohttp import web
from pydantic import ValidationError

from console.call_query import CallQuery
from console.lookup.csv_export import CSV, write_csv
from console.lookup.lookup import Lookup
from console.web.problems import invalid, problem, read_parameters
from shared.config.sources import unknown_source_message
from shared.domain.ids import CallKey, CallRef, SourceName


class CallsApi:
    """Answers what happened to calls."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def list(self, request: web.Request) -> web.Response:
        """Answer a page of calls, newest start first."""
        try:
            query = read_parameters(request, CallQuery)
        except ValidationError as error:
            return invalid(error, CallQuery)
        page = await self._lookup.find(query)
        if query.source is not None and not page.rows and not await self._lookup.knows(query.source):
            return problem(400, unknown_source_message(query.source, self._lookup.sources), parameter="source")
        following = query.cursor_at(page.next) if page.next else None
        if wants_csv(request):
            if page.problem:  # a file cannot tell that it is not whole
                return problem(503, page.problem, {"Retry-After": "5"})
            headers = {"Content-Disposition": 'attachment; filename="calls.csv"'} | _link(request, following)
            return web.Response(text=write_csv(page.rows), content_type=CSV, charset="utf-8", headers=headers)
        told = {"calls": [row.model_dump(mode="json") for row in page.rows], "next": following, "problem": page.problem}
        return web.json_response(body=orjson.dumps(told), headers=_link(request, following))

    async def get(self, request: web.Request) -> web.Response:
        """Answer everything about one call, or 404."""
        key = CallKey(SourceName(request.match_info["source"]), CallRef(request.match_info["call"]))
        detail = await self._lookup.detail(key)
        if detail is None:
            return problem(404, f"There is no call {key}: it was never seen, or is no longer kept.")
        return web.json_response(body=orjson.dumps(detail.told()))


def wants_csv(request: web.Request) -> bool:
    return CSV in request.headers.get("Accept", "")


def _link(request: web.Request, cursor: str | None) -> dict[str, str]:
    """Tell where the next page is (RFC 8288)."""
    if cursor is None:
        return {}
    return {"Link": f'<{request.rel_url.update_query(cursor=cursor)}>; rel="next"'}
