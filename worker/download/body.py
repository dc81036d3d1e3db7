"""Reads the body of a response into the partial download, within the limits of size and speed. Stops early at a web page."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import aiohttp

from shared.crash_points import crash_point
from shared.domain.recording_reasons import Reason
from worker.download.content_encoding import may_be_compressed
from worker.download.failures import FetchError
from worker.download.lenient_responses import take_unread
from worker.download.limits import Limits
from worker.download.partial_file import Partial
from worker.download.sniffing import PAGE, SNIFF_BYTES, is_page, is_text, starts_like_audio
from worker.download.wav_check import has_declared_size

_CHUNK_BYTES = 64 * 1024


async def read_body(response: aiohttp.ClientResponse, part: Partial, limits: Limits) -> None:
    """Append the body of a response to the partial download.

    Raises:
        FetchError: the body is too large, too slow, or a web page.
        TimeoutError: no data arrived for `stall_s`.
    """
    sniffer = _Sniffer(response.content_type, part.encoding) if part.size == 0 else None
    measured_from, measured_bytes = time.monotonic(), part.size
    pieces = _pieces(response.content)
    while True:
        async with asyncio.timeout(limits.stall_s):
            piece = await anext(pieces, b"")
        if not piece:
            break
        if sniffer:
            sniffer.feed(piece)
        if part.size + len(piece) > limits.max_bytes:
            part.restart()
            raise FetchError(Reason.TOO_LARGE, f"more than {limits.max_bytes} bytes (CALLFOLD_RECORDING_MAX_BYTES)")
        part.append(piece)
        crash_point("recording.chunk")
        passed_s = time.monotonic() - measured_from
        if passed_s >= limits.stall_s:
            if part.size - measured_bytes < passed_s * limits.min_bytes_per_second:
                raise FetchError(Reason.STALLED, f"only {part.size - measured_bytes} bytes in {passed_s:.0f} s")
            measured_from, measured_bytes = time.monotonic(), part.size
    if sniffer:
        sniffer.end()


async def _pieces(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield what arrives of a body, also what had arrived when it failed: whether it was read by then is a matter of time."""
    try:
        async for piece in content.iter_chunked(_CHUNK_BYTES):
            yield piece
    except aiohttp.ClientError:
        if unread := take_unread(content):
            yield unread
        raise


def ends_by_header(part: Partial) -> bool:
    """Return whether a WAV file has all bytes that its header counts, whatever length the server announced."""
    is_whole = has_declared_size(part.file, part.size)
    part.file.seek(0, os.SEEK_END)
    return is_whole


class _Sniffer:
    """Detects a web page by its first bytes. The content type only counts if these may be those of a text."""

    def __init__(self, content_type: str, encoding: str) -> None:
        self._encoding = encoding
        self._is_typed_page = content_type in {"text/html", "application/xhtml+xml"}
        self._head = b""

    def feed(self, piece: bytes) -> None:
        if len(self._head) < SNIFF_BYTES:
            self._head += piece[: SNIFF_BYTES - len(self._head)]
            if is_page(self._head) or (len(self._head) == SNIFF_BYTES and not self._may_be_audio()):
                raise FetchError(Reason.LOGIN_PAGE, PAGE)

    def end(self) -> None:
        if not self._may_be_audio():
            raise FetchError(Reason.LOGIN_PAGE, PAGE)

    def _may_be_audio(self) -> bool:
        if not self._is_typed_page or starts_like_audio(self._head) or may_be_compressed(self._head, self._encoding):
            return True
        return not is_text(self._head)
