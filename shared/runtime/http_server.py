"""An HTTP server with its own response to invalid HTTP. The response of aiohttp quotes the request and logs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDictProxy

from shared.log import NO_ACCESS_LOG, get_logger

log = get_logger(__name__)

_LINE_BYTES = 8190  # the library's own limit
_NOT_HTTP = "This is not a valid HTTP request."
_TOO_LONG = f"A request line or header is longer than {_LINE_BYTES} bytes."

_CONTINUE = "100-continue"

RequestFactory = Callable[
    [RawRequestMessage, StreamReader, RequestHandler, AbstractStreamWriter, "asyncio.Task[None]"], web.BaseRequest
]
Refuse = Callable[[int, str], web.Response]
"""Creates the response to invalid HTTP from a status and a message."""


class _Protocol(RequestHandler):
    refuse: Refuse

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status >= 500:  # noqa: PLR2004 - server errors quote nothing
            return super().handle_error(request, status, exc, message)
        log.info("http_request_rejected", error=type(exc).__name__)
        response = self.refuse(status, _TOO_LONG if isinstance(exc, LineTooLong) else _NOT_HTTP)
        response.force_close()
        return response


class _Server(web.Server):
    refuse: Refuse

    def __call__(self) -> RequestHandler:
        made = _Protocol(self, loop=self._loop, access_log=NO_ACCESS_LOG, max_line_size=_LINE_BYTES, max_field_size=_LINE_BYTES)
        made.refuse = self.refuse
        return made


class Runner(web.AppRunner):
    """Runs an application; `refuse` creates the response to invalid HTTP."""

    def __init__(self, app: web.Application, refuse: Refuse, *, shutdown_timeout_s: float) -> None:
        super().__init__(app, shutdown_timeout=shutdown_timeout_s)
        self._refuse = refuse

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(made.request_handler, request_factory=_without_unknown_expectations(made.request_factory))
        server.refuse = self._refuse
        return server


def _without_unknown_expectations(create: RequestFactory) -> RequestFactory:
    """Ignore expectations other than `100-continue` (RFC 9110, 10.1.1). The library's answer quotes them, and fails for some."""

    def create_request(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if message.headers.get("Expect", _CONTINUE).lower() != _CONTINUE:
            headers = message.headers.copy()
            headers.popall("Expect")
            message = message._replace(headers=CIMultiDictProxy(headers))
        return create(message, payload, protocol, writer, task)

    return create_request
