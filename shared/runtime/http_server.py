"""An HTTP server with its own response to invalid HTTP. The response of aiohttp quotes the request and logs it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDictProxy

from shared.log import get_logger
from shared.runtime.connections import Connections
from shared.runtime.http_protocol import LimitedProtocol, begin_request, header_problem

log = get_logger(__name__)

_LINE_BYTES = 8192
_NOT_HTTP = "This is not a valid HTTP request."
_TOO_LONG = f"The request line is longer than {_LINE_BYTES} bytes."
_HEAD_END = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\bupgrade\b", re.IGNORECASE)
_MAX_PARTS = 64

_CONTINUE = "100-continue"

Refuse = Callable[[int, str], web.Response]
"""Creates the response to invalid HTTP from a status and a message."""


class _Protocol(LimitedProtocol):
    def __init__(self, server: web.Server, connections: Connections, refuse: Refuse) -> None:
        super().__init__(server, connections, max_line_bytes=_LINE_BYTES)
        self._refuse = refuse

    def data_received(self, data: bytes) -> None:
        """Parse the segment.

        The parser drops what follows a request with the header `Upgrade` in the same segment, so that is cut after each head.
        """
        if self._head_since is not None or _UPGRADE.search(data):
            at = 0
            for _ in range(_MAX_PARTS):
                end = data.find(_HEAD_END, at) + len(_HEAD_END)
                if end < len(_HEAD_END) or end == len(data):
                    break
                super().data_received(data[at:end])
                at = end
            data = data[at:]
        super().data_received(data)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        # A client that has left gets no response. Its traceback would only fill the log.
        if status >= 500 and not isinstance(exc, ConnectionError):  # noqa: PLR2004 - server errors quote nothing
            return super().handle_error(request, status, exc, message)
        log.info("http_request_rejected", error=type(exc).__name__)
        if problem := header_problem(exc):
            response = self._refuse(431, problem)
        else:
            response = self._refuse(414, _TOO_LONG) if isinstance(exc, LineTooLong) else self._refuse(status, _NOT_HTTP)
        response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, server: web.Server, connections: Connections, refuse: Refuse) -> None:
        super().__init__(server.request_handler, request_factory=self._create_request)
        self._application_request = server.request_factory
        self._limited_to = connections
        self._refuse = refuse

    def __call__(self) -> RequestHandler:
        return _Protocol(self, self._limited_to, self._refuse)

    def _create_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        message = begin_request(message, payload, protocol)
        if message.upgrade and payload is not EMPTY_PAYLOAD:  # what follows such a body may be lost
            message = message._replace(should_close=True)
        # Unknown expectations are ignored (RFC 9110, 10.1.1). The library's answer quotes them, and fails for some.
        if message.headers.get("Expect", _CONTINUE).lower() != _CONTINUE:
            headers = message.headers.copy()
            headers.popall("Expect")
            message = message._replace(headers=CIMultiDictProxy(headers))
        return self._application_request(message, payload, protocol, writer, task)


class Runner(web.AppRunner):
    """Runs an application; `refuse` creates the response to invalid HTTP."""

    def __init__(self, app: web.Application, refuse: Refuse, connections: Connections, *, shutdown_timeout_s: float) -> None:
        super().__init__(app, shutdown_timeout=shutdown_timeout_s)
        self._refuse = refuse
        self._connections = connections

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._connections, self._refuse)

    async def cleanup(self) -> None:
        """Stop the server, and the sweep of its connections."""
        await super().cleanup()
        self._connections.stop()
