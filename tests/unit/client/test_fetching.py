"""Recordings fetched through a console that resets, redirects, is busy, or sends other bytes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest

from callfold_client import Event, RecordingError, fetch_recording, fetch_recording_sync, parse_event, recordings
from tests.helpers.history import call_event, recording_event

AUDIO = bytes(range(256)) * 40
SHA256 = hashlib.sha256(AUDIO).hexdigest()
KEY = "k-open-sesame"
Answer = Callable[[BaseHTTPRequestHandler], None]


def _event(sha256: str | None = SHA256) -> Event:
    return parse_event(orjson.dumps(recording_event(513, "stored", bytes=len(AUDIO), sha256=sha256)))


class _Console:
    """Answers each request with the next of its answers; the last one repeats."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._answers = [*answers]

    @contextmanager
    def serving(self) -> Iterator[str]:
        console = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                console.requests.append((self.path, dict(self.headers)))
                (console._answers.pop(0) if len(console._answers) > 1 else console._answers[0])(self)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _audio(sent: int | None = None, audio: bytes = AUDIO) -> Answer:
    """Answer as the console does; with `sent`, the connection ends after so many bytes."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        tag, begin = f'"{SHA256}"', 0
        if request.headers.get("Range") and request.headers.get("If-Range") == tag:
            begin = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if begin >= len(audio):
            request.send_response(416)
            request.end_headers()
            return
        request.send_response(206 if begin else 200)
        if begin:
            request.send_header("Content-Range", f"bytes {begin}-{len(audio) - 1}/{len(audio)}")
        request.send_header("Content-Length", str(len(audio) - begin))
        request.send_header("ETag", tag)
        request.end_headers()
        request.wfile.write(audio[begin:][:sent])

    return answer


def _status(status: int, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()

    return answer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "_PAUSES_S", (0.01, 0.01, 0.01))


async def test_a_recording_is_fetched_by_its_name_with_the_key(tmp_path: Path) -> None:
    console = _Console(_audio())
    with console.serving() as url:
        path = await fetch_recording(_event(), url + "/", KEY, to=tmp_path / "a.wav")
    assert path.read_bytes() == AUDIO
    ((target, headers),) = console.requests
    assert target == "/recordings/acme/guid-1?call=513"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert [each.name for each in tmp_path.iterdir()] == ["a.wav"]


def test_a_connection_that_ends_early_is_resumed_where_it_ended(tmp_path: Path) -> None:
    console = _Console(_audio(1000), _status(503, Retry_After="0"), _audio(500), _audio())
    with console.serving() as url:
        assert fetch_recording_sync(_event(), url, KEY, to=tmp_path / "a.wav").read_bytes() == AUDIO
    assert [headers.get("Range") for _, headers in console.requests] == [None, "bytes=1000-", "bytes=1000-", "bytes=1500-"]


@pytest.mark.parametrize(("part", "requests"), [(AUDIO[:100], 1), (AUDIO, 1), (b"other" * 20, 2), (AUDIO + b"more", 2)])
def test_a_part_of_an_earlier_attempt_is_used_if_it_fits(tmp_path: Path, part: bytes, requests: int) -> None:
    (tmp_path / "a.wav.part").write_bytes(part)
    console = _Console(_audio())
    with console.serving() as url:
        assert fetch_recording_sync(_event(), url, KEY, to=tmp_path / "a.wav").read_bytes() == AUDIO
    assert len(console.requests) == requests


def test_other_bytes_than_those_of_the_event_never_get_the_name_of_the_file(tmp_path: Path) -> None:
    console = _Console(_audio(audio=AUDIO[::-1]))
    with console.serving() as url, pytest.raises(RecordingError, match="another SHA-256 than the event"):
        fetch_recording_sync(_event(), url, KEY, to=tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (_status(302, Location="http://127.0.0.1:1/"), "redirects .302.. The key is not sent elsewhere"),
        (_status(401), "refuses the key"),
        (_status(404), "no such recording"),
        (_status(418), "status 418"),
        (_status(204), "status 204"),
        (_status(503), "in 4 attempts: the console answered with the status 503"),
        (_status(416), "in 4 attempts: the part is no part of this recording"),
        (_status(206, Content_Range="bytes 5-9/10"), "in 4 attempts: the console sent another range"),
        (_status(206, Content_Range=f"bytes {'9' * 5000}-9/10"), "status 206"),
    ],
)
def test_a_refusal_is_an_error_without_the_key(
    tmp_path: Path, answer: Answer, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with _Console(answer).serving() as url, pytest.raises(RecordingError, match=problem) as raised:
        fetch_recording_sync(_event(), url, KEY, to=tmp_path / "a.wav")
    assert KEY not in str(raised.value) + caplog.text
    assert not (tmp_path / "a.wav").exists()


def test_the_time_limit_counts_for_all_attempts(tmp_path: Path) -> None:
    with _Console(_status(429, Retry_After="50")).serving() as url, pytest.raises(RecordingError, match="not fetched in time"):
        fetch_recording_sync(_event(), url, KEY, to=tmp_path / "a.wav", timeout_s=5)


async def test_a_cancelled_fetch_ends_its_thread(tmp_path: Path) -> None:
    console = _Console(_status(429, Retry_After="50"))
    with console.serving() as url:
        fetching = asyncio.create_task(fetch_recording(_event(), url, KEY, to=tmp_path / "a.wav"))
        while not console.requests:
            await asyncio.sleep(0.01)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching


@pytest.mark.parametrize(
    ("event", "url", "key"),
    [
        (parse_event(orjson.dumps(call_event(1))), "http://127.0.0.1:1", KEY),
        (parse_event(orjson.dumps(recording_event(1, "absent"))), "http://127.0.0.1:1", KEY),
        (_event(), "ftp://127.0.0.1:1", KEY),
        (_event(), f"http://x:{KEY}@127.0.0.1:1", KEY),
        (_event(), "http://127.0.0.1:1", f"{KEY}\r\nX: y"),
        (_event(), "http://127.0.0.1:1", ""),
    ],
)
def test_what_cannot_be_fetched_is_an_error_at_once(tmp_path: Path, event: Event, url: str, key: str) -> None:
    with pytest.raises(RecordingError) as raised:
        fetch_recording_sync(event, url, key, to=tmp_path / "a.wav")
    assert KEY not in str(raised.value)
