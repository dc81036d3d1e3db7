"""The console's HTTP server: the application's, and an answer to what is no HTTP request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from console.web.app import HEADERS
from console.web.problems import problem
from shared.health import listen
from shared.log import NO_ACCESS_LOG, get_logger
from shared.settings import Settings

log = get_logger(__name__)

# The library writes its version into the header where it is missing.
_HEADERS = {**HEADERS, "Cache-Control": "no-store", "Server": "callfold"}
_LINE_BYTES = 8190  # the library's own limit
_TOO_LONG = f"A request line, and each header, has at most {_LINE_BYTES} bytes."


class _Protocol(RequestHandler):
    """Answers what the HTTP parser refused. The library's own answer and log line quote the request."""

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status >= 500:  # noqa: PLR2004 - the class of server errors: these quote nothing
            return super().handle_error(request, status, exc, message)
        log.info("request_not_http", error=type(exc).__name__)
        title = _TOO_LONG if isinstance(exc, LineTooLong) else "This is not a valid HTTP request."
        response = problem(status, title, _HEADERS)
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, access_log=NO_ACCESS_LOG, max_line_size=_LINE_BYTES, max_field_size=_LINE_BYTES)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory)


@asynccontextmanager
async def serving(app: web.Application, settings: Settings) -> AsyncIterator[None]:
    """Serve the console. On exit stops accepting, then finishes what is in flight."""
    runner = _Runner(app, shutdown_timeout=settings.shutdown_timeout_seconds)
    await runner.setup()
    try:
        port = await listen(runner, (settings.console_host, settings.console_port), "CALLFOLD_CONSOLE_PORT")
        log.info("console_listening", host=settings.console_host, port=port)
        yield
    finally:
        await runner.cleanup()
