"""`openapi.json` (OpenAPI 3.1), made of the routes and of the types that validate their requests; ingress is described beside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from console.web.problems import PROBLEM
from console.web.routes import Answer, Header, Operation, Route

Json = dict[str, Any]  # an OpenAPI document is free-form JSON
_REF = "#/components/schemas/{model}"
_SAID_BESIDE = frozenset({"description", "title", "default"})
_SECURITY: list[Json] = [{"key": []}, {"session": []}]


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    status: int
    title: str = Field(description="A sentence.")
    parameter: str | None = Field(default=None, description="The parameter that is wrong.")


_REFUSED = Answer("A parameter is wrong; it is named.", Problem, (PROBLEM,))
_TOO_LARGE = Answer("The body is over 64 KiB.", Problem, (PROBLEM,))
RETRY_AFTER = {"Retry-After": "Seconds until it may go."}
_COMMON: Mapping[int, Answer] = {
    401: Answer("A key is needed.", Problem, (PROBLEM,), headers={"WWW-Authenticate": "`Bearer`."}),
    403: Answer("The key may not do this, or the request comes from another site.", Problem, (PROBLEM,)),
    503: Answer("A server that is needed is away.", Problem, (PROBLEM,), headers=RETRY_AFTER),
}


def document(routes: Iterable[Route]) -> Json:
    """Write the document."""
    described = [(route, route.operation) for route in routes if route.operation is not None]
    models = _models(operation for _, operation in described)
    _, schemas = models_json_schema(list(models.items()), ref_template=_REF)
    paths: Json = {}
    for route, operation in described:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, operation, schemas["$defs"])
    paths["/callbacks/{source}"] = _ingress()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Callfold",
            "version": version("callfold"),
            "summary": "One trustworthy record per call: dial, look up, watch.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "CALLFOLD_CONSOLE_KEY, or a viewer key."},
                "session": {"type": "apiKey", "in": "cookie", "name": "callfold_session", "description": "From the log-in form."},
            },
        },
    }


def _models(operations: Iterable[Operation]) -> Mapping[type[BaseModel], JsonSchemaMode]:
    """List the models: what is asked as it is validated, what is answered as it is written."""
    found: dict[type[BaseModel], JsonSchemaMode] = {Problem: "serialization"}
    for operation in operations:
        for asked in filter(None, (operation.query, operation.body)):
            found[asked] = "validation"
        for answer in operation.answers.values():
            if answer.model is not None:
                found[answer.model] = "serialization"
    return found


def _operation(route: Route, told: Operation, schemas: Mapping[str, Json]) -> Json:
    names = re.findall(r"\{(\w+)", route.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{told.path[name]}$"}}
        for name in names
    ]
    parameters += [
        {"name": name, "in": "header", "required": False, "description": header.description, "schema": _header(header)}
        for name, header in told.headers.items()
    ]
    if told.query is not None:
        parameters += _query(schemas[told.query.__name__])
    answers = {
        **told.answers,
        **({400: _REFUSED} if told.query or told.body else {}),
        **({413: _TOO_LARGE} if told.body else {}),
        **({} if route.is_public else _COMMON),
    }
    written: Json = {
        "summary": told.summary,
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z]+', '_', route.path).rstrip('_')}",
        "parameters": parameters,
        "responses": {str(status): _answer(answer) for status, answer in sorted(answers.items())},
        "security": [] if route.is_public else _SECURITY,
    }
    if told.body is not None:
        written["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(told.body)}}}
    return written


def _query(schema: Json) -> list[Json]:
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": told.get("description", ""),
            "schema": {key: value for key, value in _without_null(told).items() if key not in _SAID_BESIDE},
        }
        for name, told in schema["properties"].items()
    ]


def _without_null(told: Json) -> Json:
    """A parameter of a query is absent, never null."""
    kinds = [kind for kind in told.get("anyOf", ()) if kind.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else told


def _header(header: Header) -> Json:
    return {"type": "string"} | ({"pattern": header.pattern} if header.pattern else {})


def _answer(answer: Answer) -> Json:
    schema = _ref(answer.model) if answer.model else {}
    headers = [(name, text, True) for name, text in answer.headers.items()]
    headers += [(name, text, False) for name, text in answer.at_times.items()]
    written: Json = {"description": answer.description}
    if headers:
        written["headers"] = {
            name: {"description": text, "required": always, "schema": {"type": "string"}} for name, text, always in headers
        }
    if answer.media:
        written["content"] = {media: {"schema": schema} if schema and media.endswith("json") else {} for media in answer.media}
    return written


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _REF.format(model=model.__name__)}


def _ingress() -> Json:
    """Describe what FocalScope calls: on another server, with the parameters of the source's adapter link."""
    problems = {
        400: "A parameter cannot be understood; it is named, and the callback is kept as a dead letter.",
        401: "The secret (`token`) is wrong.",
        404: "There is no such source.",
        405: "Neither GET nor POST.",
        414: "The request line is over 8 KiB.",
        503: "Neither the broker nor the spool can take it.",
    }
    source = {"name": "source", "in": "path", "required": True, "schema": {"type": "string"}}
    answers: Json = {"200": {"description": "Durable: confirmed by the broker, or fsynced in the spool."}}
    answers |= {
        str(status): {"description": text, "content": {PROBLEM: {"schema": _ref(Problem)}}} for status, text in problems.items()
    }
    told = {"summary": "A callback of FocalScope (public, answered by ingress)", "parameters": [source], "responses": answers}
    servers = [{"url": "https://hooks.example.com", "description": "Ingress, behind a load balancer."}]
    return {
        "servers": servers,
        "get": told | {"operationId": "callback", "security": []},
        "post": told | {"operationId": "callback_post", "security": []},
    }
