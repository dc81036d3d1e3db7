"""The public HTTP server: aiohttp's low-level one, since there is one route and its errors must not quote requests."""

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

from ingress.callbacks import CallbackHandler, refuse, too_long
from ingress.request_lines import PARSER_BYTES, RequestLines
from shared.log import NO_ACCESS_LOG, get_logger
from shared.runtime.health import listen

log = get_logger(__name__)

# Longer than the idle time-out of the load balancer in front (60 s is common), so that the balancer closes first.
_KEEPALIVE_S = 75
# A connection that has not sent its first request by then is closed: the library would wait for ever. Later ones are bounded
# by the keep-alive time.
_FIRST_REQUEST_S = 5


class _Protocol(RequestHandler):
    """Answers what the HTTP parser refused. The library's own error page and log line quote the request, secret included."""

    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lines = RequestLines()
        super().connection_made(transport)
        self._silence = asyncio.get_running_loop().call_later(_FIRST_REQUEST_S, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.heard()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        ready = self._lines.feed(data)
        if ready or not data:  # the library calls this with nothing to go on with what it holds
            super().data_received(ready)

    def heard(self) -> None:
        """Note that a whole request has come."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        del request, message
        if isinstance(exc, LineTooLong):
            response = too_long()
        elif status < 500:  # noqa: PLR2004 - the class of client errors
            response = refuse(status, "Bad Request", "This is not a valid HTTP request.")
        else:
            log.error("request_failed", error=type(exc).__name__ if exc else None)
            response = refuse(status, "Internal Server Error", "The request failed; the log has more.")
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
        protocol.heard()
    if message.chunked:  # only the parser knows where the next request line begins
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
async def serving(door: CallbackHandler, host: str, port: int, *, shutdown_timeout_s: float) -> AsyncIterator[int]:
    """Serve callbacks; yields the port. On exit stops accepting, then finishes what is in flight."""
    runner = web.ServerRunner(_Server(door.answer, request_factory=_request), shutdown_timeout=shutdown_timeout_s)
    await runner.setup()
    try:
        got = await listen(runner, (host, port), "CALLFOLD_INGRESS_PORT")
        log.info("ingress_listening", host=host, port=got)
        yield got
    finally:
        await runner.cleanup()
