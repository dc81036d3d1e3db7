"""`POST /dial`."""

from __future__ import annotations

import orjson
from aiohttp import web
from pydantic import ValidationError

from console.dialing.dial_service import DialService, audited_dial
from console.dialing.focalscope import DialRequest, DialState
from console.web.keys import IDENTITY
from console.web.problems import PROBLEM, invalid, problem, reject_unless_json
from shared.runtime.audit import Audit

_KEY_HEADER = "Idempotency-Key"
_MAX_KEY_CHARACTERS = 255
_UNAVAILABLE, _RETRY_UNAVAILABLE_S = 503, 5


class DialApi:
    """Accepts dial requests as JSON."""

    def __init__(self, dials: DialService, audit: Audit) -> None:
        self._dials = dials
        self._audit = audit

    async def post(self, request: web.Request) -> web.Response:
        """Return 201 with the RequestID, or a problem whose `dial_state` says whether a phone may be ringing."""
        refusal = reject_unless_json(request, dial_state=DialState.REFUSED)
        if refusal is not None:
            return refusal
        try:
            dial_request = DialRequest.model_validate_json(await request.read())
        except ValidationError as error:
            return invalid(error, DialRequest, dial_state=DialState.REFUSED)
        refusal = _reject_wrong_key(request)
        if refusal is not None:
            return refusal
        key = request.headers.get(_KEY_HEADER, "")
        answer = await audited_dial(self._dials, self._audit, dial_request, request[IDENTITY].name, key)
        media_type = PROBLEM if "title" in answer.body else "application/json"
        retry_after_s = _RETRY_UNAVAILABLE_S if answer.status == _UNAVAILABLE else answer.retry_after_s
        headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        return web.Response(status=answer.status, body=orjson.dumps(answer.body), content_type=media_type, headers=headers)


def _reject_wrong_key(request: web.Request) -> web.Response | None:
    key = request.headers.get(_KEY_HEADER)
    if key is None or 0 < len(key) <= _MAX_KEY_CHARACTERS:
        return None
    title = f"The Idempotency-Key has {len(key)} characters. Send 1 to {_MAX_KEY_CHARACTERS}, or leave the header out."
    return problem(400, title, parameter=_KEY_HEADER, dial_state=DialState.REFUSED)
