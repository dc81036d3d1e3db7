"""What real servers answer that no standard allows: stored where the recording is whole, else named for what it is."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shared.config.sources import load_sources
from shared.domain.ids import SourceName
from shared.domain.recording_reasons import Reason
from shared.errors import NotBegunError
from tests.helpers.certificates import Authority
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import WAV
from tests.helpers.scripted_http import RESET, STALL, Answer, Scripted, head, rest, scripted, whole
from tests.helpers.wav_files import KINDS
from worker.download.client import Client
from worker.download.failures import FetchError
from worker.download.limits import Limits
from worker.download.partial_file import partial
from worker.download.retry_after import MAX_S, Pauses, retry_after

LIMITS = Limits(max_bytes=1_000_000, stall_s=LIMIT_S, min_bytes_per_second=1)
SIZE = len(WAV)
UNREADABLE_RANGES = [
    f"Content-Range: {value}"
    for value in ("", "x", f"bytes=0-{SIZE - 1}/{SIZE}", f"Bytes 0-{SIZE - 1}/{SIZE}", f"bytes */{SIZE}")
]
CHUNKED = [f"{SIZE:x}".encode() + b"\r\n" + WAV + b"\r\n0\r\n\r\n"]


@asynccontextmanager
async def _client(origin: str, path: Path, limits: Limits = LIMITS) -> AsyncIterator[Client]:
    sources = path / "sources.toml"
    sources.write_text(f'[sources.acme]\nsecret = "x"\nrecording_origin = "{origin}"\nrecordings_per_second = 1000\n', "utf-8")
    async with Client(load_sources(sources)[SourceName("acme")], limits, asyncio.Semaphore(1)) as client:
        yield client


async def _fetch_with(client: Client, path: Path, url: str, names: tuple[str, ...] = ()) -> bytes:
    with partial(path / "parts", "x", is_kept=False) as part:
        async with client.fetch(url, part, seen_bytes=None, names=names) as found:
            return found.file.read()


async def _fetch(server: Scripted, path: Path, target: str = "/rec?sectok=s3cret", names: tuple[str, ...] = ()) -> bytes:
    async with _client(server.origin, path) as client:
        return await _fetch_with(client, path, f"{server.origin}{target}", names)


async def _failure(origin: str, path: Path, target: str = "/rec?sectok=s3cret", names: tuple[str, ...] = ()) -> FetchError:
    async with _client(origin, path) as client:
        with pytest.raises(FetchError) as failed:
            await _fetch_with(client, path, f"{origin}{target}", names)
    assert "s3cret" not in str(failed.value)
    return failed.value


def _head(*lines: str, status: int = 200) -> bytes:
    return head(status, *lines)


@pytest.mark.parametrize(
    "answer",
    [
        [_head(f"Content-Length: {SIZE}", status=203), WAV],
        [_head(f"Content-Length: {SIZE}", f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}", status=206), WAV],
        [_head(f"Content-Length: {SIZE}", f"Content-Range: bytes 0-{SIZE - 1}/*", status=206), WAV],
        [_head(f"Content-Length: {SIZE}", status=206), WAV],
        [_head(f"Content-Length: {SIZE + 10}"), WAV],
        [_head(f"Content-Length: {SIZE * 100}", 'ETag: "a"'), WAV],
        [_head(f"Content-Length: {SIZE}") + WAV + b"\r\n"],
        [_head(f"Content-Length: {SIZE}", "Connection: close") + WAV, b"HTTP/1.1 200 x\r\n\r\n"],
        [_head(f"Content-Length: {SIZE}", f"Content-Length: {SIZE}"), WAV],
        [_head(f"Content-Length: {SIZE}, {SIZE}"), WAV],
        [_head(f"content-length:{SIZE}", "X: y", f"CONTENT-LENGTH: {SIZE} ") + WAV],
        [_head(f"Content-Length: {SIZE}", "Transfer-Encoding: chunked"), *CHUNKED],
        [_head("Transfer-Encoding: Chunked", "Content-Length: 7") + CHUNKED[0]],
        [_head("Transfer-Encoding: identity", f"Content-Length: {SIZE}"), WAV],
        [_head("Transfer-Encoding: chunked"), f"{SIZE:x}".encode() + b"\r\n" + WAV + b"\r\n"],
        [_head("Content-Length: "), WAV],
        [_head(f"Content-Length: {10**30}"), WAV],
        [_head(f"Content-Length:\r\n {SIZE}") + WAV],
        [_head("X: a\r\n b\r\n\tc", f"Content-Length: {SIZE}"), WAV],
        *([_head(value, status=206), WAV] for value in UNREADABLE_RANGES),
        [_head("Content-Encoding: identity", "content-encoding: deflate"), zlib.compress(WAV, wbits=-15)],
        [_head("Content-Length: unknown"), WAV],
        [_head("Content-Length: -1"), WAV],
        [_head(f"Set-Cookie: {'a' * 20_000}", f"Content-Length: {SIZE}"), WAV],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 x\r\n", f"Content-Length: {SIZE}\r\n\r\n".encode() + WAV],
        [b"HTTP/1.0 200\r\n\r\n", WAV],
        [b"HTTP/1.1 200 OK\nContent-Type: audio/wav\n\n", WAV],
        [_head("Transfer-Encoding: chunked") + CHUNKED[0][:-5] + b"zz\r\n"],
        [_head("Transfer-Encoding: chunked") + CHUNKED[0][:-7] + b"zz\r\n"],
        [_head("Transfer-Encoding: chunked") + CHUNKED[0][:-7]],
        [_head("Transfer-Encoding: chunked") + CHUNKED[0][:-5], RESET],
        [_head("Transfer-Encoding: chunked"), CHUNKED[0][:-5] + b"zz\r\n"],
        [_head("Transfer-Encoding: chunked"), CHUNKED[0][:-5] + b"-1\r\n"],
        [_head(f"Content-Length: {SIZE + 10}") + WAV],
        [_head(f"Content-Length: {SIZE + 10}") + WAV, RESET],
        [bytes([byte]) for byte in _head(f"Content-Length: {SIZE}")] + [WAV],
    ],
)
async def test_a_recording_that_is_whole_is_stored_however_it_is_sent(server: Scripted, tmp_path: Path, answer: Answer) -> None:
    server.answers = [answer]
    assert await _fetch(server, tmp_path) == WAV
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        ([_head("Content-Length: 7", "Content-Length: 8"), WAV], Reason.INVALID_RESPONSE, "Duplicate Content-Length"),
        ([_head("bad header: x"), WAV], Reason.INVALID_RESPONSE, "Invalid header token"),
        ([b"\x15\x03\x01\0\x02\x02\x28"], Reason.INVALID_RESPONSE, "Bad status line"),
        ([WAV], Reason.INVALID_RESPONSE, "Bad status line"),
        ([_head(f"X: {'a' * 70_000}"), WAV], Reason.HEADER_TOO_LONG, "65536 bytes"),
        ([_head(*(f"X{number}: a" for number in range(300))), WAV], Reason.HEADER_TOO_LONG, "too many"),
        ([b""], Reason.UNREACHABLE, "closed the connection"),
        ([_head("Content-Length: 9")[:-6]], Reason.UNREACHABLE, "closed the connection"),
        ([_head("Transfer-Encoding: chunked"), b"zz\r\n" + WAV], Reason.INTERRUPTED, "not valid"),
        ([_head("Transfer-Encoding: chunked"), b"64\r\n" + WAV[:100] + b"\r\n", b"zz\r\n"], Reason.INTERRUPTED, "not valid"),
        ([_head(f"Content-Length: {SIZE - 10}"), WAV], Reason.TRUNCATED, "declares"),
        ([_head(f"Content-Length: {SIZE}", "Content-Range: bytes 7-8/9", status=206), WAV], Reason.UNEXPECTED_STATUS, "range"),
        ([_head(f"Content-Range: bytes 0-99/{SIZE}", status=206), WAV[:100]], Reason.INTERRUPTED, f"100 of {SIZE}"),
        ([_head()], Reason.INTERRUPTED, "before the first byte"),
        ([_head("Content-Length: 0")], Reason.EMPTY, "empty"),
        ([_head("Transfer-Encoding: chunked"), b"0\r\n\r\n"], Reason.EMPTY, "empty"),
        ([_head("Content-Length: 9", status=204), b"ignored"], Reason.EMPTY, "204"),
        ([_head("Content-Length: 0", "Location: http://169.254.169.254/x?y=z", status=302)], Reason.ORIGIN_NOT_ALLOWED, "a redirect to http://169.254.169.254. "),
        ([_head("Content-Length: 0", "Location: https://u:pw@pbx/x", status=302)], Reason.ORIGIN_NOT_ALLOWED, "user name"),
        ([_head("Content-Length: 0", "Location: //pbx.example/?y=z", status=307)], Reason.ORIGIN_NOT_ALLOWED, "http://pbx.example. "),
        ([_head("Content-Length: 0", "Location: file:///etc/passwd", status=301)], Reason.ORIGIN_NOT_ALLOWED, "file://. "),
    ],
)  # fmt: skip
async def test_the_reason_names_the_cause(server: Scripted, tmp_path: Path, answer: Answer, reason: Reason, words: str) -> None:
    server.answers = [answer]
    failure = await _failure(server.origin, tmp_path)
    assert (failure.reason, words in failure.detail) == (reason, True), failure
    assert not {"etc", "y=z", "pw@", "aaaa", "RIFF"} & set(failure.detail.replace("/", " ").split())


async def test_a_compressed_recording_with_the_length_of_the_plain_one_is_whole(server: Scripted, tmp_path: Path) -> None:
    packed = gzip.compress(WAV)
    told = ["Content-Encoding: gzip", 'ETag: "a"']
    server.answers = [[head(200, f"Content-Length: {SIZE}", *told), packed], [head(416, f"Content-Range: bytes */{len(packed)}")]]
    assert await _fetch(server, tmp_path) == WAV
    server.answers = [[head(200, f"Content-Length: {SIZE}", "Content-Encoding: gzip"), packed]]
    assert await _fetch(server, tmp_path) == WAV


@pytest.mark.parametrize("name", ["plain", "RIFX", "RF64", "BW64", "LIST behind", "audio before fmt"])
async def test_a_whole_recording_of_every_form_is_not_requested_again(server: Scripted, tmp_path: Path, name: str) -> None:
    (content,) = (kind.content for kind in KINDS if kind.name == name)
    for before in (b"", b"\r\n"):
        server.asked.clear()
        server.answers = [[_head(f"Content-Length: {10 * SIZE}", 'ETag: "a"'), before + content]]
        assert await _fetch(server, tmp_path) == before + content
        assert len(server.asked) == 1


async def test_a_length_that_is_too_large_does_not_matter_where_the_connection_stays_open(
    server: Scripted, tmp_path: Path
) -> None:
    server.answers = [[_head(f"Content-Length: {SIZE + 5}"), WAV, STALL]]
    async with _client(server.origin, tmp_path, replace(LIMITS, stall_s=1)) as client:
        assert await _fetch_with(client, tmp_path, f"{server.origin}/rec") == WAV
        server.answers = [[_head(f"Content-Length: {SIZE}"), WAV[:-1], STALL]]
        with pytest.raises(FetchError) as failed:
            await _fetch_with(client, tmp_path, f"{server.origin}/rec")
    assert failed.value.reason is Reason.STALLED


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\0\0", b"\r\n"])
async def test_a_wrong_content_type_does_not_refuse_bytes_before_a_recording(
    server: Scripted, tmp_path: Path, before: bytes
) -> None:
    server.answers = [[b"HTTP/1.1 200 x\r\nContent-Type: text/html\r\n\r\n", before + WAV]]
    assert await _fetch(server, tmp_path) == before + WAV


async def test_the_rest_of_a_206_that_nobody_asked_for_is_asked_for(server: Scripted, tmp_path: Path) -> None:
    first: Answer = [_head('ETag: "a"', "Content-Length: 100", f"Content-Range: bytes 0-99/{SIZE}", status=206), WAV[:100]]
    server.answers = [first, rest(WAV, 100, 'ETag: "a"')]
    assert await _fetch(server, tmp_path) == WAV


@pytest.mark.parametrize(
    "target", ["/a%2Fb%28c%29%7E[x]'y%20+z?q=%2f%2F'[1]&e=a+b%20c&~*", "/%zz%?a={b}|^", "/a;b=1?c?d", "//a//b?"]
)
async def test_a_link_is_requested_byte_for_byte(server: Scripted, tmp_path: Path, target: str) -> None:
    server.answers = [whole(WAV)]
    assert await _fetch(server, tmp_path, target) == WAV
    assert server.asked[0]["path"] == target.removesuffix("?")
    server.answers = [[head(302, "Content-Length: 0", f"Location: {target.replace('//a', '/a')}")], whole(WAV)]
    assert await _fetch(server, tmp_path) == WAV
    assert server.asked[-1]["path"] == target.replace("//a", "/a").removesuffix("?")


@pytest.mark.parametrize("target", ["/a b", "/a\r\nHost: evil", "/\xfc", "/a\0", "/a\x7f"])
async def test_bytes_that_a_request_cannot_have_are_refused(server: Scripted, tmp_path: Path, target: str) -> None:
    assert (await _failure(server.origin, tmp_path, target)).reason is Reason.ORIGIN_NOT_ALLOWED
    assert server.asked == []


@pytest.mark.parametrize("status", [404, 410, 204, 200])
@pytest.mark.parametrize(
    ("location", "names", "is_about_it"),
    [
        ("/login", ("7",), False),
        ("/files/17.wav", ("7",), False),
        ("/files/7.wav", ("7",), True),
        ("/rec/?nId=7", (), False),
        ("/rec?sectok=s3cret", (), True),
        ("/files/BFA2DBC8-ab8a-34c8-f243-c2aad8c446ff.wav", ("7", "bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"), True),
    ],
)
async def test_not_found_behind_a_redirect_is_an_answer_only_about_the_same_recording(
    server: Scripted, tmp_path: Path, status: int, location: str, names: tuple[str, ...], *, is_about_it: bool
) -> None:
    server.answers = [[head(302, "Content-Length: 0", f"Location: {location}")], [head(status, "Content-Length: 0")]]
    failure = await _failure(server.origin, tmp_path, names=names)
    about = {Reason.NOT_FOUND} if status > 400 else {Reason.EMPTY}
    assert {failure.reason} == (about if is_about_it else {Reason.REDIRECTED})


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    issuer = Authority(tmp_path)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", issuer.trusting())
    return issuer


@pytest.mark.parametrize(
    ("make", "reason", "words"),
    [
        (lambda ours, _: ours.server(days=(-9, -1)), Reason.CERTIFICATE_EXPIRED, "expired"),
        (lambda ours, _: ours.server(days=(1, 9)), Reason.CERTIFICATE_INVALID, "not valid yet"),
        (lambda ours, _: ours.server("127.0.0.2"), Reason.CERTIFICATE_WRONG_HOST, "another host"),
        (lambda ours, _: ours.server("pbx.example.com"), Reason.CERTIFICATE_WRONG_HOST, "another host"),
        (lambda _, other: other.server(), Reason.CERTIFICATE_UNTRUSTED, "SSL_CERT_FILE"),
    ],
)
async def test_a_certificate_that_is_refused_is_named(
    tmp_path: Path, authority: Authority, make: Callable[[Authority, Authority], ssl.SSLContext], reason: Reason, words: str
) -> None:
    async with scripted(tls=make(authority, Authority(tmp_path, "other"))) as server:
        server.answers = [whole(WAV)]
        failure = await _failure(server.origin, tmp_path)
    assert (failure.reason, words in failure.detail) == (reason, True), failure


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x15\x03\x01\0\x02\x02\x46", "protocol version"),
        (b"\x15\x03\x01\0\x02\x02\x28", "handshake failure"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no TLS connection: "),
    ],
)
async def test_what_speaks_no_tls_that_we_do_is_named(tmp_path: Path, answer: bytes, words: str) -> None:
    async def answer_anything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer_anything, "127.0.0.1", 0) as server:
        failure = await _failure(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", tmp_path)
    assert (failure.reason, words in failure.detail) == (Reason.TLS_FAILED, True), failure


async def test_a_name_without_address_is_named(tmp_path: Path) -> None:
    assert (await _failure("http://pbx.invalid", tmp_path)).reason is Reason.HOST_NOT_FOUND


async def test_a_redirect_from_http_to_https_on_the_same_port_is_followed_and_not_back(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Scripted()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Speak TLS to who begins with it, on one port."""
            first = await reader.readexactly(1)
            reader._buffer[:0] = first  # type: ignore[attr-defined]
            if first == b"\x16":
                upstream = await asyncio.open_connection("127.0.0.1", secure.port)
                await asyncio.gather(_pipe(reader, upstream[1]), _pipe(upstream[0], writer))
            else:
                await plain.serve(reader, writer)

        plain.port = port
        plain.answers = [[head(301, "Content-Length: 0", f"Location: https://127.0.0.1:{port}/b")]]
        async with (
            scripted(tls=authority.server()) as secure,
            await asyncio.start_server(both, sock=listening.dup()),
        ):
            secure.answers = [whole(WAV)]
            assert await _fetch(plain, tmp_path) == WAV
            assert [asked["path"] for asked in secure.asked] == ["/b"]
            secure.answers = [[head(302, "Content-Length: 0", f"Location: http://127.0.0.1:{port}/c")]]
            asked = len(plain.asked)
            failure = await _failure(plain.origin, tmp_path)
            assert (failure.reason, len(plain.asked)) == (Reason.ORIGIN_NOT_ALLOWED, asked + 1)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while content := await reader.read(65536):
        writer.write(content)
    writer.close()


DATE = "Mon, 23 Nov 2026 07:44:00 GMT"


@pytest.mark.parametrize(
    ("lines", "wait_s"),
    [
        ({"Retry-After": "7"}, 7), ({"Retry-After": " 7 "}, 7), ({"Retry-After": "7.9"}, 7), ({"Retry-After": "0"}, 0),
        ({"Retry-After": "99999999999"}, MAX_S), ({"Retry-After": "9" * 400}, None), ({"Retry-After": "-7"}, None),
        ({"Retry-After": "soon"}, None), ({"Retry-After": ""}, None), ({}, None), ({"Retry-After": "\u0667"}, None),
        ({"Retry-After": "Mon, 23 Nov 2026 07:44:09 GMT", "Date": DATE}, 9), ({"Retry-After": DATE, "Date": DATE}, 0),
        ({"Retry-After": "Mon, 23 Nov 2020 07:44:09 GMT"}, 0), ({"Retry-After": "Mon, 23 Nov 9999 07:44:09 GMT"}, MAX_S),
        ({"Retry-After": "Mon Nov 23 07:44:09 2026", "Date": "Mon Nov 23 07:44:00 2026"}, 9),
        ({"Retry-After": "Monday, 23-Nov-26 07:44:09 GMT", "Date": DATE}, 9), ({"Retry-After": "Mon, 99 Nov 2026 07:44:09 GMT"}, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_within_limits(lines: dict[str, str], wait_s: float | None) -> None:
    assert retry_after(lines) == wait_s


@pytest.mark.parametrize("status", [202, 425, 429, 503])
async def test_what_asks_to_wait_is_not_asked_before(server: Scripted, tmp_path: Path, status: int) -> None:
    server.answers = [[head(status, "Retry-After: 60", "Content-Length: 0")], whole(WAV)]
    async with _client(server.origin, tmp_path) as client:
        with pytest.raises(FetchError) as failed:
            await _fetch_with(client, tmp_path, f"{server.origin}/a")
        assert (failed.value.reason, failed.value.retry_after_s) == (Reason.NOT_READY, 60)
        with pytest.raises(NotBegunError) as waiting:
            await _fetch_with(client, tmp_path, f"{server.origin}/a")
        assert 0 < waiting.value.wait_s <= 60
        other = _fetch_with(client, tmp_path, f"{server.origin}/b")
        if status in {429, 503}:
            with pytest.raises(NotBegunError):
                await other
        else:
            assert await other == WAV
    assert len(server.asked) == (1 if status in {429, 503} else 2)


@pytest.mark.parametrize("line", ["Retry-After: 0", "Retry-After: soon", "X: y"])
async def test_nonsense_lets_nobody_wait(server: Scripted, tmp_path: Path, line: str) -> None:
    server.answers = [[head(503, line, "Content-Length: 0")], whole(WAV)]
    async with _client(server.origin, tmp_path) as client:
        with pytest.raises(FetchError):
            await _fetch_with(client, tmp_path, f"{server.origin}/a")
        assert await _fetch_with(client, tmp_path, f"{server.origin}/a") == WAV


def test_a_pause_ends_and_there_is_room_for_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.download.retry_after._MAX_LINKS", 2)
    now = time.monotonic()
    monkeypatch.setattr("worker.download.retry_after.time.monotonic", lambda: now)
    pauses = Pauses()
    for url in ("a", "b", "c"):
        pauses.pause_link(url, 10)
    assert [pauses.remaining_s(url) for url in ("a", "b", "c")] == [10, 10, 0]
    now += 11
    pauses.pause_link("c", 5)
    assert [pauses.remaining_s(url) for url in ("a", "b", "c")] == [0, 0, 5]
    pauses.pause(7)
    pauses.pause(1)
    assert pauses.remaining_s("x") == 7
