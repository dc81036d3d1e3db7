"""The first steps with a request that the parser has read, on every port."""

from __future__ import annotations

from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from shared.runtime.http_protocol import VERSIONS, LimitedProtocol, answer_as_http_1


def begin_request(message: RawRequestMessage, payload: StreamReader, protocol: RequestHandler) -> RawRequestMessage:
    """Begin the time limit of the body; returns the message in a version of HTTP in which it can be answered."""
    if isinstance(protocol, LimitedProtocol):
        protocol.request_began(payload)
    return message if message.version in VERSIONS else answer_as_http_1(message)
