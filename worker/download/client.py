"""Downloading one recording: from a link to checked bytes in a file, or a reason why not.

The way of a try: ask for what is missing (RFC 9110: Range, If-Range), add what comes to the part, ask again where the
connection broke, and look at the whole only once every byte the server told of is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import hdrs
from yarl import URL

from shared.config.settings import Settings
from shared.config.sources import Source
from shared.crash_points import crash_point
from shared.domain.ids import SourceName
from shared.retention.recording_lock import NotBegunError
from worker.download.address_guard import REFUSED, socket_factory
from worker.download.failures import BY_STATUS, FetchError, Reason
from worker.download.http_ranges import continues, encoding_of, total_of, validator_of
from worker.download.inspection import PAGE, SNIFF_BYTES, Recording, examine, is_page
from worker.download.partial_file import Partial
from worker.download.targets import is_same_origin, redirect_target

_CONNECT_TIMEOUT_S = 10
_TURN_S = 60.0
# Longer, jobs of a slow host would keep those of others from their place.
_QUEUES_S = 2.0
_CHUNK_BYTES = 64 * 1024
_AUDIO_OR_PACKED = (b"RIFF", b"\x1f\x8b")
_REDIRECTS = 3
# A try goes on after every break that brought so much, so often after one that brought less, and starts anew so often after
# an answer that made no sense.
_PROGRESS_BYTES = 16 * 1024
_CONTINUATIONS = 20
_RESTARTS = 2
_OK, _PARTIAL, _RANGE_NOT_SATISFIABLE = 200, 206, 416


@dataclass(frozen=True, slots=True)
class Limits:
    """What a download may cost, and how slow it may be."""

    max_bytes: int
    stall_s: float
    min_bytes_per_second: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.recording_max_bytes, settings.recording_stall_seconds, settings.recording_min_bytes_per_second)


def turns_of(sources: Collection[Source]) -> dict[SourceName, asyncio.Semaphore]:
    """Give out the turns of each source. Sources whose origins are on one host share them, and the smallest number counts."""
    at_once: dict[str, int] = {}
    hosts = {source.name: URL(source.recording_origin or "").host or "" for source in sources}
    for source in sources:
        host = hosts[source.name]
        at_once[host] = min(source.recordings_at_once, at_once.get(host, source.recordings_at_once))
    turns = {host: asyncio.Semaphore(count) for host, count in at_once.items()}
    return {name: turns[host] for name, host in hosts.items()}


class Client:
    """The HTTP client of one source: its origin alone, so many downloads at a time, so many requests a second.

    No proxy, no cookies, no decompression that would hide the true size.
    """

    def __init__(self, source: Source, limits: Limits, turns: asyncio.Semaphore) -> None:
        """Prepare; `source` must have an origin for recordings. `turns` are those of the origin's host, see `turns_of`."""
        self._allowed = URL(source.recording_origin or "")
        self._limits = limits
        self._turns = turns
        self._pace = _Pace(source.recordings_per_second)
        self._networks = source.recording_networks
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=self._limits.stall_s)
        make_socket = socket_factory(self._allowed.host or "", self._networks)
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
    async def fetch(self, link: str, part: Partial, *, seen_bytes: int | None) -> AsyncIterator[Recording]:
        """Bring a part to its whole, and check that it is a recording; `seen_bytes` is how large it was the last time.

        Raises:
            NotBegunError: the origin's host has as many downloads at work as it may have, or is asked as often as it may be.
            FetchError: with the reason. The part keeps what can be resumed.
        """
        async with self._turn():
            await self._complete(link, part)
        try:
            recording = await asyncio.to_thread(examine, part, self._limits.max_bytes, seen_bytes)
        except FetchError:
            part.restart()
            raise
        with recording.file:
            yield recording

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_QUEUES_S):
                await self._turns.acquire()
        except TimeoutError:
            raise NotBegunError("other recordings of this host have their turn") from None
        try:
            if self._pace.delay_s > _TURN_S:
                raise NotBegunError("other recordings of this source have their turn")
            yield
        finally:
            self._turns.release()

    async def _complete(self, link: str, part: Partial) -> None:
        continuations, restarts = _CONTINUATIONS, _RESTARTS
        while True:
            before = part.size
            try:
                if await self._ask(link, part):
                    return
                restarts -= 1
            except FetchError as error:
                continuations -= part.size - before < _PROGRESS_BYTES
                can_resume = error.reason is Reason.INTERRUPTED and part.validator and part.size > before and continuations
                if not can_resume:
                    raise
            if restarts < 0:
                raise FetchError(Reason.UNEXPECTED_STATUS, "the server's answers about ranges contradict each other")

    async def _ask(self, link: str, part: Partial) -> bool:
        """Ask once; returns False where what had come is of no use and everything is to be asked for again."""
        session = self._session
        if session is None:
            raise RuntimeError("the client is not open")
        headers = {}
        if part.size and part.validator:
            headers = {hdrs.RANGE: f"bytes={part.size}-", hdrs.IF_RANGE: part.validator}
        try:
            for _ in range(_REDIRECTS + 1):
                await self._pace.wait()
                # A body may take as long as it needs; what comes before it, 1xx answers and drips included, may not.
                async with asyncio.timeout(_CONNECT_TIMEOUT_S + self._limits.stall_s):
                    answered = await session.get(self._checked(link), headers=headers, allow_redirects=False)
                async with answered as response:
                    location = response.headers.get(hdrs.LOCATION)
                    if location and 300 <= response.status < 400:  # noqa: PLR2004 - the class of redirects
                        link = redirect_target(str(self._allowed), link, location)
                        continue
                    return await self._take(response, part)
        except aiohttp.ClientConnectorError as error:
            refused = _are_all_refused(str(error.os_error))
            raise FetchError(
                Reason.ADDRESS_NOT_ALLOWED if refused else Reason.UNREACHABLE,
                "the origin's name leads to an address that is not allowed: is it in recording_networks?"
                if refused
                else type(error.os_error).__name__,
            ) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise FetchError(Reason.UNREACHABLE, f"no connection within {_CONNECT_TIMEOUT_S} s") from error
        except aiohttp.ServerTimeoutError as error:
            raise FetchError(Reason.STALLED, f"nothing came for {self._limits.stall_s:g} s") from error
        except TimeoutError as error:
            raise FetchError(Reason.STALLED, f"nothing of use came for {self._limits.stall_s:g} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            is_answered = part.size > 0 or isinstance(error, aiohttp.ClientResponseError)
            raise FetchError(Reason.INTERRUPTED if is_answered else Reason.UNREACHABLE, type(error).__name__) from error
        raise FetchError(Reason.TOO_MANY_REDIRECTS, f"more than {_REDIRECTS} redirects")

    def _checked(self, link: str) -> URL:
        """Read a link as the library will, so that nothing is understood in two ways."""
        try:
            url = URL(link)
        except ValueError as error:
            raise FetchError(Reason.ORIGIN_NOT_ALLOWED, "the link is no URL") from error
        if url.host is None or not is_same_origin(url, self._allowed):
            raise FetchError(Reason.ORIGIN_NOT_ALLOWED, f"only {self._allowed} may be asked for recordings")
        return url

    async def _take(self, response: aiohttp.ClientResponse, part: Partial) -> bool:
        status = response.status
        if status == _PARTIAL:
            if not continues(response.headers, part):
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
        await self._read(response, part)
        if part.total is not None and part.size < part.total:
            raise FetchError(Reason.INTERRUPTED, f"{part.size} of {part.total} bytes came")
        return True

    async def _read(self, response: aiohttp.ClientResponse, part: Partial) -> None:
        sniffer = _Sniffer(response.content_type) if part.size == 0 else None
        pace_from, pace_bytes = time.monotonic(), part.size
        pieces = response.content.iter_chunked(_CHUNK_BYTES)
        while True:
            async with asyncio.timeout(self._limits.stall_s):
                piece = await anext(pieces, b"")
            if not piece:
                break
            if sniffer:
                sniffer.look(piece)
            if part.size + len(piece) > self._limits.max_bytes:
                part.restart()
                raise FetchError(Reason.TOO_LARGE, f"more than {self._limits.max_bytes} bytes")
            part.append(piece)
            crash_point("recording.chunk")
            passed_s = time.monotonic() - pace_from
            if passed_s >= self._limits.stall_s:
                if part.size - pace_bytes < passed_s * self._limits.min_bytes_per_second:
                    raise FetchError(Reason.STALLED, f"{part.size - pace_bytes} bytes in {passed_s:.0f} s")
                pace_from, pace_bytes = time.monotonic(), part.size
        if sniffer:
            sniffer.end()


def _are_all_refused(failure: str) -> bool:
    """Tell whether every address of a name is forbidden; where one is not, and only gave no answer, it may give one later."""
    return all(REFUSED in one for one in failure.removeprefix("Multiple exceptions: ").split(", "))


class _Sniffer:
    """Tells a page from a recording by its first bytes, and by its type only where these are no recording's either."""

    def __init__(self, content_type: str) -> None:
        self._is_typed_page = content_type in {"text/html", "application/xhtml+xml"}
        self._head = b""

    def look(self, piece: bytes) -> None:
        if len(self._head) < SNIFF_BYTES:
            self._head += piece[: SNIFF_BYTES - len(self._head)]
            if is_page(self._head) or (len(self._head) == SNIFF_BYTES and not self._may_be_audio()):
                raise FetchError(Reason.LOGIN_PAGE, PAGE)

    def end(self) -> None:
        if not self._may_be_audio():
            raise FetchError(Reason.LOGIN_PAGE, PAGE)

    def _may_be_audio(self) -> bool:
        return not self._is_typed_page or self._head.startswith(_AUDIO_OR_PACKED)


class _Pace:
    """Begins no more than so many a second, evenly. Who waits has its turn, so that no more wait than have one."""

    def __init__(self, per_second: float) -> None:
        self._interval_s = 1 / per_second
        self._next = 0.0

    @property
    def delay_s(self) -> float:
        return max(0.0, self._next - time.monotonic())

    async def wait(self) -> None:
        now = time.monotonic()
        at, self._next = max(self._next, now), max(self._next, now) + self._interval_s
        await asyncio.sleep(at - now)
