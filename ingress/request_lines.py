"""Request lines as they are sent: what an HTTP parser would refuse in one is percent-encoded before the parser sees it.

FocalScope fills its placeholders with whatever an agent is called, blanks and bytes of any encoding included. The parser
would answer 400 without saying which parameter, and the callback be kept nowhere.

The limit is held here too, since nobody after this can tell how long a line was as it was received.
"""

from __future__ import annotations

import re

# The longest line that is taken, as it was received.
LINE_BYTES = 8192
# Percent-encoded, a byte is three. A target of more bytes than that stands for a line that was too long.
TARGET_BYTES = 3 * LINE_BYTES
# What the parser takes: more, so that lines that are too long get our answer and far longer ones the parser's.
PARSER_BYTES = TARGET_BYTES + 2 * LINE_BYTES
# What of a line without its end is held back: more than is taken, so that whoever sends too much has sent it when he is refused.
_HELD_BYTES = 2 * LINE_BYTES

_PLAIN = re.compile(rb"[A-Z]+ [!-~]+ HTTP/1\.[01]\r\n")
# Greedy: the last ` HTTP/1.1` of a line is the version, what looks like one before it belongs to a value.
_LINE = re.compile(rb"([A-Z]+ +)([^\n]+)( HTTP/\d\.\d\r\n)")
_NOT_IN_A_TARGET = re.compile(rb"[^!-~]")
_BODY = re.compile(rb"\r\n(?i:content-length|transfer-encoding):[ \t]*([^\r\n]*)")
_LENGTH = re.compile(rb"\d{1,18}[ \t]*")
_BEGINNING = re.compile(rb"[\r\n]*[A-Z]*(?: |\Z)")
_HEAD_END = b"\r\n\r\n"
# Far more than a callback's headers: what is longer is passed on for the parser to refuse.
_HEAD_BYTES = 1 << 15


class RequestLines:
    """The incoming bytes of one connection. A head that has not come whole is held back, up to a bound."""

    __slots__ = ("_body_left", "_held", "_is_blind")

    def __init__(self) -> None:
        self._held = b""
        self._body_left = 0
        # Where the next request begins cannot be told, or this one will be refused: from here on bytes pass as they are.
        self._is_blind = False

    def feed(self, data: bytes) -> bytes:
        """Take the next segment; returns what the parser may have, which can be nothing yet."""
        if not self._held and not self._body_left and _is_one_plain_request(data):
            return data
        data, self._held = self._held + data, b""
        ready: list[bytes] = []
        at = 0
        while at < len(data):
            if self._is_blind:
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
        """Write a whole head as the parser takes it, and note the body that follows."""
        for written in _BODY.findall(head):
            if _LENGTH.fullmatch(written):
                self._body_left = int(written)
            else:  # chunked: ingress closes the connection after such a request
                self._is_blind = True
        return _encoded(head)

    def _unfinished(self, head: bytes) -> bytes:
        """Hold back the beginning of a head, unless it is too long to become a good one, or no HTTP."""
        has_line = b"\n" in head
        is_short = len(head) <= (_HEAD_BYTES if has_line else _HELD_BYTES)
        if is_short and _BEGINNING.match(head) and head.count(b"\n") == head.count(b"\r\n"):
            self._held = head
            return b""
        self._is_blind = True
        if has_line or len(head) <= _HELD_BYTES:
            return _encoded(head)
        # Encoded even without its end, so that it is refused for its length.
        method, space, target = head.partition(b" ")
        return method + space + _percent(target).ljust(PARSER_BYTES + 1, b"-")


def _is_one_plain_request(data: bytes) -> bool:
    line = _PLAIN.match(data)
    if line is None:
        return False
    headers = line.end() - 2
    if headers > LINE_BYTES:
        return False
    return data.find(_HEAD_END, headers) == len(data) - len(_HEAD_END) and _BODY.search(data, headers) is None


def _encoded(head: bytes) -> bytes:
    """Write a head as the parser takes it; a target that is too long stays so, whatever became of its bytes."""
    plain = _PLAIN.match(head)
    if plain is not None and plain.end() - 2 <= LINE_BYTES:
        return head
    line = _LINE.match(head.lstrip(b"\r\n"))
    if line is None:
        return head
    target = _percent(line[2])
    if line.end() - 2 > LINE_BYTES:
        target = target.ljust(TARGET_BYTES + 1, b"-")
    return line[1] + target + line[3] + line.string[line.end() :]


def _percent(target: bytes) -> bytes:
    return _NOT_IN_A_TARGET.sub(lambda found: b"%%%02X" % found[0][0], target)
