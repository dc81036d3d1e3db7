"""Reads the form of a POST, which is small, arrives in time, and costs little before its secret is known."""

from __future__ import annotations

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING, EXPECT
from aiohttp.http import HttpVersion11

from shared.runtime.http_protocol import MAX_BODY_BYTES

FORM_TYPE = "application/x-www-form-urlencoded"
_PERCENT_ENCODED = {byte: f"%{byte:02X}" for byte in range(0x80, 0x100)}


class UnreadableFormError(Exception):
    """A body that is no form, too large, too slow or invalid."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


class NoFormError(UnreadableFormError):
    """A body of another type. It does no harm if the query has the callback."""


async def read_form(request: web.BaseRequest) -> bytes:
    """Read a form body; a request without a body has an empty one.

    Raises:
        UnreadableFormError: the body cannot be read. Its rest is unread.
    """
    if not request.can_read_body:
        return b""
    if request.headers.get(CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnreadableFormError(415, "Unsupported Media Type", "Send the form without a Content-Encoding.")
    if request.content_type != FORM_TYPE:
        raise NoFormError(415, "Unsupported Media Type", f"The body of a POST must be {FORM_TYPE}.")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        if _waits_to_be_asked(request):
            await _ask_for_body(request)
        return (await request.read()).strip()
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large() from error
    except web.HTTPRequestTimeout as error:
        raise UnreadableFormError(408, "Request Timeout", "The form did not arrive in time. Send it again.") from error
    except web.RequestPayloadError as error:
        raise UnreadableFormError(400, "Bad Request", "The body is not valid HTTP.") from error
    except ConnectionError as error:  # no client reads the answer; the metric counts it
        raise UnreadableFormError(400, "Bad Request", "The connection ended before the form was complete.") from error


def _waits_to_be_asked(request: web.BaseRequest) -> bool:
    """Return whether the client may send its body only after 100 Continue (RFC 9110, 10.1.1)."""
    expects = request.headers.get(EXPECT, "").lower() == "100-continue"
    return expects and request.version == HttpVersion11 and not request.content.is_eof()


async def _ask_for_body(request: web.BaseRequest) -> None:
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the response has not begun


def _too_large() -> UnreadableFormError:
    detail = f"The form is larger than {MAX_BODY_BYTES // 1024} KiB. Shorten the link."
    return UnreadableFormError(413, "Content Too Large", detail)


def percent_encoded(form: bytes) -> str:
    """Return the form as text. Bytes that are not ASCII are kept, percent-encoded."""
    return form.decode("latin-1").translate(_PERCENT_ENCODED)
