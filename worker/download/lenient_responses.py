"""Reads responses whose headers contradict each other only about their length, which the HTTP parser refuses.

Recorders send the same Content-Length twice, Content-Length and chunks, or bytes behind the end. RFC 9112 (6.3) says what
counts. Each connection is for one response, so nothing of another response can be taken for a part of this one.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp import ClientPayloadError, StreamReader
from aiohttp.client_proto import ResponseHandler

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LONGEST_END = 4
_LENGTH = re.compile(rb"^content-length:[ \t]*(.*?)[ \t]*\r?\n", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^transfer-encoding:[^\n]*\bchunked[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_IDENTITY = re.compile(rb"^transfer-encoding:[ \t]*identity[ \t]*\r?\n", re.IGNORECASE | re.MULTILINE)
_FOLDED = re.compile(rb"\r?\n[ \t]+")
_LONGEST_LENGTH = 18
_INFORMATION = re.compile(rb"HTTP/\d\.\d 1\d\d")
# Beyond this the parser says that the header is too long.
_MAX_HEAD_BYTES = 256 * 1024


class LenientResponseHandler(ResponseHandler):
    """Repairs the head of a response before it is parsed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._head: bytes | None = b""

    def data_received(self, data: bytes) -> None:
        """Pass on what arrives: the head once it is complete, then every piece."""
        while self._head is not None:
            searched = max(0, len(self._head) - _LONGEST_END)
            self._head += data
            end = _HEAD_END.search(self._head, searched)
            if end is None:
                if len(self._head) > _MAX_HEAD_BYTES:
                    data, self._head = self._head, None
                    break
                return
            head, data = self._head[: end.end()], self._head[end.end() :]
            self._head = b"" if _INFORMATION.match(head) else None
            super().data_received(repaired(head))
            if not data:
                return
        super().data_received(data)
        failure = self.exception()
        if failure is not None and self._payload is not None and not self._payload.is_eof():
            # Otherwise the body would be waited for, because the parser reports an invalid chunk only to a new response.
            self._payload.set_exception(ClientPayloadError("the body is not valid HTTP"))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Pass on the beginning of a head, of which nothing more comes."""
        if self._head:
            head, self._head = self._head, None
            super().data_received(head)
        super().connection_lost(exc)


def take_unread(content: StreamReader) -> bytes:
    """Return what had arrived of a body before it failed. The reader itself withholds it."""
    unread = b"".join(content._buffer)[content._buffer_offset :]  # noqa: SLF001 - aiohttp has no other way
    content._buffer.clear()  # noqa: SLF001 - as above
    content._buffer_offset = 0  # noqa: SLF001 - as above
    return unread


def repaired(head: bytes) -> bytes:
    """Return a head with at most one length: none if the body is chunked or the length cannot be one, one of several equal ones.

    Lengths that differ stay, so that the parser refuses them.
    """
    head = _IDENTITY.sub(b"", _FOLDED.sub(b" ", head))
    lengths: list[bytes] = _LENGTH.findall(head)
    if not lengths:
        return head
    values = {value.strip() for length in lengths for value in length.split(b",")}
    if _CHUNKED.search(head) or not any(value.isdigit() and len(value) <= _LONGEST_LENGTH for value in values):
        return _LENGTH.sub(b"", head)
    if len(values) == 1:
        line, _, headers = head.partition(b"\n")
        return line + b"\nContent-Length: " + values.pop() + b"\r\n" + _LENGTH.sub(b"", headers)
    return head
