"""One HTTP connection whose client can take neither endless time nor an endless body.

The library limits the time between two requests only. It waits without limit for a head, for a body, and for a client that reads
no response.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import cast

from aiohttp import web
from aiohttp.hdrs import CONTENT_TYPE
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from shared.log import NO_ACCESS_LOG
from shared.runtime.connections import Connections

MAX_BODY_BYTES = 64 * 1024
"""Maximum size of a request body on every port."""
HEADER_BYTES = 8190
"""Maximum size of one header on every port, its name included: the library's own limit. No line has the same limit."""
MAX_HEADERS = 128
"""Maximum number of headers of a request on every port: the library's own limit."""

_VERSIONS = (HttpVersion11, HttpVersion10)


class LimitedProtocol(RequestHandler):
    """Enforces the limits of `connections`."""

    def __init__(self, server: web.Server, connections: Connections, *, max_line_bytes: int) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=NO_ACCESS_LOG,
            keepalive_timeout=connections.limits.idle_s,
            lingering_time=0,  # `finish_response` reads the rest of a body instead, and not without end
            max_line_size=max_line_bytes,
            max_field_size=HEADER_BYTES,
            max_headers=MAX_HEADERS,
            auto_decompress=False,  # a small body could become a large one; bodies with an encoding are refused
        )
        self._connections = connections
        self._limits = connections.limits
        self._socket: asyncio.Transport | None = None
        self._body: StreamReader | None = None
        self._body_since = 0.0
        self._head_since: float | None = None
        self._unread_since: float | None = None
        self._closing_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast("asyncio.Transport", transport)
        # As much as this may arrive at once, from every client at the same time.
        self._socket.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MAX_BODY_BYTES)
        self._head_since = self._loop.time()
        if self._connections.admit(self):
            super().connection_made(transport)
        else:
            self._force_close = True
            self._socket.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            if not isinstance(self._messages[-1][0], RawRequestMessage):
                self._end_refused_body()
        else:
            self.head_began()

    def head_began(self) -> None:
        """Start the time limit of a head that is not complete yet."""
        if self._head_since is None and self.is_idle:
            self._head_since = self._loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since = self._loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since = None

    def request_began(self, payload: StreamReader) -> None:
        """Replace the time limit of the head by that of the body. `begin_request` calls this."""
        self._head_since = None
        self._request_in_progress = True  # the library sets it a moment later
        self._connections.used(self)
        if not payload.is_eof():
            self._body, self._body_since = payload, self._loop.time()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response. Of a body that is not read to its end, discard as much as a body may have.

        An immediate end of the connection could destroy the response before the client has read it.
        """
        body = self._body
        if body is None or body.is_eof() or body.exception() is not None:
            return await super().finish_response(request, resp, start_time)
        resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if not self.connected:  # there is nothing to discard
            return finished
        self._connections.lingers(self)
        with suppress(ConnectionError, TimeoutError, web.RequestPayloadError, web.HTTPRequestTimeout):
            async with asyncio.timeout(self._limits.linger_s):
                await self._discard(body)
        return finished

    async def _discard(self, body: StreamReader) -> None:
        left = MAX_BODY_BYTES
        while left > 0 and not body.is_eof():
            left -= len(await body.readany())
        if not body.is_eof():
            self.close()  # the library parses nothing more
            body.read_nowait()
            if self._socket is not None:
                self._socket.pause_reading()
            await body.wait_eof()

    @property
    def is_idle(self) -> bool:
        """Return whether it waits for a request."""
        return self._waiter is not None and not self._waiter.done()

    def drop(self) -> None:
        """Close it at once, whatever is still to be sent."""
        self.force_close()
        if self._socket is not None:
            self._socket.abort()

    def enforce_limits(self, now: float) -> str | None:
        """Close it if it has taken too long, and return for what."""
        if self._head_since is not None and not self._messages and now - self._head_since >= self._limits.head_s:
            self.drop()
            return "head"
        if self._unread_since is not None and now - self._unread_since >= self._limits.send_s:
            self.drop()
            return "response"
        if self._is_stuck_closing(now):
            self.drop()
            return "response"
        return self._enforce_body_limit(now)

    def _is_stuck_closing(self, now: float) -> bool:
        """Return whether a closed connection has still not sent its last response, because the client does not read it."""
        if self._socket is None or not self._socket.is_closing():
            return False
        if self._closing_since is None:
            self._closing_since = now
        return now - self._closing_since >= self._limits.send_s

    def _enforce_body_limit(self, now: float) -> str | None:
        body = self._body
        if body is None or now - self._body_since < self._limits.body_s:
            return None
        self._body = None
        if body.is_eof() or body.exception() is not None:
            return None
        if self._request_in_progress:
            self._end_body(body, web.HTTPRequestTimeout())
        else:
            self.drop()
        return "body"

    def _end_refused_body(self) -> None:
        """End the body in which the parser has found an error. The library would let its request wait for the rest."""
        is_waiting = len(self._messages) > 1
        body = self._messages[-2][1] if is_waiting else self._body
        if body is None or body.is_eof():
            return
        if is_waiting or self._request_in_progress:
            self._end_body(body, RequestPayloadError("the body is not valid"))
        else:  # the response is sent, and the rest of the body would be discarded
            self.force_close()

    def _end_body(self, body: StreamReader, error: Exception) -> None:
        """Let the request fail that reads a body. The connection closes after its response."""
        body.set_exception(error)


def media_type(request: web.BaseRequest) -> str:
    """Return the type of a body, '' without one. The library would read the parameters too, with any codec that they name."""
    return request.headers.get(CONTENT_TYPE, "").partition(";")[0].strip().lower()


def header_problem(error: BaseException | None) -> str | None:
    """Return what is wrong with the headers of a request that the parser refuses, as a sentence; None if it is another fault."""
    if isinstance(error, LineTooLong) and error.args[1] == HEADER_BYTES:
        return f"A header is longer than {HEADER_BYTES} bytes."
    if isinstance(error, BadHttpMessage) and "Too many headers" in error.message:
        return f"The request has more than {MAX_HEADERS} headers."
    return None


def begin_request(message: RawRequestMessage, payload: StreamReader, protocol: RequestHandler) -> RawRequestMessage:
    """Return the message of a request whose head is complete, as it is to be answered. Every request factory calls this.

    A request of another version is answered as HTTP/1.0. The parser accepts some, and the library would write theirs.
    """
    if isinstance(protocol, LimitedProtocol):
        protocol.request_began(payload)
    if message.version in _VERSIONS:
        return message
    return message._replace(version=HttpVersion10, should_close=True)
