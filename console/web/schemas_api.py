"""`GET /schemas` and `GET /schemas/{name}/{file}`: the JSON Schemas of published messages."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from console.web.problems import problem
from shared.schemas.catalog import encoded, schemas

MEDIA = "application/schema+json"
NAME, FILE = r"[a-z0-9._-]{1,100}", r"v[0-9]{1,4}\.json"
_CACHED = {"Cache-Control": "private, max-age=300"}


async def list_schemas(_: web.Request) -> web.Response:
    """List the schemas with their paths below `/schemas/`."""
    known = await asyncio.to_thread(schemas)  # made at the first request
    rows = [
        {"path": path, "id": schema["$id"], "title": schema["title"], "description": schema["description"]}
        for path, schema in sorted(known.items())
    ]
    return web.json_response(body=orjson.dumps({"schemas": rows}))


async def get_schema(request: web.Request) -> web.Response:
    """Return one schema, or 404."""
    path = f"{request.match_info['name']}/{request.match_info['file']}"
    try:
        body = await asyncio.to_thread(encoded, path)
    except KeyError:
        return problem(404, f"Unknown schema {path}. GET /schemas lists all of them.")
    return web.Response(body=body, content_type=MEDIA, headers=_CACHED)
