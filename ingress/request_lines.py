"""Percent-encodes bytes of request lines that the HTTP parser would reject.

FocalScope inserts names of agents as they are, including spaces and bytes of any encoding. The parser would answer 400 without
naming the parameter, and the callback would be lost.

The length limit is enforced here too, because later code does not see how long the line was when it was received.
"""

from __future__ import annotations

import re

from shared.percent_encoding import encode_unprintable

# The longest accepted line, as received.
LINE_BYTES = 8192
# A percent-encoded byte takes three. A longer target stands for a line that was too long.
TARGET_BYTES = 3 * LINE_BYTES
# The limit of the parser. It is larger, so that `callbacks.py` answers lines that are too long; the parser answers longer ones.
PARSER_BYTES = TARGET_BYTES + 2 * LINE_BYTES
# How much of an unfinished line is held back. More than a line may have, so that most clients have sent all of it when rejected.
_HELD_BYTES = 2 * LINE_BYTES

_PLAIN = re.compile(rb"[A-Z]+ [!-~]+ HTTP/1\.[01]\r\n")
# Greedy: the last ` HTTP/1.1` of a line is the version. An earlier one belongs to a value. Each part begins at one place only, or
# a line of spaces would be tried at every one.
_LINE = re.compile(rb"([A-Z]++ ++)([^\n]+)( HTTP/\d\.\d\r\n)")
_BODY = re.compile(rb"\r\n(?i:content-length|transfer-encoding):[ \t]*([^\r\n]*)")
_BODY_OR_UPGRADE = re.compile(rb"\r\n(?i:content-length|transfer-encoding|upgrade)[ \t]*:")
# The parser drops what follows a request with this header in the same segment. Ingress supports no other protocol.
_UPGRADE = re.compile(rb"\r\n(?i:upgrade)(?=[ \t]*:)")
_LENGTH = re.compile(rb"\d{1,18}[ \t]*")
_BEGINNING = re.compile(rb"[\r\n]*[A-Z]*(?: |\Z)")
_HEAD_END = b"\r\n\r\n"
# Far more than the headers of a callback. A longer head is passed on and the parser rejects it.
_HEAD_BYTES = 1 << 15


class RequestLines:
    """The incoming bytes of one connection; an incomplete head is held back, up to a limit."""

    __slots__ = ("_body_left", "_held", "_is_passthrough")

    def __init__(self) -> None:
        self._held = b""
        self._body_left = 0
        # Set when the start of the next request is unknown, or this one will be rejected: all further bytes pass unchanged.
        self._is_passthrough = False

    def feed(self, data: bytes) -> bytes:
        """Take the next segment and return the bytes for the parser, possibly none yet."""
        if not self._held and not self._body_left and _is_one_plain_request(data):
            return data
        data, self._held = self._held + data, b""
        ready: list[bytes] = []
        at = 0
        while at < len(data):
            if self._is_passthrough:
                ready.append(data[at:])
                break
            if self._body_left:
                part = data[at : at + self._body_left]
                self._body_left -= len(part)
                ready.append(part)
                at += len(part)
                continue
            end = data.find(_HEAD_END, at)
            if end < 0:
                ready.append(self._unfinished(data[at:]))
                break
            ready.append(self._head(data[at : end + len(_HEAD_END)]))
            at = end + len(_HEAD_END)
        return b"".join(ready)

    def _head(self, head: bytes) -> bytes:
        """Encode a complete head and read the length of the body that follows."""
        for length in _BODY.findall(head):
            if _LENGTH.fullmatch(length):
                self._body_left = int(length)
            else:  # chunked: ingress closes the connection after such a request
                self._is_passthrough = True
        return _UPGRADE.sub(b"\r\nX-Upgrade", _encoded(head))

    def _unfinished(self, head: bytes) -> bytes:
        """Hold back an incomplete head, unless it is too long to be valid or is not HTTP."""
        has_line = b"\n" in head
        is_short = len(head) <= (_HEAD_BYTES if has_line else _HELD_BYTES)
        if is_short and _BEGINNING.match(head) and head.count(b"\n") == head.count(b"\r\n"):
            self._held = head
            return b""
        self._is_passthrough = True
        if has_line or len(head) <= _HELD_BYTES:
            return _encoded(head)
        # Encoded although it is incomplete, so that it is rejected for its length.
        method, space, target = head.partition(b" ")
        return method + space + encode_unprintable(target).ljust(PARSER_BYTES + 1, b"-")


def _is_one_plain_request(data: bytes) -> bool:
    line = _PLAIN.match(data)
    if line is None:
        return False
    headers = line.end() - 2
    if headers > LINE_BYTES:
        return False
    return data.find(_HEAD_END, headers) == len(data) - len(_HEAD_END) and _BODY_OR_UPGRADE.search(data, headers) is None


def _encoded(head: bytes) -> bytes:
    """Encode a head for the parser; the target of a line that is too long is padded, so that it stays too long."""
    plain = _PLAIN.match(head)
    if plain is not None and plain.end() - 2 <= LINE_BYTES:
        return head
    line = _LINE.match(head.lstrip(b"\r\n"))
    if line is None:
        return head
    target = encode_unprintable(line[2])
    if line.end() - 2 > LINE_BYTES:
        target = target.ljust(TARGET_BYTES + 1, b"-")
    return line[1] + target + line[3] + line.string[line.end() :]
