"""Downloads one recording: from a URL to a checked file, or the reason of the failure.

An attempt requests what is missing of the partial download (RFC 9110: Range, If-Range) and appends what arrives. If the
connection breaks, it requests the rest. It checks the file once all bytes that the server announced have arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import hdrs
from yarl import URL

from shared.config.sources import Source
from shared.errors import NotBegunError
from worker.download.address_guard import REFUSED, socket_factory
from worker.download.allowed_paths import check_path
from worker.download.body import read_body
from worker.download.failures import BY_STATUS, FetchError, Reason
from worker.download.http_ranges import encoding_of, is_continuation, total_of, validator_of
from worker.download.inspection import Recording, RefusedError, examine
from worker.download.limits import Limits, RateLimit
from worker.download.partial_file import Partial
from worker.download.targets import is_same_origin, redirect_target

OnRefused = Callable[[RefusedError], Awaitable[None]]

_CONNECT_TIMEOUT_S = 10
# A job that would wait longer for the rate limit goes back to the broker.
_RATE_LIMIT_WAIT_S = 60.0
# With a longer wait, jobs of a slow host would keep jobs of other hosts from running.
_SLOT_WAIT_S = 2.0
_REDIRECTS = 3
# An attempt continues after any number of breaks that each brought this many bytes, and after this many that brought fewer.
_PROGRESS_BYTES = 16 * 1024
_CONTINUATIONS = 20
# It starts over this many times after contradictory responses.
_RESTARTS = 2
_OK, _PARTIAL, _RANGE_NOT_SATISFIABLE = 200, 206, 416


class Client:
    """The HTTP client of one source. It connects only to the source's origin, within its concurrency and rate limits.

    It uses no proxy and no cookies, and does not decompress, because that would hide the size of the response.
    """

    def __init__(self, source: Source, limits: Limits, slots: asyncio.Semaphore) -> None:
        """Prepare a client. `source` must have an origin for recordings. `slots`: see `slots_by_source`."""
        self._source = source
        self._origin = URL(source.recording_origin or "")
        self._limits = limits
        self._slots = slots
        self._rate_limit = RateLimit(source.recordings_per_second)
        self._networks = source.recording_networks
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=self._limits.stall_s)
        make_socket = socket_factory(self._origin.host or "", self._networks)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=make_socket, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            timeout=timeout,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def fetch(
        self,
        url: str,
        part: Partial,
        *,
        seen_bytes: int | None,
        seen_audio_bytes: int | None = None,
        on_refused: OnRefused | None = None,
    ) -> AsyncIterator[Recording]:
        """Complete a partial download, and check that it is a recording.

        `seen_bytes` and `seen_audio_bytes` describe the answer to the previous attempt, see `examine`. `on_refused` is awaited
        with a complete answer that is refused, before it is discarded.

        Raises:
            NotBegunError: no slot is free for this host, or the rate limit of the source is exhausted.
            FetchError: the download failed. The partial download keeps what can be resumed.
        """
        async with self._slot():
            await self._download(url, part)
        try:
            recording = await asyncio.to_thread(examine, part, self._limits.max_bytes, seen_bytes, seen_audio_bytes)
        except RefusedError as error:
            with error.content.file:
                if on_refused is not None:
                    await on_refused(error)
            part.restart()
            raise
        except FetchError:
            part.restart()
            raise
        with recording.file:
            yield recording

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_SLOT_WAIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise NotBegunError("download limit of this host reached") from None
        try:
            if self._rate_limit.delay_s > _RATE_LIMIT_WAIT_S:
                raise NotBegunError("request limit of this source reached")
            yield
        finally:
            self._slots.release()

    async def _download(self, url: str, part: Partial) -> None:
        """Repeat requests until the partial download is complete."""
        continuations, restarts = _CONTINUATIONS, _RESTARTS
        while True:
            before = part.size
            try:
                if await self._request(url, part):
                    return
                restarts -= 1
            except FetchError as error:
                continuations -= part.size - before < _PROGRESS_BYTES
                can_resume = error.reason is Reason.INTERRUPTED and part.validator and part.size > before and continuations
                if not can_resume:
                    raise
            if restarts < 0:
                raise FetchError(Reason.UNEXPECTED_STATUS, "the server's responses to range requests contradict each other")

    async def _request(self, url: str, part: Partial) -> bool:
        """Send one request and follow redirects. Return False if the partial download was discarded."""
        session = self._session
        if session is None:
            raise RuntimeError("the client is not open")
        headers = {}
        if part.size and part.validator:
            headers = {hdrs.RANGE: f"bytes={part.size}-", hdrs.IF_RANGE: part.validator}
        with self._failures(part):
            for _ in range(_REDIRECTS + 1):
                await self._rate_limit.wait()
                # Limits the time up to the body, even if 1xx responses or single bytes keep arriving. The body has other limits.
                async with asyncio.timeout(_CONNECT_TIMEOUT_S + self._limits.stall_s):
                    opened = await session.get(self._checked(url), headers=headers, allow_redirects=False)
                async with opened as response:
                    location = response.headers.get(hdrs.LOCATION)
                    if location and 300 <= response.status < 400:  # noqa: PLR2004 - the class of redirects
                        url = redirect_target(str(self._origin), url, location)
                        check_path(self._source, url, is_redirect=True)
                        continue
                    return await self._receive(response, part)
        raise FetchError(Reason.TOO_MANY_REDIRECTS, f"more than {_REDIRECTS} redirects")

    @contextmanager
    def _failures(self, part: Partial) -> Iterator[None]:
        """Convert errors of the connection to a `FetchError` with its reason."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            if _are_all_refused(str(error.os_error)):
                detail = "the origin's name resolves to addresses that are not allowed. Check recording_networks"
                raise FetchError(Reason.ADDRESS_NOT_ALLOWED, detail) from error
            raise FetchError(Reason.UNREACHABLE, type(error.os_error).__name__) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise FetchError(Reason.UNREACHABLE, f"no connection within {_CONNECT_TIMEOUT_S} s") from error
        except aiohttp.ServerTimeoutError as error:
            raise FetchError(Reason.STALLED, f"no data for {self._limits.stall_s:g} s") from error
        except TimeoutError as error:
            raise FetchError(Reason.STALLED, f"no usable data for {self._limits.stall_s:g} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            has_answered = part.size > 0 or isinstance(error, aiohttp.ClientResponseError)
            raise FetchError(Reason.INTERRUPTED if has_answered else Reason.UNREACHABLE, type(error).__name__) from error

    def _checked(self, url: str) -> URL:
        """Parse a URL as aiohttp does, so that the check and the request cannot disagree about its host."""
        try:
            parsed = URL(url)
        except ValueError as error:
            raise FetchError(Reason.ORIGIN_NOT_ALLOWED, "the link is not a URL") from error
        if parsed.host is None or not is_same_origin(parsed, self._origin):
            raise FetchError(Reason.ORIGIN_NOT_ALLOWED, f"recordings may only come from {self._origin}")
        return parsed

    async def _receive(self, response: aiohttp.ClientResponse, part: Partial) -> bool:
        """Append a response to the partial download. Return False if the two do not match and the download was discarded."""
        status = response.status
        if status == _PARTIAL:
            if not is_continuation(response.headers, part):
                part.restart()
                return False
        elif status == _RANGE_NOT_SATISFIABLE and part.size:
            if total_of(response.headers) == part.size and part.total in {None, part.size}:
                return True
            part.restart()
            return False
        elif status == _OK:
            part.restart(validator_of(response.headers), response.content_length, encoding_of(response.headers))
        else:
            raise FetchError(BY_STATUS.get(status, Reason.UNEXPECTED_STATUS), f"status {status}")
        await read_body(response, part, self._limits)
        if part.total is not None and part.size < part.total:
            raise FetchError(Reason.INTERRUPTED, f"{part.size} of {part.total} bytes arrived")
        return True


def _are_all_refused(failure: str) -> bool:
    """Return whether all addresses of a name are forbidden. An allowed one that did not respond may respond later."""
    return all(REFUSED in one for one in failure.removeprefix("Multiple exceptions: ").split(", "))
