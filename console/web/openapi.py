"""`openapi.json` (OpenAPI 3.1): generated from the routes and from the types that validate requests, plus ingress."""

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
_NOT_IN_PARAMETER_SCHEMA = frozenset({"description", "title", "default"})
_SECURITY: list[Json] = [{"key": []}, {"session": []}]


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    status: int
    title: str = Field(description="What failed and what to do, as a sentence.")
    parameter: str | None = Field(default=None, description="The invalid parameter.")


class CallbackProblem(BaseModel):
    """Problem details (RFC 9457) of ingress."""

    type: str = "about:blank"
    status: int
    title: str = Field(description="The kind of problem, in a few words.")
    detail: str = Field(description="What failed, as a sentence.")
    parameter: str | None = Field(default=None, description="The invalid parameter of a callback.")
    value: str | None = Field(default=None, description="The start of its value.")


_INVALID = Answer("A parameter is invalid; `parameter` names it.", Problem, (PROBLEM,))
_TOO_LARGE = Answer("The body is over 64 KiB.", Problem, (PROBLEM,))
_TOO_SLOW = Answer("The body did not arrive in time.", Problem, (PROBLEM,))
RETRY_AFTER = {"Retry-After": "Seconds after which to retry."}
_COMMON: Mapping[int, Answer] = {
    401: Answer("A key is required.", Problem, (PROBLEM,), headers={"WWW-Authenticate": "`Bearer`."}),
    403: Answer("The key does not allow this, or the request comes from another site.", Problem, (PROBLEM,)),
    429: Answer("Too many wrong keys came from this address.", Problem, (PROBLEM,), headers=RETRY_AFTER),
    503: Answer(
        "Redis, RabbitMQ, the archive or the history is unavailable, or the console is busy.",
        Problem,
        (PROBLEM,),
        headers=RETRY_AFTER,
    ),
}


def document(routes: Iterable[Route]) -> Json:
    """Build the document."""
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
            "summary": "One trustworthy record per call: dial, find calls, follow events.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "CALLFOLD_CONSOLE_KEY or a viewer key."},
                "session": {"type": "apiKey", "in": "cookie", "name": "callfold_session", "description": "From the log-in form."},
            },
        },
    }


def _models(operations: Iterable[Operation]) -> Mapping[type[BaseModel], JsonSchemaMode]:
    """List the models: those of requests as validated, those of answers as serialized."""
    models: dict[type[BaseModel], JsonSchemaMode] = {Problem: "serialization", CallbackProblem: "serialization"}
    for operation in operations:
        for model in filter(None, (operation.query, operation.body)):
            models[model] = "validation"
        for answer in operation.answers.values():
            if answer.model is not None:
                models[answer.model] = "serialization"
    return models


def _operation(route: Route, operation: Operation, schemas: Mapping[str, Json]) -> Json:
    names = re.findall(r"\{(\w+)", route.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{operation.path[name]}$"}}
        for name in names
    ]
    parameters += [
        {"name": name, "in": "header", "required": False, "description": header.description, "schema": _header(header)}
        for name, header in operation.headers.items()
    ]
    if operation.query is not None:
        parameters += _query(schemas[operation.query.__name__])
    answers = {
        **({} if route.is_public else _COMMON),
        **({400: _INVALID} if operation.query or operation.body else {}),
        **({408: _TOO_SLOW, 413: _TOO_LARGE} if operation.body else {}),
        **operation.answers,
    }
    described: Json = {
        "summary": operation.summary,
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z]+', '_', route.path).rstrip('_')}",
        "parameters": parameters,
        "responses": {str(status): _answer(answer) for status, answer in sorted(answers.items())},
        "security": [] if route.is_public else _SECURITY,
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(operation.body)}}}
    return described


def _query(schema: Json) -> list[Json]:
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": field.get("description", ""),
            "schema": {key: value for key, value in _without_null(field).items() if key not in _NOT_IN_PARAMETER_SCHEMA},
        }
        for name, field in schema["properties"].items()
    ]


def _without_null(field: Json) -> Json:
    """Drop the null alternative: an optional query parameter is absent, never null."""
    types = [alternative for alternative in field.get("anyOf", ()) if alternative.get("type") != "null"]
    return types[0] if len(types) == 1 else field


def _header(header: Header) -> Json:
    return {"type": "string"} | ({"pattern": header.pattern} if header.pattern else {})


def _answer(answer: Answer) -> Json:
    schema = _ref(answer.model) if answer.model else {}
    headers = [(name, text, True) for name, text in answer.headers.items()]
    headers += [(name, text, False) for name, text in answer.optional_headers.items()]
    described: Json = {"description": answer.description}
    if headers:
        described["headers"] = {
            name: {"description": text, "required": always, "schema": {"type": "string"}} for name, text, always in headers
        }
    if answer.media:
        described["content"] = {media: {"schema": schema} if schema and media.endswith("json") else {} for media in answer.media}
        described["content"] |= {media: {"schema": {"type": "object"}} for media in answer.others}
    return described


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _REF.format(model=model.__name__)}


_CALLBACK_PROBLEMS: Mapping[int, str] = {
    400: "A parameter is invalid; `parameter` names it, and the callback is dead-lettered. Or it is not valid HTTP or JSON.",
    401: "The secret (`token`) is missing or wrong.",
    404: "Unknown source.",
    405: "The method is neither GET nor POST.",
    414: "The request line is over 8 KiB.",
    429: "The source has used up its bytes per day, or its part of the waiting space; `detail` names the limit.",
    431: "A header is longer than 8190 bytes, or there are more than 128 headers.",
    503: "Neither RabbitMQ nor the spool can store the callback.",
}
_FORM_PROBLEMS: Mapping[int, str] = {
    408: "The body did not arrive in time.",
    413: "The body is over 64 KiB. With the right secret its beginning is dead-lettered.",
    415: "The body is no form, JSON or multipart form, or has a `Content-Encoding`. With the right secret it is dead-lettered.",
}
_CALLBACK_HEADERS: Mapping[int, Mapping[str, str]] = {
    405: {"Allow": "`GET, POST`."},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}


def _ingress() -> Json:
    """Describe the callbacks of FocalScope. Ingress serves them on another host, with the parameters of the adapter link."""
    servers = [{"url": "https://hooks.example.com", "description": "Ingress, behind a load balancer."}]
    return {
        "servers": servers,
        "get": _callback("callback", _CALLBACK_PROBLEMS),
        "post": _callback("callback_post", {**_CALLBACK_PROBLEMS, **_FORM_PROBLEMS}),
    }


def _callback(name: str, problems: Mapping[int, str]) -> Json:
    answers: Json = {"200": {"description": "Durable: RabbitMQ confirmed the callback, or the spool has synced it to disk."}}
    for status, text in sorted(problems.items()):
        answer = Answer(text, CallbackProblem, (PROBLEM,), headers=_CALLBACK_HEADERS.get(status, {}))
        answers[str(status)] = _answer(answer)
    return {
        "summary": "Receive a callback of FocalScope (public, served by ingress)",
        "operationId": name,
        "parameters": [{"name": "source", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": answers,
        "security": [],
    }
