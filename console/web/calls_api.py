"""Looking up calls over HTTP: `GET /calls` as JSON or CSV, and everything about one call."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

import orjson
from aiohttp import web
from pydantic import ValidationError

from console.calls import CallQuery, CallRow
from console.lookup import Lookup
from console.web.problems import invalid, problem, read_parameters
from shared.ids import CallKey, CallRef, SourceName
from shared.sources import no_such_source

CSV = "text/csv"
_COLUMNS = tuple(name for name, field in CallRow.model_fields.items() if not field.exclude)
# What a spreadsheet would take for a formula, also behind blanks and quotes, in full width too; a number with its sign is none.
_SIGNS = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(rf"[\t\r\n]|[\s'\"]*{_SIGNS}")
# Where lists are separated by semicolons or tabs, a cell begins there, and the quotes around the value do not count.
_INNER_FORMULA = re.compile(rf"([;\t\r\n])(?=(?:[^\S\t\r\n]|['\"])*{_SIGNS})")
_SIGNED_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?")


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
            return problem(400, no_such_source(query.source, self._lookup.sources), parameter="source")
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


def write_csv(rows: Sequence[CallRow]) -> str:
    """Write calls as CSV (RFC 4180), safe to open in a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(_COLUMNS)
    for row in rows:
        told = row.model_dump(mode="json")
        writer.writerow([_cell(told[name]) for name in _COLUMNS])
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    text = str(value)
    told = _INNER_FORMULA.sub(r"\1'", text)
    return f"'{told}" if _FORMULA.match(text) and not _SIGNED_NUMBER.fullmatch(text) else told
