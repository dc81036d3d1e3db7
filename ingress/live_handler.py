"""Answers each request by the sources in force when it arrives. A request that has begun keeps them."""

from __future__ import annotations

from collections.abc import Awaitable

from aiohttp import web

from ingress.callbacks import CallbackHandler
from shared.config.live_sources import Derived


class LiveHandler:
    """Passes each request to the handler of the sources in force (implements `ingress.server.Handler`)."""

    def __init__(self, handlers: Derived[CallbackHandler]) -> None:
        self._handlers = handlers

    def answer(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Answer one request; the answer is 200 only if the callback is durable."""
        return self._handlers.current.answer(request)

    def refuse_head(self, request: web.BaseRequest, status: int, error: BaseException | None) -> web.Response:
        """Refuse what the HTTP parser does not take."""
        return self._handlers.current.refuse_head(request, status, error)
