"""Downloads one recording: from a URL to a checked file, or the reason of the failure.

An attempt requests what is missing of the partial download (RFC 9110: Range, If-Range) and appends what arrives. If the
connection breaks, it requests the rest. It checks the file once all bytes that the server announced have arrived.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import hdrs
from yarl import URL

from shared.config.sources import Source
from shared.domain.recording_reasons import Reason
from shared.errors import NotBegunError
from shared.tracing.conventions import STATUS, download_request
from shared.tracing.spans import active
from worker.download.address_guard import socket_factory
from worker.download.allowed_paths import check_path
from worker.download.body import ends_by_header, read_body
from worker.download.connection_failures import MAX_HEADER_BYTES, named_failures
from worker.download.failures import BY_STATUS, FetchError
from worker.download.http_ranges import is_content, is_ended_by_server, prepare
from worker.download.inspection import Recording, RefusedError, examine
from worker.download.lenient_responses import LenientResponseHandler
from worker.download.limits import Limits, RateLimit
from worker.download.partial_file import Partial
from worker.download.retry_after import Pauses, retry_after
from worker.download.targets import is_reachable, names_recording, redirect_target, shown_origin

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
# The announced end did not come, but the file may be whole.
_WITHOUT_END = frozenset({Reason.INTERRUPTED, Reason.STALLED})
_CLIENT_ERRORS = 400
_REDIRECT_STATUSES = range(300, 400)
# These ask every request to wait; "not ready" of another status is about one recording.
_OVERLOADED = frozenset({429, 503})
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)


class Client:
    """The HTTP client of one source. It connects only to the source's origin, within its concurrency and rate limits.

    It uses no proxy and no cookies, and does not decompress, because that would hide the size of the response.
    """

    def __init__(self, source: Source, limits: Limits, slots: asyncio.Semaphore) -> None:
        """Prepare a client. `source` must have an origin for recordings. `slots`: see `HostSlots`."""
        self._source = source
        self._origin = URL(source.recording_origin or "")
        self._limits = limits
        self._slots = slots
        self._rate_limit = RateLimit(source.recordings_per_second)
        self._pauses = Pauses()
        self._networks = source.recording_networks
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=self._limits.stall_s)
        make_socket = socket_factory(self._origin.host or "", self._networks)
        loop = asyncio.get_running_loop()
        connector = aiohttp.TCPConnector(socket_factory=make_socket, force_close=True)
        connector._factory = lambda: LenientResponseHandler(loop)  # type: ignore[assignment]  # noqa: SLF001 - aiohttp has no other way
        headers = {hdrs.ACCEPT_ENCODING: "identity"}
        if self._source.recording_login:
            login = self._source.recording_login.get_secret_value()
            headers[hdrs.AUTHORIZATION] = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
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
        names: Collection[str] = (),
        on_refused: OnRefused | None = None,
        is_continued: bool = False,
    ) -> AsyncIterator[Recording]:
        """Complete a partial download, and check that it is a recording.

        `seen_bytes` and `seen_audio_bytes` describe the answer to the previous attempt, see `examine`. `names` are the ids of the
        recording: where a redirect leads to a link without them, "not found" is no answer about it. `on_refused` is awaited with
        a complete answer that is refused, before it is discarded. `is_continued`: the attempt has already requested another
        link. Then it waits for the rate limit as a redirect does.

        Raises:
            NotBegunError: no slot is free for this host, the rate limit of the source is exhausted, or the PBX asked to wait.
            FetchError: the download failed. The partial download keeps what can be resumed.
        """
        interrupted: FetchError | None = None
        target = url
        async with self._slot(url, is_continued=is_continued):
            try:
                target = await self._download(url, part, names)
            except FetchError as error:
                if error.reason not in _WITHOUT_END or not part.size:
                    raise
                interrupted = error
        try:
            recording = await asyncio.to_thread(examine, part, self._limits.max_bytes, seen_bytes, seen_audio_bytes)
        except RefusedError as error:
            with error.content.file:
                if interrupted:
                    raise interrupted from error
                failure = _behind_redirect(error, url, target, names)
                if on_refused is not None and failure is error:
                    await on_refused(error)
            part.restart()
            if failure is error:
                raise
            raise failure from error
        except FetchError as error:
            if interrupted:
                raise interrupted from error
            part.restart()
            raise
        with recording.file:
            # A wrong Content-Length looks like an interruption, or a stall where the connection stays open. The length in the
            # header of the file says that it is whole.
            if interrupted and recording.audio.is_open_ended:
                raise interrupted
            yield recording

    @asynccontextmanager
    async def _slot(self, url: str, *, is_continued: bool) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_SLOT_WAIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise NotBegunError("download limit of this host reached") from None
        try:
            if wait_s := self._pauses.remaining_s(url):
                raise NotBegunError(f"the PBX asked to wait for another {wait_s:.0f} s", wait_s=wait_s)
            if self._rate_limit.delay_s > _RATE_LIMIT_WAIT_S and not is_continued:
                raise NotBegunError("request limit of this source reached")
            yield
        finally:
            self._slots.release()

    async def _download(self, url: str, part: Partial, names: Collection[str]) -> str:
        """Repeat requests until the partial download is complete. Return the link that answered, behind any redirects."""
        continuations, restarts = _CONTINUATIONS, _RESTARTS
        while True:
            before = part.size
            try:
                target = await self._request(url, part, names)
                if target is not None:
                    return target
                restarts -= 1
            except FetchError as error:
                continuations -= part.size - before < _PROGRESS_BYTES
                can_resume = error.reason is Reason.INTERRUPTED and part.validator and part.size > before and continuations
                if not can_resume or ends_by_header(part):
                    raise
            if restarts < 0:
                raise FetchError(Reason.UNEXPECTED_STATUS, "the server's responses to range requests contradict each other")

    async def _request(self, url: str, part: Partial, names: Collection[str]) -> str | None:
        """Send one request and follow redirects. Return the link that answered, None if the partial download was discarded."""
        headers: dict[str, str] = {}
        if part.size and part.validator:
            headers = {hdrs.RANGE: f"bytes={part.size}-", hdrs.IF_RANGE: part.validator}
        target = url
        with named_failures(part, connect_s=_CONNECT_TIMEOUT_S, stall_s=self._limits.stall_s):
            for resends in range(_REDIRECTS + 1):
                await self._rate_limit.wait()
                async with self._response(target, headers, resends=resends) as response:
                    location = response.headers.get(hdrs.LOCATION)
                    if location and response.status in _REDIRECT_STATUSES:
                        target = redirect_target(str(self._origin), target, location)
                        check_path(self._source, target, is_redirect=True)
                        continue
                    try:
                        return target if await self._receive(response, part, url) else None
                    except FetchError as error:
                        raise _behind_redirect(error, url, target, names) from error
        raise FetchError(Reason.TOO_MANY_REDIRECTS, f"more than {_REDIRECTS} redirects")

    @asynccontextmanager
    async def _response(self, url: str, headers: Mapping[str, str], *, resends: int) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, and record it and what is read of the response as a span, without its path and query."""
        origin = self._origin
        described = download_request(origin.scheme, origin.host or "", origin.port or 0, resends=resends)
        with active(described) as span:
            async with await self._open(url, headers) as response:
                if span is not None:
                    span.set(STATUS, response.status)
                    if response.status >= _CLIENT_ERRORS:
                        span.fail(str(response.status))
                yield response

    async def _open(self, url: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the client is not open")
        # Limits the time up to the body, even if 1xx responses or single bytes keep arriving. The body has other limits.
        async with asyncio.timeout(_CONNECT_TIMEOUT_S + self._limits.stall_s):
            return await self._session.get(self._checked(url), headers=headers, allow_redirects=False)

    def _checked(self, url: str) -> URL:
        """Parse a URL as aiohttp requests it, so that the check and the request cannot disagree about its host.

        It is not escaped again. A PBX may distinguish `%2F` from `/`, and a signature is of the exact bytes.
        """
        try:
            parsed = URL(url, encoded=True)
            is_allowed = is_reachable(parsed, self._origin) and parsed.raw_user is None
        except ValueError as error:
            raise FetchError(Reason.ORIGIN_NOT_ALLOWED, "the link is not a URL") from error
        if not is_allowed or not _PRINTABLE.fullmatch(url):
            raise FetchError(Reason.ORIGIN_NOT_ALLOWED, f"recordings may only come from {self._origin}")
        return parsed

    async def _receive(self, response: aiohttp.ClientResponse, part: Partial, url: str) -> bool:
        """Append a response to the partial download. Return False if the two do not match and the download was discarded."""
        if not is_content(response.status, part):
            raise self._refusal(response, url)
        is_done = prepare(response, part)
        if is_done is not None:
            return is_done
        await read_body(response, part, self._limits)
        if part.total is not None and part.size < part.total:
            raise FetchError(Reason.INTERRUPTED, f"{part.size} of {part.total} bytes arrived")
        if not part.size:
            if not is_ended_by_server(response.headers):
                raise FetchError(Reason.INTERRUPTED, "the connection ended before the first byte")
            raise FetchError(Reason.EMPTY, "the body is empty")
        return True

    def _refusal(self, response: aiohttp.ClientResponse, url: str) -> FetchError:
        """Return what a status means. If it comes with Retry-After, later requests wait."""
        reason = BY_STATUS.get(response.status, Reason.UNEXPECTED_STATUS)
        wait_s = retry_after(response.headers) if reason is Reason.NOT_READY else None
        if wait_s and response.status in _OVERLOADED:
            self._pauses.pause(wait_s)
        elif wait_s:
            self._pauses.pause_link(url, wait_s)
        return FetchError(reason, f"status {response.status}", retry_after_s=wait_s)


def _behind_redirect(error: FetchError, url: str, target: str, names: Collection[str]) -> FetchError:
    """Return what a failure means for the link that was asked. "Not found" at another path says nothing about the recording."""
    is_same = URL(url, encoded=True).raw_path_qs.rstrip("/") == URL(target, encoded=True).raw_path_qs.rstrip("/")
    if is_same or error.reason not in {Reason.NOT_FOUND, Reason.EMPTY} or names_recording(target, names):
        return error
    return FetchError(Reason.REDIRECTED, f"{error.detail}, after a redirect to another path at {shown_origin(target)}")
