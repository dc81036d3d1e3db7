"""Posts events to one endpoint: one request for an attempt, with limits on time and size, and guarded addresses."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp import hdrs
from yarl import URL

from shared.config.endpoints import Endpoint
from shared.domain.cloud_event import CLOUDEVENT
from shared.tracing.contexts import TRACEPARENT
from shared.webhooks.attempts import ANSWER_BYTES
from shared.webhooks.signing import signed_headers, webhook_id
from worker.download.address_guard import REFUSED, AddressRefusedError, socket_factory
from worker.download.retry_after import retry_after
from worker.forwarding.consequence import Answer
from worker.forwarding.outgoing_event import OutgoingEvent

_MAX_BODY_BYTES: Final = 64 * 1024
_MAX_HEADER_BYTES: Final = 16 * 1024
# The status decides. The rest of an answer is awaited only for the record, and for a connection that can be used again.
_BODY_S: Final = 2.0
# Shorter than most servers allow (Node closes after 5 s), so that no request meets a connection that just ends.
_KEEP_ALIVE_S: Final = 3.0
_USER_AGENT: Final = "Callfold-Webhooks"


class Poster:
    """The HTTP client of one endpoint, with its own connections. It uses no proxy and no cookies, and follows no redirect."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._url = URL(endpoint.url.get_secret_value(), encoded=True)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        endpoint = self._endpoint
        connector = aiohttp.TCPConnector(
            socket_factory=socket_factory(self._url.host or "", endpoint.networks, trusts_literal=False),
            limit=endpoint.max_in_flight,
            keepalive_timeout=_KEEP_ALIVE_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: _USER_AGENT},
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, event: OutgoingEvent) -> Answer:
        """Make one attempt. Every failure of the endpoint or the network is an answer too."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._endpoint.timeout_s):
                return await self._request(event, began)
        except TimeoutError:
            problem = f"no answer within {self._endpoint.timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = _problem(error)
        return Answer(None, problem, time.monotonic() - began)

    async def _request(self, event: OutgoingEvent, began: float) -> Answer:
        if self._session is None:
            raise RuntimeError("the poster is not open")
        async with self._session.post(
            self._url, data=event.body, headers=self._headers(event), allow_redirects=False
        ) as response:
            left_s = self._endpoint.timeout_s - (time.monotonic() - began)
            body = await _first_bytes(response, within_s=min(_BODY_S, left_s / 2))
            return Answer(response.status, "", time.monotonic() - began, body, retry_after(response.headers))

    def _headers(self, event: OutgoingEvent) -> dict[str, str]:
        endpoint = self._endpoint
        return {
            **{name: value.get_secret_value() for name, value in endpoint.headers.items()},
            **signed_headers(endpoint.secrets, webhook_id(event.id), event.text, datetime.now(UTC)),
            **({TRACEPARENT: event.traceparent} if event.traceparent else {}),
            hdrs.CONTENT_TYPE: CLOUDEVENT,
        }


async def _first_bytes(response: aiohttp.ClientResponse, *, within_s: float) -> bytes:
    """Return the first bytes of the body. A body that is long, slow or broken is not awaited, and ends the connection."""
    first, received = b"", 0
    try:
        async with asyncio.timeout(within_s):
            while chunk := await response.content.read(_MAX_BODY_BYTES):
                first += chunk[: ANSWER_BYTES - len(first)]
                received += len(chunk)
                if received > _MAX_BODY_BYTES:
                    break
            else:
                return first
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass  # the status has arrived
    response.close()
    return first


# The first type that matches counts.
_PROBLEMS: Final[Sequence[tuple[tuple[type[Exception], ...], str]]] = (
    ((aiohttp.ClientConnectorCertificateError,), "the certificate of the server is not valid for it"),
    ((aiohttp.ClientConnectorDNSError,), "the name of the host is unknown"),
    ((aiohttp.ClientSSLError, ssl.SSLError), "no TLS connection"),
    ((aiohttp.ServerDisconnectedError,), "the server closed the connection without an answer"),
    ((aiohttp.ClientResponseError,), "the answer is not valid HTTP, or its headers are too long"),
)


def _problem(error: Exception) -> str:
    """Return why there is no answer, without quoting anything of the endpoint."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, AddressRefusedError) or REFUSED in str(cause):  # the latter for several addresses
        return "the address of the host is not allowed. Private networks must be listed in `networks`"
    for kinds, problem in _PROBLEMS:
        if isinstance(error, kinds):
            return problem
    return f"the connection failed ({type(cause).__name__})"
