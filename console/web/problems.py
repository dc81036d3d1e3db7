"""Errors of the console's HTTP API as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from console.validation import first_mistake
from shared.runtime.http_protocol import media_type

PROBLEM = "application/problem+json"


def problem(status: int, title: str, headers: Mapping[str, str] | None = None, **members: object) -> web.Response:
    """Write problem details; `members` are added to the standard ones."""
    body = orjson.dumps({"type": "about:blank", "status": status, "title": title} | members)
    return web.Response(status=status, body=body, content_type=PROBLEM, headers=headers)


def invalid(error: ValidationError, model: type[BaseModel], **members: object) -> web.Response:
    """Reject a request with an invalid parameter."""
    name, sentence = first_mistake(error, model)
    return problem(400, sentence, None, parameter=name, **members)


def reject_unless_json(request: web.Request, **members: object) -> web.Response | None:
    """Reject a body whose Content-Type is not JSON; None if it is."""
    if media_type(request) == "application/json":
        return None
    title = "The Content-Type is not JSON. Send Content-Type: application/json."
    return problem(415, title, None, parameter="Content-Type", **members)
