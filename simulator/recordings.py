"""The recordings of the simulated FocalScope, with download faults on request."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from aiohttp import web

from simulator.audio import recording
from simulator.scenario import SECTOK

LOGIN_PAGE = "<!DOCTYPE html><html><head><title>FocalScope</title></head><body><form>Log in</form></body></html>"

_PIECE_BYTES = 4096
_DRIP_S = 0.02
_ENDLESS_PIECE = bytes(64 * 1024)


class Fault(StrEnum):
    """The faults of a recording. A fault that ends by itself lasts for `times` requests."""

    NONE = "none"
    NOT_FOUND = "not_found"
    NOT_READY = "not_ready"
    TRUNCATED = "truncated"
    DRIP = "drip"
    RESET = "reset"
    WRONG_CONTENT_RANGE = "wrong_content_range"
    CHANGED = "changed"
    IGNORES_RANGE = "ignores_range"
    GZIP = "gzip"
    LOGIN_PAGE = "login_page"
    ENDLESS = "endless"
    REDIRECT = "redirect"
    EMPTY = "empty"
    GROWING = "growing"
    HELD = "held"


@dataclass(slots=True)
class _Served:
    """A recording: its content, its earlier content (a PBX can rewrite a file), and its fault."""

    content: bytes
    earlier: bytes
    ready_at: float
    fault: Fault
    times: int
    requests: int = 0
    was_resumed: bool = False
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_faulty(self) -> bool:
        return self.requests <= self.times and not self.is_over.is_set()


class Recordings:
    """The download page. Its redirects lead to `elsewhere`."""

    def __init__(self, elsewhere: str = "http://169.254.169.254/latest/meta-data/") -> None:
        self._elsewhere = elsewhere
        self._served: dict[str, _Served] = {}
        self.counters: Counter[str] = Counter()

    def add(self, call_id: str, seconds: float, *, ready_in_s: float = 0.0, fault: Fault = Fault.NONE, times: int = 1) -> None:
        """Add the recording of a call. It has its fault for `times` requests."""
        content = recording(call_id, seconds)
        earlier = recording(str(int(call_id) + 1), seconds) if fault is Fault.CHANGED else b""
        self._served[call_id] = _Served(content, earlier, time.monotonic() + ready_in_s, fault, times)

    def add_file(self, call_id: str, content: bytes) -> None:
        """Add a recording with any content."""
        self._served[call_id] = _Served(content, b"", time.monotonic(), Fault.NONE, times=0)

    def fingerprint(self, call_id: str) -> tuple[int, str]:
        """Return size in bytes and SHA-256 of a recording."""
        content = self._served[call_id].content
        return len(content), hashlib.sha256(content).hexdigest()

    def end_fault(self, call_id: str) -> None:
        """End the fault of a recording. Held responses are cut off, later requests get the whole recording."""
        self._served[call_id].is_over.set()

    def was_resumed(self, call_id: str) -> bool:
        """Return whether a request got only the rest of a recording."""
        return self._served[call_id].was_resumed

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request for a recording."""
        if request.query.get("sectok") != SECTOK:
            return web.Response(text=LOGIN_PAGE, content_type="text/html")
        served = self._served.get(request.query.get("nId", ""))
        if served is None or time.monotonic() < served.ready_at:
            self.counters["recording_not_ready"] += 1
            return web.Response(status=404, text="no such recording")
        served.requests += 1
        self.counters[served.fault] += 1
        response = _whole_response(served, self._elsewhere)
        return response or await _stream(request, served)


def _whole_response(served: _Served, elsewhere: str) -> web.Response | None:
    """Return the response of a fault that needs no streaming; None for all others."""
    if not served.is_faulty:
        return None
    answers: dict[Fault, Callable[[], web.Response]] = {
        Fault.NOT_FOUND: lambda: web.Response(status=404, text="no such recording"),
        Fault.NOT_READY: lambda: web.Response(status=503),
        Fault.LOGIN_PAGE: lambda: web.Response(text=LOGIN_PAGE, content_type="audio/wav"),
        Fault.REDIRECT: lambda: web.Response(status=302, headers={"Location": elsewhere}),
        Fault.EMPTY: lambda: web.Response(content_type="audio/wav"),
        Fault.TRUNCATED: lambda: web.Response(body=_beginning(served), content_type="audio/wav"),
        Fault.GROWING: lambda: web.Response(body=_beginning(served), content_type="audio/wav"),
        Fault.GZIP: lambda: web.Response(
            body=gzip.compress(served.content), content_type="audio/wav", headers={"Content-Encoding": "gzip"}
        ),
    }
    answer = answers.get(served.fault)
    return answer() if answer else None


def _beginning(served: _Served) -> bytes:
    """Return the beginning of a recording: longer with each request if it is still being written, else half of it."""
    parts = served.times + 1 if served.fault is Fault.GROWING else 2
    return served.content[: len(served.content) * min(served.requests, parts - 1) // parts]


async def _stream(request: web.Request, served: _Served) -> web.StreamResponse:
    """Send the recording or the requested rest in pieces, up to where its fault cuts it off."""
    is_old = served.fault is Fault.CHANGED and served.is_faulty
    content = served.earlier if is_old else served.content
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    start = 0 if served.fault is Fault.IGNORES_RANGE else _range_start(request, tag, len(content))
    headers: Mapping[str, str] = {"ETag": tag, "Content-Type": "audio/wav"}
    response = web.StreamResponse(status=206 if start else 200, headers=headers)
    if start:
        served.was_resumed = True
        shift = 7 if served.fault is Fault.WRONG_CONTENT_RANGE else 0
        response.headers["Content-Range"] = f"bytes {start - shift}-{len(content) - 1 - shift}/{len(content)}"
    if served.fault is Fault.ENDLESS:
        return await _endless(request, response, content)
    response.content_length = len(content) - start
    await response.prepare(request)
    breaks = {Fault.RESET, Fault.CHANGED, Fault.WRONG_CONTENT_RANGE, Fault.IGNORES_RANGE, Fault.HELD}
    stop_at = (start + len(content)) // 2 if served.is_faulty and served.fault in breaks else len(content)
    for first in range(start, stop_at, _PIECE_BYTES):
        await response.write(content[first : min(first + _PIECE_BYTES, stop_at)])
        if served.fault is Fault.DRIP and served.is_faulty:
            await asyncio.sleep(_DRIP_S)
    if served.fault is Fault.HELD and stop_at < len(content):
        await served.is_over.wait()
    if stop_at < len(content) and request.transport is not None:
        # The transport sends what was written, then closes without the rest.
        request.transport.close()
    return response


def _range_start(request: web.Request, tag: str, size: int) -> int:
    """Return the first requested byte (RFC 9110, 14.2 and 13.1.5); 0 if the whole recording is requested."""
    requested = request.headers.get("Range", "")
    if not requested.startswith("bytes=") or request.headers.get("If-Range", tag) != tag:
        return 0
    start = int(requested.removeprefix("bytes=").partition("-")[0] or 0)
    return start if start < size else 0


async def _endless(request: web.Request, response: web.StreamResponse, content: bytes) -> web.StreamResponse:
    await response.prepare(request)
    await response.write(content)
    with suppress(ConnectionError):  # the client has closed the connection
        while True:
            await response.write(_ENDLESS_PIECE)
    return response
