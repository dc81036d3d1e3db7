"""`POST /dial` over HTTP."""

from __future__ import annotations

import time

import orjson
from aiohttp import web
from pydantic import ValidationError

from console.dialing.focalscope import DialRequest, DialState
from console.dialing.service import Dials
from console.web.access import WHO
from console.web.problems import PROBLEM, invalid, not_json, problem
from shared.errors import mask
from shared.runtime.audit import Action, Audit
from shared.state.dials import MINUTE_S

_MAX_KEY_CHARACTERS = 255


class DialApi:
    """Takes dial requests as JSON."""

    def __init__(self, dials: Dials, audit: Audit) -> None:
        self._dials = dials
        self._audit = audit

    async def post(self, request: web.Request) -> web.Response:
        """Answer 201 with the RequestID, or a problem that says whether a phone may be ringing (`dial_state`)."""
        refusal = not_json(request, dial_state=DialState.REFUSED)
        if refusal is not None:
            return refusal
        try:
            wanted = DialRequest.model_validate_json(await request.read())
        except ValidationError as error:
            return invalid(error, DialRequest, dial_state=DialState.REFUSED)
        key = request.headers.get("Idempotency-Key", "")
        if "Idempotency-Key" in request.headers and not key:
            title = "The Idempotency-Key is empty: a repeat could not be told from another request."
            return problem(400, title, parameter="Idempotency-Key", dial_state=DialState.REFUSED)
        if len(key) > _MAX_KEY_CHARACTERS:
            return problem(400, "The Idempotency-Key is too long.", parameter="Idempotency-Key", dial_state=DialState.REFUSED)
        who = request[WHO].who
        answer = await self._dials.dial(wanted, who, key)
        request_id = answer.body.get("request_id")
        await self._audit.record(
            Action.DIAL,
            who,
            source=wanted.source,
            call=None if request_id is None else str(request_id),
            agent=wanted.agent,
            number=mask(wanted.number),
            status=answer.status,
            repeated=answer.is_repeated,
        )
        kind = PROBLEM if "title" in answer.body else "application/json"
        waits_s = {429: MINUTE_S - int(time.time()) % MINUTE_S, 503: 5}
        headers = {"Retry-After": str(waits_s[answer.status])} if answer.status in waits_s else None
        return web.Response(status=answer.status, body=orjson.dumps(answer.body), content_type=kind, headers=headers)
