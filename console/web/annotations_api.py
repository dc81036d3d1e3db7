"""`POST /calls/{source}/{call}/annotations`."""

from __future__ import annotations

import orjson
from aiohttp import web

from console.annotations.annotate import KEY_HEADER, TOO_LARGE, AnnotationAnswer, Annotations, audited_annotation
from console.annotations.bodies import InvalidAnnotationError, parse_annotation
from console.web.keys import IDENTITY
from console.web.problems import problem, reject_unless_json
from shared.domain.annotation import MAX_BODY_BYTES
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.runtime.audit import Audit

_MAX_KEY_CHARACTERS = 255
_RETRY = {"Retry-After": "5"}


class AnnotationsApi:
    """Accepts annotations as JSON."""

    def __init__(self, annotations: Annotations, audit: Audit) -> None:
        self._annotations = annotations
        self._audit = audit

    async def post(self, request: web.Request) -> web.Response:
        """Return 202 with the id of the annotation once RabbitMQ has it."""
        refusal = reject_unless_json(request)
        if refusal is not None:
            return refusal
        key = request.headers.get(KEY_HEADER)
        if key is not None and not 0 < len(key) <= _MAX_KEY_CHARACTERS:
            title = f"The {KEY_HEADER} has {len(key)} characters. Send 1 to {_MAX_KEY_CHARACTERS}, or leave the header out."
            return problem(400, title, parameter=KEY_HEADER)
        body = await _read(request)
        if body is None:
            return problem(413, TOO_LARGE, parameter="request")
        try:
            new = parse_annotation(body)
        except InvalidAnnotationError as error:
            return problem(400, str(error), parameter=error.parameter)
        call = CallKey(SourceName(request.match_info["source"]), CallRef(request.match_info["call"]))
        who = request[IDENTITY].name
        return _response(await audited_annotation(self._annotations, self._audit, call, new, who, key or ""))


async def _read(request: web.Request) -> bytes | None:
    """Read the body of a request; None if it is too large. The application's own limit is smaller."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _response(answer: AnnotationAnswer) -> web.Response:
    if answer.annotation is None:
        members = {"parameter": answer.parameter} if answer.parameter else {}
        return problem(answer.status, answer.title, _RETRY if answer.status == 503 else None, **members)  # noqa: PLR2004 - a status
    return web.json_response(status=answer.status, body=orjson.dumps(answer.annotation))
