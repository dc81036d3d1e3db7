"""Downloading one recording: from a job to checked bytes in a temporary file, or a reason why not."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp

from shared.records import RecordingJob
from shared.sources import Source, origin
from worker.wav import Audio, InvalidWavError, read_audio

_CONNECT_TIMEOUT_S = 10
_STALL_TIMEOUT_S = 30
# Below the half hour after which the broker takes an unacked delivery back.
_DEADLINE_S = 600
_PER_HOST = 8
_CHUNK_BYTES = 64 * 1024
_SNIFF_BYTES = 64


class Reason(StrEnum):
    """Why there is no recording. Those in `FINAL` are not tried again."""

    NOT_READY = "not_ready"
    UNREACHABLE = "unreachable"
    NOT_ALLOWED = "not_allowed"
    HTML_PAGE = "html_page"
    NOT_A_RECORDING = "not_a_recording"
    UNEXPECTED_STATUS = "unexpected_status"
    TOO_LARGE = "too_large"
    REDIRECTED = "redirected"
    NO_RECORDING_LINK = "no_recording_link"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    UNKNOWN_SOURCE = "unknown_source"
    ARCHIVE_UNAVAILABLE = "archive_unavailable"


FINAL = frozenset(
    {
        Reason.TOO_LARGE,
        Reason.REDIRECTED,
        Reason.NO_RECORDING_LINK,
        Reason.ORIGIN_NOT_ALLOWED,
        Reason.UNKNOWN_SOURCE,
    }
)
_BY_STATUS: Mapping[int, Reason] = {
    202: Reason.NOT_READY,
    401: Reason.NOT_ALLOWED,
    403: Reason.NOT_ALLOWED,
    404: Reason.NOT_READY,
    425: Reason.NOT_READY,
    503: Reason.NOT_READY,
}


class FetchError(Exception):
    """A recording that could not be had this time; `detail` never holds a link's query."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole recording in a temporary file that is gone once it is closed."""

    file: BinaryIO
    bytes: int
    sha256: str
    audio: Audio


def recording_link(source: Source, job: RecordingJob) -> str:
    """Work out where a job's recording is: RecordingURL with the allowed origin, else the source's template.

    Raises:
        FetchError: there is neither, or the link would leave the allowed origin.
    """
    allowed = source.recording_origin
    if job.recording_url and allowed:
        ours = urlsplit(allowed)
        try:
            sent = urlsplit(job.recording_url)
        except ValueError as error:
            raise FetchError(Reason.NO_RECORDING_LINK, "the RecordingURL that was sent is no URL") from error
        return urlunsplit((ours.scheme, ours.netloc, sent.path, sent.query, ""))
    if source.recording_url is None or allowed is None:
        raise FetchError(Reason.NO_RECORDING_LINK, "set recording_origin or recording_url of the source")
    values = {"call_id": job.call_id, "guid": job.guid or "", "request_id": "" if job.request_id is None else job.request_id}
    link = source.recording_url.get_secret_value()
    for name, value in values.items():
        link = link.replace("{" + name + "}", quote(str(value), safe=""))
    if origin(link) != allowed:
        raise FetchError(Reason.ORIGIN_NOT_ALLOWED, f"only {allowed} may be asked for recordings")
    return link


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """Open the HTTP client of recordings: no proxy, no cookies, no decompression that would hide the true size."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_STALL_TIMEOUT_S)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit_per_host=_PER_HOST),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
        timeout=timeout,
    ) as session:
        yield session


@asynccontextmanager
async def fetch(session: aiohttp.ClientSession, link: str, *, max_bytes: int) -> AsyncIterator[Recording]:
    """Download and check a recording; its temporary file lives as long as the context.

    Raises:
        FetchError: with the reason.
    """
    with tempfile.TemporaryFile(prefix="callfold-") as file:  # has no name, so a killed process leaves nothing
        try:
            async with asyncio.timeout(_DEADLINE_S):
                size, digest = await _download(session, link, file, max_bytes)
        except TimeoutError as error:
            raise FetchError(Reason.UNREACHABLE, "the download stalled or took too long") from error
        except (aiohttp.ClientError, OSError) as error:
            raise FetchError(Reason.UNREACHABLE, type(error).__name__) from error
        try:
            audio = await asyncio.to_thread(read_audio, file, size)
        except InvalidWavError as error:
            raise FetchError(Reason.NOT_A_RECORDING, str(error)) from error
        file.seek(0)
        yield Recording(file, size, digest, audio)


async def _download(session: aiohttp.ClientSession, link: str, file: BinaryIO, max_bytes: int) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    async with session.get(link, allow_redirects=False) as response:
        _check_head(response)
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            if size == 0 and chunk[:_SNIFF_BYTES].lstrip()[:1] == b"<":
                raise FetchError(Reason.HTML_PAGE, "a page came instead of a recording: wrong or expired token?")
            size += len(chunk)
            if size > max_bytes:
                raise FetchError(Reason.TOO_LARGE, f"more than {max_bytes} bytes")
            digest.update(chunk)
            file.write(chunk)
        expected = response.content_length
    if size == 0:
        raise FetchError(Reason.NOT_READY, "an empty body")
    if expected is not None and expected != size:
        raise FetchError(Reason.NOT_A_RECORDING, f"{size} of {expected} bytes came")
    return size, digest.hexdigest()


def _check_head(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects
        raise FetchError(Reason.REDIRECTED, f"status {status}")
    if status != 200:  # noqa: PLR2004 - OK
        raise FetchError(_BY_STATUS.get(status, Reason.UNEXPECTED_STATUS), f"status {status}")
    if response.content_type in ("text/html", "application/xhtml+xml"):
        raise FetchError(Reason.HTML_PAGE, "a page came instead of a recording: wrong or expired token?")
