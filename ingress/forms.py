"""Reads the body of a POST, which is small, arrives in time, and costs little before its secret is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_TYPE, EXPECT
from aiohttp.http import HttpVersion11

from ingress.body_formats import BodyFormat, UnreadableBodyError, find_body_secret, format_of, to_query
from shared.log import get_logger
from shared.runtime.http_protocol import MAX_BODY_BYTES

log = get_logger(__name__)

_IDENTITY = frozenset({"", "identity"})


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a POST, at most 64 KiB of it.

    Attributes:
        content: its bytes; as many as arrived if there is a `problem`.
        content_type: the header, '' without one.
        encoding: the Content-Encoding, '' without one.
        problem: why it must not be understood: it is encoded, or not whole.
    """

    content: bytes = b""
    content_type: str = ""
    encoding: str = ""
    problem: UnreadableBodyError | None = None


def query_of(body: Body) -> str:
    """Return the query string with the meaning of a body that is whole.

    Raises:
        UnreadableBodyError: it cannot be understood.
    """
    with _without_fault():
        return to_query(body.content_type, body.content)


def secret_of(body: Body) -> str | None:
    """Find the parameter `token` of a body that is no form. In a form it is found in the query.

    Raises:
        UnreadableBodyError: the body cannot be understood.
    """
    with _without_fault():
        return find_body_secret(body.content_type, body.content)


def is_form(body: Body) -> bool:
    return format_of(body.content_type, body.content) is BodyFormat.FORM


@contextmanager
def _without_fault() -> Iterator[None]:
    """Take a fault of Callfold for a body that cannot be understood: then it is kept."""
    try:
        yield
    except UnreadableBodyError:
        raise
    except Exception as error:  # a stranger chooses the bytes, and no callback may be lost to them
        log.error("body_reading_failed", error=type(error).__name__)  # noqa: TRY400 - a traceback could quote a secret
        raise UnreadableBodyError(400, "Bad Request", "The body could not be read, because of a fault in Callfold.") from error


async def read_body(request: web.BaseRequest, *, is_trusted: bool) -> Body:
    """Read a body. What cannot be understood in any case is read only if the sender is trusted: then it is kept."""
    if not request.can_read_body:
        return Body()
    encoding = _header(request, CONTENT_ENCODING).lower()
    problem = None
    if encoding not in _IDENTITY:
        problem = UnreadableBodyError(415, "Unsupported Media Type", "Send the body without a Content-Encoding.")
    elif (request.content_length or 0) > MAX_BODY_BYTES:
        problem = _too_large()
    if problem and (not is_trusted or _waits_to_be_asked(request)):
        return Body(problem=problem)
    content, failure = await _read(request)
    return Body(content, _header(request, CONTENT_TYPE), "" if encoding in _IDENTITY else encoding, failure or problem)


def _header(request: web.BaseRequest, name: str) -> str:
    """Return a header, '' without one. Its bytes may be of no encoding, and could then not be written as JSON."""
    return request.headers.get(name, "").strip().encode("ascii", "backslashreplace").decode()


async def _read(request: web.BaseRequest) -> tuple[bytes, UnreadableBodyError | None]:
    """Read at most 64 KiB; returns also why it is not the whole body."""
    read = bytearray()
    try:
        if _waits_to_be_asked(request):
            await _ask_for_body(request)
        while part := await request.content.readany():
            read += part
            if len(read) > MAX_BODY_BYTES:
                return bytes(read[:MAX_BODY_BYTES]), _too_large()
    except web.HTTPRequestTimeout:
        return bytes(read), UnreadableBodyError(408, "Request Timeout", "The body did not arrive in time. Send it again.")
    except web.RequestPayloadError:
        return bytes(read), UnreadableBodyError(400, "Bad Request", "The body is not valid HTTP.")
    except ConnectionError:  # no client reads the answer; the metric counts it
        return bytes(read), UnreadableBodyError(400, "Bad Request", "The connection ended before the body was complete.")
    return bytes(read), None


def _waits_to_be_asked(request: web.BaseRequest) -> bool:
    """Return whether the client may send its body only after 100 Continue (RFC 9110, 10.1.1)."""
    expects = request.headers.get(EXPECT, "").lower() == "100-continue"
    return expects and request.version == HttpVersion11 and not request.content.is_eof()


async def _ask_for_body(request: web.BaseRequest) -> None:
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the response has not begun


def _too_large() -> UnreadableBodyError:
    detail = f"The body is larger than {MAX_BODY_BYTES // 1024} KiB. Shorten the link."
    return UnreadableBodyError(413, "Content Too Large", detail)
