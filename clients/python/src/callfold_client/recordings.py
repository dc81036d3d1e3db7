"""Recordings, fetched from the console: resumed, checked against the event's SHA-256, and complete or not there at all."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from callfold_client.errors import RecordingError
from callfold_client.events import Event, Recording

_CHUNK_BYTES = 256 << 10
_ANSWER_TIMEOUT_S = 30.0
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_MAX_PAUSE_S = 60.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_ID = re.compile(r"[^/]+/(?P<call>.+)/recording/(?P<name>[^/]+)/stored(?:/.*)?")
_TOTAL = re.compile(r"bytes (\d{1,18})-\d+/\d+")
_ERRORS = {401: "the console refuses the key", 403: "the key may not read recordings", 404: "the console has no such recording"}


class _RetryError(Exception):
    """The same request may succeed later."""

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class _Download:
    """One recording to fetch. The key is sent to the console only, and is in no text."""

    url: str
    key: str = field(repr=False)
    sha256: str | None
    to: Path
    tls: ssl.SSLContext | None
    deadline: float
    is_cancelled: threading.Event

    @property
    def part(self) -> Path:
        return self.to.with_name(self.to.name + ".part")


def fetch_recording_sync(
    event: Event,
    console_url: str,
    key: str,
    *,
    to: str | PathLike[str],
    timeout_s: float = 900.0,
    tls: ssl.SSLContext | None = None,
) -> Path:
    """Fetch the recording of a `callfold.recording.stored` event through the console; returns its path.

    A part that an earlier attempt left next to it is resumed. The file appears under its name once it is complete and checked.

    Args:
        event: the event.
        console_url: base URL of the console.
        key: a key of the console; a viewer key is enough.
        to: path of the file.
        timeout_s: limit for all attempts together.
        tls: with a private certificate authority, the context that trusts it.

    Raises:
        RecordingError: the event has no recording, or the console does not send it.
    """
    return _fetch(_download_of(event, console_url, key, to=to, timeout_s=timeout_s, tls=tls))


async def fetch_recording(
    event: Event,
    console_url: str,
    key: str,
    *,
    to: str | PathLike[str],
    timeout_s: float = 900.0,
    tls: ssl.SSLContext | None = None,
) -> Path:
    """Fetch a recording as `fetch_recording_sync` does, in a thread."""
    download = _download_of(event, console_url, key, to=to, timeout_s=timeout_s, tls=tls)
    try:
        return await asyncio.to_thread(_fetch, download)
    finally:
        download.is_cancelled.set()


def _download_of(
    event: Event, console_url: str, key: str, *, to: str | PathLike[str], timeout_s: float, tls: ssl.SSLContext | None
) -> _Download:
    identified = _ID.fullmatch(event.id)
    if not isinstance(event.data, Recording) or identified is None or not event.type.startswith("callfold.recording.stored."):
        raise RecordingError(f"The event {event.id} has no stored recording. Subscribe to recording.stored.#.")
    base = urlsplit(console_url)
    if base.scheme not in {"http", "https"} or not base.hostname or base.username is not None or base.query or base.fragment:
        raise RecordingError("The URL of the console is not valid. It has the form https://calls.example.com, without a key.")
    if not key or not key.isascii() or not key.isprintable():
        raise RecordingError("The key of the console is empty, or has characters that no key has.")
    source, name, call = (quote(part, safe="") for part in (event.data.source, identified["name"], identified["call"]))
    url = f"{console_url.rstrip('/')}/recordings/{source}/{name}?call={call}"
    return _Download(url, key, event.data.sha256, Path(to), tls, time.monotonic() + timeout_s, threading.Event())


def _fetch(download: _Download) -> Path:
    if download.sha256 is None:
        download.part.unlink(missing_ok=True)  # nothing shows whether it is a part of the same recording
    failures = 0
    while True:
        try:
            _attempt(download)
            digest = _sha256(download.part)
            if download.sha256 is not None and digest != download.sha256:
                download.part.unlink()
                raise _RetryError("what the console sent has another SHA-256 than the event")  # noqa: TRY301
            download.part.replace(download.to)
        except _RetryError as error:
            failures += 1
            _wait(download, error, failures)
        else:
            return download.to


def _wait(download: _Download, error: _RetryError, failures: int) -> None:
    if failures > len(_PAUSES_S):
        raise RecordingError(f"The recording was not fetched in {failures} attempts: {error}.") from None
    pause_s = min(max(error.wait_s, _PAUSES_S[failures - 1]), _MAX_PAUSE_S)
    if time.monotonic() + pause_s > download.deadline:
        raise RecordingError(f"The recording was not fetched in time: {error}.") from None
    if download.is_cancelled.wait(pause_s):
        raise RecordingError("The recording was not fetched: it was cancelled.")


def _attempt(download: _Download) -> None:
    """Fetch what is missing of the part.

    Raises:
        RecordingError: the console refuses, now and later.
        _RetryError: another attempt may succeed.
    """
    size = download.part.stat().st_size if download.part.exists() else 0
    headers = {"Authorization": f"Bearer {download.key}", "Accept-Encoding": "identity"}
    if size:
        # The tag of a recording is its SHA-256. If it is another one, the console sends all of it.
        headers |= {"Range": f"bytes={size}-", "If-Range": f'"{download.sha256}"'}
    request = urllib.request.Request(download.url, headers=headers)  # noqa: S310 - the scheme was checked
    opener = urllib.request.build_opener(_NoRedirects(), urllib.request.HTTPSHandler(context=download.tls))
    try:
        with _network():
            response = opener.open(request, timeout=_ANSWER_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            _refused(download, error)
        return
    with response:
        begin = _begin(response)
        if begin not in {0, size}:
            raise _RetryError("the console sent another range than the one that is missing")
        with download.part.open("r+b" if begin else "wb") as file:
            file.seek(begin)
            _copy(download, response, file)


@contextmanager
def _network() -> Iterator[None]:
    """Guard a use of the connection. An error of the local disk is none of the network."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _RetryError(f"the connection to the console failed ({type(error).__name__})") from None


def _begin(response: http.client.HTTPResponse) -> int:
    """Return the position of the first byte of an answer."""
    if response.status == http.HTTPStatus.OK:
        return 0
    content_range = _TOTAL.fullmatch(response.headers.get("Content-Range", ""))
    if response.status != http.HTTPStatus.PARTIAL_CONTENT or content_range is None:
        raise RecordingError(f"The console answered with the status {response.status}.")
    return int(content_range[1])


def _copy(download: _Download, response: http.client.HTTPResponse, file: BinaryIO) -> None:
    while True:
        if download.is_cancelled.is_set():
            raise RecordingError("The recording was not fetched: it was cancelled.")
        if time.monotonic() > download.deadline:
            raise RecordingError("The recording was not fetched in time. The next attempt resumes it.")
        with _network():
            chunk = response.read1(_CHUNK_BYTES)
        if not chunk:
            break
        file.write(chunk)
    if response.length:
        raise _RetryError("the connection to the console ended too early")
    file.flush()
    os.fsync(file.fileno())


def _refused(download: _Download, error: urllib.error.HTTPError) -> None:
    """Decide what follows from a status; returns if the part is complete."""
    status = error.code
    if status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        if download.part.exists() and download.sha256 == _sha256(download.part):
            return
        download.part.unlink(missing_ok=True)
        raise _RetryError("the part is no part of this recording")
    if status in _RETRIED:
        wait = error.headers.get("Retry-After", "")
        raise _RetryError(f"the console answered with the status {status}", float(wait) if wait.isdecimal() else 0.0)
    if http.HTTPStatus.MULTIPLE_CHOICES <= status < http.HTTPStatus.BAD_REQUEST:
        raise RecordingError(
            f"The console redirects ({status}). The key is not sent elsewhere. Use the final URL of the console."
        )
    reason = _ERRORS.get(status, f"the console answered with the status {status}")
    raise RecordingError(f"The recording was not fetched: {reason}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for the console only."""

    def redirect_request(self, *_: object) -> None:
        return None
