"""The answer to an accepted callback. It is the same for a whole second, so its bytes are built once a second.

The library builds the headers of every response, which takes longer than to check and to encode the callback.
"""

from __future__ import annotations

from functools import lru_cache

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict

from ingress.answers import HEADERS

_TEXT = b"accepted\n"
_HEADERS = CIMultiDict(HEADERS | {"Content-Type": "text/plain"})


class _Accepted(web.Response):
    """Stands for the answer; it is shared by all requests, so it is never sent itself."""

    @property
    def keep_alive(self) -> bool:
        return True


ACCEPTED = _Accepted(body=_TEXT, headers=_HEADERS)
"""What the handler returns for an accepted callback; `ingress/server.py` sends it."""


def accepted() -> web.Response:
    """Return the answer as a new response, for the library to send."""
    return web.Response(body=_TEXT, headers=_HEADERS)


def is_usual(request: web.BaseRequest) -> bool:
    """Return whether the library would send the bytes of `accepted_bytes`: HTTP/1.1, kept alive, and no body is left to read."""
    return request.keep_alive and request.version == HttpVersion11 and request.content.is_eof()


def accepted_bytes() -> bytes:
    """Return the answer as the library writes it to a usual request."""
    return _bytes_at(rfc822_formatted_time())


@lru_cache(maxsize=1)
def _bytes_at(date: str) -> bytes:
    headers = {**_HEADERS, "Content-Length": str(len(_TEXT)), "Date": date}
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode() + _TEXT
