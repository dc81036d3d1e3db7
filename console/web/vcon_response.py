"""A call as vCon: `GET /calls/{source}/{call}` with `Accept: application/vcon+json`."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from aiohttp import web

from console.lookup.lookup import Lookup
from console.lookup.published import NotPublishedError
from console.vcon.document import encode, vcon_of
from console.vcon.published_call import Publisher
from console.vcon.signing import Signer
from console.web.problems import problem
from console.web.range_requests import matches_etag
from shared.clock import utc_now
from shared.domain.ids import CallKey

VCON_TYPES = ("application/vcon+json", "application/vcon")
"""The name that consumers ask for, and the one that the draft registers."""
_DIGITS = 32
_CACHE = "private, no-cache"


@dataclass(frozen=True, slots=True)
class VconResponses:
    """Makes vCons of published calls, signed ones if there is a key."""

    lookup: Lookup
    publisher: Publisher
    signer: Signer | None = None

    async def respond(self, request: web.Request, key: CallKey, media: str, revision: int | None) -> web.Response:
        """Return the vCon of a revision, or 304 if the client has it."""
        try:
            call = await self.lookup.published(key, revision)
        except NotPublishedError as error:
            return problem(404, str(error), {"Vary": "Accept"})
        vcon = vcon_of(call, self.publisher)
        body = encode(vcon)
        etag = self._etag(body)
        headers = {"ETag": etag, "Cache-Control": _CACHE, "Vary": "Accept"}
        if matches_etag(request.headers.get("If-None-Match", ""), etag.removeprefix("W/")):
            return web.Response(status=304, headers=headers)
        if self.signer is not None:
            body = await asyncio.to_thread(self.signer.sign, vcon, utc_now())
        return web.Response(body=body, content_type=media, headers=headers)

    def _etag(self, body: bytes) -> str:
        """Identify the content. A signature has its own time, so of a signed vCon only the meaning is the same: a weak ETag."""
        digest = hashlib.sha256(body).hexdigest()[:_DIGITS]
        return f'"{digest}"' if self.signer is None else f'W/"{digest}-signed"'
