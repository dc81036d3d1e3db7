"""The public HTTP server. It is aiohttp's low-level one: there is a single route, and error responses must quote no query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from ingress.accepted import ACCEPTED, accepted, accepted_bytes, is_usual
from ingress.request_lines import PARSER_BYTES, RequestLines
from shared.log import get_logger
from shared.runtime.connections import Connections, HttpLimits
from shared.runtime.health import listen
from shared.runtime.http_protocol import MAX_BODY_BYTES, LimitedProtocol, begin_request

log = get_logger(__name__)

# The idle time is longer than that of a load balancer in front (commonly 60 s), so that the load balancer closes first.
LIMITS = HttpLimits(idle_s=75)


class Handler(Protocol):
    """Answers requests."""

    def answer(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Answer one request."""

    def refuse_head(self, request: web.BaseRequest, status: int, error: BaseException | None) -> web.Response:
        """Refuse what the HTTP parser does not take."""


class _Protocol(LimitedProtocol):
    """Answers requests that the HTTP parser rejects: the library's error page and log line quote them, secret included."""

    def __init__(self, server: web.Server, connections: Connections, handler: Handler) -> None:
        super().__init__(server, connections, max_line_bytes=PARSER_BYTES)
        self._handler = handler
        self._lines = RequestLines()

    def data_received(self, data: bytes) -> None:
        ready = self._lines.feed(data)
        if ready or not data:  # the library passes no data to continue with its buffer
            super().data_received(ready)
        else:
            self.head_began()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if resp is not ACCEPTED:
            return await super().finish_response(request, resp, start_time)
        if not is_usual(request):
            return await super().finish_response(request, accepted(), start_time)
        # What the library does, for a response whose bytes are known. Its other steps are for forms that it parsed, and upgrades.
        try:
            await request.writer.write_eof(accepted_bytes())
        except ConnectionError:
            return resp, True
        return resp, False

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        del message
        if status >= 500:  # noqa: PLR2004 - the class of our own faults
            log.error("request_failed", error=type(exc).__name__ if exc else None)
        response = self._handler.refuse_head(request, status, exc)
        response.force_close()
        return response


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    message = begin_request(message, payload, protocol)
    # After a chunked body only the parser knows where the next request line begins. What follows an upgrade may be lost.
    if message.chunked or message.upgrade:
        message = message._replace(should_close=True)
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)


class _Server(web.Server):
    def __init__(self, handler: Handler, connections: Connections) -> None:
        super().__init__(handler.answer, request_factory=_request)
        self._limited_to = connections
        self._handler = handler

    def __call__(self) -> _Protocol:
        return _Protocol(self, self._limited_to, self._handler)


@asynccontextmanager
async def serving(
    handler: Handler,
    host: str,
    port: int,
    *,
    shutdown_timeout_s: float,
    max_connections: int,
    limits: HttpLimits = LIMITS,
) -> AsyncIterator[int]:
    """Serve callbacks; yields the port. On exit it stops accepting, then finishes requests in flight."""
    connections = Connections("public", max_connections, limits)
    runner = web.ServerRunner(_Server(handler, connections), shutdown_timeout=shutdown_timeout_s)
    await runner.setup()
    try:
        actual_port = await listen(runner, (host, port), "CALLFOLD_INGRESS_PORT")
        log.info("ingress_listening", host=host, port=actual_port, max_connections=max_connections)
        yield actual_port
    finally:
        await runner.cleanup()
        connections.stop()
