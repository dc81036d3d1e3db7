"""The public HTTP server. It is aiohttp's low-level one: there is a single route, and error responses must not quote requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from ingress.callbacks import CallbackHandler, reject, too_long
from ingress.request_lines import PARSER_BYTES, RequestLines
from shared.log import NO_ACCESS_LOG, get_logger
from shared.runtime.health import listen

log = get_logger(__name__)

# Longer than the idle timeout of a load balancer in front (commonly 60 s), so that the load balancer closes first.
_KEEPALIVE_S = 75
# Limit for the first request of a connection, for which the library has none. The keep-alive time limits later ones.
_FIRST_REQUEST_S = 5


class _Protocol(RequestHandler):
    """Answers requests that the HTTP parser rejects: the library's error page and log line quote them, secret included."""

    _first_request_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lines = RequestLines()
        super().connection_made(transport)
        self._first_request_timer = asyncio.get_running_loop().call_later(_FIRST_REQUEST_S, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.stop_first_request_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        ready = self._lines.feed(data)
        if ready or not data:  # the library passes no data to continue with its buffer
            super().data_received(ready)

    def stop_first_request_timer(self) -> None:
        """Stop the timer: the first request has arrived, or the connection is lost."""
        if self._first_request_timer is not None:
            self._first_request_timer.cancel()
            self._first_request_timer = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        del request, message
        if isinstance(exc, LineTooLong):
            response = too_long()
        elif status < 500:  # noqa: PLR2004 - the class of client errors
            response = reject(status, "Bad Request", "This is not a valid HTTP request.")
        else:
            log.error("request_failed", error=type(exc).__name__ if exc else None)
            response = reject(status, "Internal Server Error", "The request failed. See the log of ingress.")
        response.force_close()
        return response


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    if isinstance(protocol, _Protocol):
        protocol.stop_first_request_timer()
    if message.chunked:  # after a chunked body only the parser knows where the next request line begins
        message = message._replace(should_close=True)
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop())


class _Server(web.Server):
    def __call__(self) -> _Protocol:
        return _Protocol(
            self,
            loop=self._loop,
            access_log=NO_ACCESS_LOG,
            keepalive_timeout=_KEEPALIVE_S,
            max_line_size=PARSER_BYTES,
            auto_decompress=False,
        )


@asynccontextmanager
async def serving(handler: CallbackHandler, host: str, port: int, *, shutdown_timeout_s: float) -> AsyncIterator[int]:
    """Serve callbacks; yields the port. On exit it stops accepting, then finishes requests in flight."""
    runner = web.ServerRunner(_Server(handler.answer, request_factory=_request), shutdown_timeout=shutdown_timeout_s)
    await runner.setup()
    try:
        actual_port = await listen(runner, (host, port), "CALLFOLD_INGRESS_PORT")
        log.info("ingress_listening", host=host, port=actual_port)
        yield actual_port
    finally:
        await runner.cleanup()
