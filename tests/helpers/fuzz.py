"""Mutated requests, each made from the seed and its number alone, and what ingress must keep of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pydantic import SecretStr

from ingress.body_formats import UnreadableBodyError, to_query
from ingress.source_secrets import SourceSecrets
from ingress.targets import is_odd, read_target, respelled, tidied, with_second_query
from shared.config.sources import Source
from shared.domain.adapter_link import Adapter, make_link, parse_link, take_secret
from shared.domain.ids import SourceName

SECRET = "fuzz-secret-0123456789"
SOURCES = f"""
[sources.acme]
secret = "{SECRET}"
dial_url = "http://127.0.0.1:{{port}}/dial?agent={{agent}}&number={{number}}"
"""
_GOOD = (
    f"token={SECRET}&CallType=API&Event=pickup&CallID=1000000087849&RequestID={{request_id}}&EventCode=2&IsCallRecorded=&"
    "Guid=bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff&StartTimestampUTC=1595496055313&CallerID=%2B4512345678&LastQueueName=K%C3%B8+1&"
    "RecordingURL=https%3A%2F%2Flocalhost%3A8080%2F_cros_%2Fmaster%2F%3Fsectok%3D3511b272f4fb03ec%26nId%3D103870"
)
_MARK = re.compile(r"fz=(\d+)z")
_LINE = re.compile(rb"[A-Z]+ +([^\n]+) HTTP/\d\.\d\Z")
_AWAITS = re.compile(rb"\r\n(?:transfer-encoding|upgrade):", re.IGNORECASE)
_LENGTHS = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_NO_TARGET = re.compile(rb"[^!-~]")
_FORM = b"application/x-www-form-urlencoded"
# What has meaning to one of those that read a request: bytes of HTTP, of queries, of encodings, and much of one of them.
_DICTIONARY = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"%", b"%25", b"%00", b"%C3%28", b"%0D%0A", b"&", b"=", b"?", b"#", b"+", b";", b":", b"/",
    b"token=", b"token=x&", b"&fz=", b"\xff\xfe", b"\xc3\xa6", b" HTTP/1.1", b"HTTP/1.0", b"\r\n\r\n", b"GET ", b"0\r\n\r\n",
    b"CallID=1&", b"Event=", b"{{CallID}}", b"null", b"-1", b"99999999999999999999", b"%2525" * 50, b"%" * 500, b"A" * 9000,
    b'\\"' * 300, b"//@" * 200, b"[" * 400, b"=" * 300, b"&" * 300, b"\xe2\x80\xae", b"<script>", b"sectok=", b"://a:b@",
)  # fmt: skip
_OPTIONAL = frozenset(
    {b"RequestID", b"IsCallRecorded", b"Guid", b"StartTimestampUTC", b"CallerID", b"LastQueueName", b"RecordingURL"}
)
_ODD_VALUES = (
    b"null", b"-1", b"0", b"J\xfcrgen", b"{{CallUUID}}", b"", b" ", b"\xc3", b"\x00", b"true", b"\r\n", b"a&b=c", b"x" * 2000, b"\xf0\x9f",
)  # fmt: skip
_SPELLINGS = (
    b"/callbacks/acme?%s", b"//callbacks/acme/?%s", b"/Callbacks/ACME?%s", b"/callbacks/acme&%s", b"/callbacks/acme%%3F%s",
    b"/callbacks/acme/&%s", b"/callbacks/acme??%s", b"/./callbacks\\acme?&%s", b"http://a/callbacks/acme?%s", b"/callbacks%%2Facme&amp;%s",
)  # fmt: skip
_HEADERS = (
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: -1\r\n", b"Content-Length: 1,1\r\n", b"Content-Length: x\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: x\r\n", b"Host: a\r\n",
    b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n",
    b"Upgrade: h2c\r\n", b"Content-Encoding: gzip\r\n", b"Content-Encoding: x\r\n", b"Content-Type: x\r\n", b"Content-Type: ;\r\n",
    b"Content-Type: application/x-www-form-urlencoded; charset=x\r\n", b"Range: bytes=0-\r\n", b"Accept: text/html\r\n", b"Cookie: a=;;\r\n",
    b"Sec-WebSocket-Key: x\r\n", b"X-Forwarded-For: ::1\r\n", b" folded: 1\r\n", b": empty\r\n", b"A: " + b"a" * 9000 + b"\r\n",
    b"Authorization: Bearer \xff\r\n", b"Authorization: Basic eA==\r\n", b"Idempotency-Key: \r\n", b"If-None-Match: *\r\n",
)  # fmt: skip


# It completes a head that lacks its end, and is answered with the end of the connection.
_LAST = b"\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class FuzzRequest:
    """Bytes to send. A sound one is a valid request with odd values: it gets one answer, and the connection goes on.

    A good one has nothing odd but optional values and the spelling of its link, so it must be accepted.
    """

    number: int
    raw: bytes
    is_sound: bool
    is_good: bool = False

    @property
    def is_owed_an_answer(self) -> bool:
        """Return whether the server has no reason to wait for more: the head has its end, and a body all of its bytes."""
        head, end, body = self.raw.lstrip(b"\r\n").partition(b"\r\n\r\n")
        if not end or _AWAITS.search(head):
            return False
        return all(int(length) <= len(body) for length in _LENGTHS.findall(head))


def ingress_request(seed: int, number: int) -> FuzzRequest:
    """Make a request to ingress. Its mark says which it is, wherever its callback is kept."""
    random = Random(f"ingress:{seed}:{number}")  # noqa: S311 - what it makes can be made again
    mark = f"fz={number}z".encode()
    query = _GOOD.format(request_id=random.choice((513, 600 + number))).encode()
    if random.random() < 0.2:
        return FuzzRequest(number, _good(random, mark, query), is_sound=True, is_good=True)
    if random.random() < 0.8:
        return FuzzRequest(number, _sound(random, mark, query), is_sound=True)
    before, after = _whole(random, query)
    for _ in range(random.choice((1, 1, 2, 4))):
        if random.random() < 0.3:
            before = mutated(random, before)
        else:
            after = mutated(random, after)
    return FuzzRequest(number, before + mark + after + _LAST, is_sound=False)


def _good(random: Random, mark: bytes, query: bytes) -> bytes:
    """Make one whole request with odd optional values, in an odd spelling of its link or an unusual body."""
    parts = []
    for part in query.split(b"&"):
        name = part.partition(b"=")[0]
        is_odd = name in _OPTIONAL and random.random() < 0.5
        parts.append(name + b"=" + quote_from_bytes(_odd_value(random)).encode() if is_odd else part)
    query = b"&".join(parts)
    if random.random() < 0.3 or len(query) > _LONGEST_OF_A_GET:
        return _post(mark, *_body_of(random, query))
    return b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % (random.choice(_SPELLINGS) % (mark + b"&" + query))


def _odd_value(random: Random) -> bytes:
    return random.choice((random.randbytes(random.choice((1, 2, 8, 64))), *_ODD_VALUES))


def _sound(random: Random, mark: bytes, query: bytes) -> bytes:
    """Make one whole request whose parameters alone are mutated."""
    if random.random() < 0.15:
        kind, body = _body_of(random, query)
        for _ in range(random.choice((0, 1, 1, 2, 3, 6))):
            body = mutated(random, body)
        return _post(mark, kind, body)
    for _ in range(random.choice((0, 1, 1, 2, 3, 6))):
        query = mutated(random, query).replace(b"\r", b"").replace(b"\n", b"")
    if random.random() < 0.2:
        return _post(mark, _FORM, query)
    target = random.choice(_SPELLINGS) if random.random() < 0.2 else b"/callbacks/acme?%s"
    return b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % (target % (mark + b"&" + query))


def _post(mark: bytes, kind: bytes, body: bytes) -> bytes:
    head = b"POST /callbacks/acme?%s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (mark, kind, len(body)) + body


def _body_of(random: Random, query: bytes) -> tuple[bytes, bytes]:
    """Return a type and a body with the meaning of a query; without the token the type may be another."""
    pairs = [(name, unquote_to_bytes(value)) for name, _, value in (part.partition(b"=") for part in query.split(b"&"))]
    match random.randrange(3):
        case 0:
            return random.choice((_FORM, b"", b"application/json")), query
        case 1:
            members = {name.decode(): value.decode("utf-8", "surrogateescape") for name, value in pairs}
            text = json.dumps(members, ensure_ascii=False).encode("utf-8", "surrogateescape")
            return random.choice((b"application/json", b"text/json; charset=utf-8", b"", _FORM)), text
        case _:
            parts = [b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % pair for pair in pairs]
            return b"multipart/form-data; boundary=x", b"".join(parts) + b"--x--\r\n"


def _whole(random: Random, query: bytes) -> tuple[bytes, bytes]:
    """Make what stands before the mark, and after it, of a good request of some form."""
    headers = b"Host: a\r\nUser-Agent: FocalScope\r\nAccept: */*\r\n"
    if random.random() < 0.5:
        headers += random.choice(_HEADERS)
    match random.randrange(5):
        case 0:
            return b"GET /callbacks/acme?", b"&%s HTTP/1.0\r\n%s\r\n" % (query, headers)
        case 1:
            return b"GET http://hooks.example.com/callbacks/acme?", b"&%s HTTP/1.1\r\n%s\r\n" % (query, headers)
        case 2:
            length = b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n" % (_FORM, len(query))
            return b"POST /callbacks/acme?", b" HTTP/1.1\r\n" + headers + length + query
        case 3:
            half = len(query) // 2
            chunks = b"%x\r\n%s\r\n%x;ext=1\r\n%s\r\n0\r\n\r\n" % (half, query[:half], len(query) - half, query[half:])
            chunked = b"Content-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % _FORM
            return b"POST /callbacks/acme?", b" HTTP/1.1\r\n" + headers + chunked + chunks
        case _:
            return b"GET /callbacks/acme?", b"&%s HTTP/1.1\r\n%s\r\n" % (query, headers)


def console_request(seed: int, number: int, keys: tuple[str, ...]) -> FuzzRequest:
    """Make a request to the console, with one of these keys or none."""
    random = Random(f"console:{seed}:{number}")  # noqa: S311 - as above
    method, path, body = random.choice(_CONSOLE)
    is_whole = random.random() < 0.4
    for _ in range(0 if is_whole else random.choice((1, 1, 2, 4))):
        if body and random.random() < 0.7:
            body = mutated(random, body)
        else:
            path = b"/" + _NO_TARGET.sub(b"", mutated(random, path[1:]))
    head = b"%s %s HTTP/1.1\r\nHost: a\r\n" % (method, path)
    if random.random() < 0.8:
        head += b"Authorization: Bearer " + random.choice(keys).encode() + b"\r\n"
    if random.random() < 0.3:
        head += random.choice(_HEADERS)
    if body:
        kind = _FORM if body.startswith(b"key=") else b"application/json"
        head += b"Content-Type: %s\r\nContent-Length: %d\r\n" % (kind, len(body))
    raw = head + b"\r\n" + body
    for _ in range(random.choice((1, 1, 2, 4)) if is_whole else 0):
        raw = mutated(random, raw)
    return FuzzRequest(number, raw + _LAST, is_sound=False)


_CONSOLE: tuple[tuple[bytes, bytes, bytes], ...] = (
    (b"GET", b"/", b""),
    (b"GET", b"/live", b""),
    (b"GET", b"/events?topic=call.%23&after=3", b""),
    (b"GET", b"/calls?source=acme&outcome=answered&limit=5&since=2h", b""),
    (b"GET", b"/calls?reference=x&cursor=abc", b""),
    (b"GET", b"/calls/acme/513", b""),
    (b"GET", b"/recordings/acme/bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff?call=513", b""),
    (b"GET", b"/recordings/acme/bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff/waveform.svg", b""),
    (b"GET", b"/recordings/acme/bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff/preview", b""),
    (b"GET", b"/dead-letters?queue=callbacks.dead&limit=3&since=2h", b""),
    (b"GET", b"/openapi.json", b""),
    (b"GET", b"/ui/find?q=513", b""),
    (b"GET", b"/ui/calls?source=acme&outcome=answered", b""),
    (b"GET", b"/ui/calls.csv?source=acme", b""),
    (b"GET", b"/ui/calls/acme/513", b""),
    (b"GET", b"/ui/dead-letters?queue=callbacks.dead", b""),
    (b"GET", b"/ui/dead-letters/redrive?id=abcdef", b""),
    (b"GET", b"/ui/adapter", b""),
    (b"GET", b"/static/callfold.css", b""),
    (b"GET", b"/login", b""),
    (b"POST", b"/login", b"key=wrong&next=%2Fui%2Fcalls"),
    (b"POST", b"/ui/adapter", b"key=&link=https%3A%2F%2Ftest%2F%3FCallType%3D%7B%7BCallTypeName%7D%7D"),
    (b"POST", b"/dial", b'{"source":"acme","agent":"1001","number":"+4512345678","reference":"x","metadata":{"a":1}}'),
    (b"POST", b"/dead-letters", b'{"action":"drop","queue":"callbacks.dead","ids":["abcdef"],"dry_run":true}'),
    (b"POST", b"/logout", b""),
)


def mutated(random: Random, text: bytes) -> bytes:
    """Change a text in one place."""
    return random.choice(_MUTATIONS)(random, text)


def _at(random: Random, text: bytes) -> int:
    return random.randint(0, len(text))


def _flip(random: Random, text: bytes) -> bytes:
    if not text:
        return text
    at = random.randrange(len(text))
    return text[:at] + bytes([text[at] ^ (1 << random.randrange(8))]) + text[at + 1 :]


def _insert(random: Random, text: bytes) -> bytes:
    at = _at(random, text)
    return text[:at] + random.choice(_DICTIONARY) + text[at:]


def _insert_bytes(random: Random, text: bytes) -> bytes:
    at = _at(random, text)
    return text[:at] + random.randbytes(random.choice((1, 1, 2, 8, 64))) + text[at:]


def _delete(random: Random, text: bytes) -> bytes:
    at = _at(random, text)
    return text[:at] + text[at + random.choice((1, 1, 2, 8, 64)) :]


def _repeat(random: Random, text: bytes) -> bytes:
    at = _at(random, text)
    part = text[at : at + random.choice((1, 4, 16, 64))]
    return text[:at] + part * random.choice((2, 2, 3, 20)) + text[at + len(part) :]


def _replace_value(random: Random, text: bytes) -> bytes:
    parts = text.split(b"&")
    at = random.randrange(len(parts))
    parts[at] = parts[at].partition(b"=")[0] + b"=" + random.choice(_DICTIONARY)
    return b"&".join(parts)


def _shuffle(random: Random, text: bytes) -> bytes:
    parts = text.split(b"&")
    random.shuffle(parts)
    return b"&".join(parts)


def _cut(random: Random, text: bytes) -> bytes:
    return text[: _at(random, text)]


_MUTATIONS: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip, _flip, _insert, _insert, _insert_bytes, _delete, _repeat, _replace_value, _shuffle, _cut,
)  # fmt: skip


def number_of(query: str) -> int | None:
    """Return the number of the request that a kept query came from."""
    mark = _MARK.search(query)
    return int(mark[1]) if mark else None


_MEANINGS = parse_link(make_link("http://a", "acme", None)).meanings
_ACME = SourceName("acme")
_SECRETS = SourceSecrets({_ACME: Source(name=_ACME, secret=SecretStr(SECRET), adapter=Adapter(_MEANINGS))})
_LARGEST = 64 * 1024
_LONGEST_OF_A_GET = 8000  # a request line may have 8,192 bytes


def queries_to_keep(raw: bytes) -> frozenset[str]:
    """Return the queries that ingress may keep of a request; none if the request is none that ingress accepts.

    What a target or a body means is tested elsewhere. Here it is that ingress keeps just that.
    """
    head, end, body = raw.lstrip(b"\r\n").partition(b"\r\n\r\n")
    line, _, headers = head.partition(b"\r\n")
    parsed = _LINE.fullmatch(line)
    if parsed is None or not end:
        return frozenset()
    target = _as_ascii(parsed[1], is_kept=lambda byte: 0x21 <= byte <= 0x7E)
    path, _, query = target.partition("?")
    if path != "/callbacks/acme":
        query = read_target(target).query
    queries = _spellings(tidied(query) if is_odd(query) else query)
    if line.startswith(b"POST "):
        kind, encoding, content = _body(headers, body)
        if content is None:
            return frozenset()
        if content and encoding in {"", "identity"} and len(content) <= _LARGEST:
            with suppress(UnreadableBodyError):
                sent = _spellings(to_query(kind, content))
                queries = {"&".join(part for part in (each, added) if part) for each in queries for added in sent}
    kept = frozenset(map(_without_secret, queries))
    return kept | {second for query in kept if (second := with_second_query(query, _MEANINGS))}


def _spellings(query: str) -> set[str]:
    return {query, *respelled(query, _MEANINGS)}


def _without_secret(query: str) -> str:
    return _SECRETS.hide(_ACME, take_secret(query)[1])


def _as_ascii(text: bytes, *, is_kept: Callable[[int], bool]) -> str:
    return "".join(chr(byte) if is_kept(byte) else f"%{byte:02X}" for byte in text)


def _body(headers: bytes, body: bytes) -> tuple[str, str, bytes | None]:
    """Return type, encoding and content of a body; None if its end cannot be known."""
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in headers.split(b"\r\n"))]

    def first(wanted: bytes) -> str:
        return next((value.decode("utf-8", "surrogateescape") for name, value in fields if name == wanted), "")

    if any(name == b"transfer-encoding" for name, _ in fields):
        content = _unchunked(body)
    else:
        length = first(b"content-length")
        content = body[: int(length)] if length.isdigit() else b""
    return first(b"content-type"), first(b"content-encoding").lower(), content


def _unchunked(body: bytes) -> bytes | None:
    found = b""
    while True:
        size_text, end, body = body.partition(b"\r\n")
        try:
            size = int(size_text.partition(b";")[0], 16)
        except ValueError:
            return None
        if not end or size == 0:
            return found if end else None
        if body[size : size + 2] != b"\r\n":
            return None
        found, body = found + body[:size], body[size + 2 :]
