"""Parameters, pages, and errors of the console's HTTP API: problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from console.validation import first_mistake

PROBLEM = "application/problem+json"

_Model = TypeVar("_Model", bound=BaseModel)


def problem(status: int, title: str, headers: Mapping[str, str] | None = None, **more: object) -> web.Response:
    """Write an error; `more` are members of its own."""
    body = orjson.dumps({"type": "about:blank", "status": status, "title": title} | more)
    return web.Response(status=status, body=body, content_type=PROBLEM, headers=headers)


def html(text: str, *, status: int = 200) -> web.Response:
    """Write a page."""
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")


def invalid(error: ValidationError, model: type[BaseModel], **more: object) -> web.Response:
    """Answer a request whose parameters are wrong."""
    name, sentence = first_mistake(error, model)
    return problem(400, sentence, None, parameter=name, **more)


def not_json(request: web.Request, **more: object) -> web.Response | None:
    """Refuse a body that does not say it is JSON; None where it does."""
    if request.content_type == "application/json":
        return None
    return problem(415, "Expected Content-Type: application/json.", None, parameter="Content-Type", **more)


def read_parameters(request: web.Request, model: type[_Model]) -> _Model:
    """Read the query of a request; a parameter that comes twice is wrong like any other.

    Raises:
        ValidationError: a parameter is unknown or wrong.
    """
    told: dict[str, object] = {}
    for name in request.query:
        values = request.query.getall(name)
        told[name] = values[0] if len(values) == 1 else values
    return model.model_validate(told)
