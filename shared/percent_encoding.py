"""Percent-encoding: of bytes that no link can have, and decoding that is repeated until nothing changes.

All of it takes time proportional to the length of the text.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_HEX = frozenset(b"0123456789ABCDEFabcdef")
_PERCENT = ord("%")
_ESCAPE_BYTES = 3
# What is encoded again and again.
_NESTED = re.compile(r"%(?:25)+(?=[0-9A-Fa-f]{2})")
_NOT_IN_A_LINK = re.compile(rb"[^!-~]")


def bytes_of(text: str) -> bytes:
    """Encode a text as it was received. Half a surrogate pair, which is no text, becomes bytes that are not UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def encode_unprintable(content: bytes) -> bytes:
    """Percent-encode what a link cannot have: blanks, control characters, and bytes that are not ASCII."""
    return _NOT_IN_A_LINK.sub(lambda match: b"%%%02X" % match[0][0], content)


def decode_repeatedly(text: str) -> str:
    """Decode a text until no escape is left."""
    if "%" not in text:
        return text
    plain = unquote(_NESTED.sub("%", text))
    if "%" not in plain or unquote(plain) == plain:
        return plain
    return _decode_inside_out(plain)


def _decode_inside_out(text: str) -> str:
    """Decode each escape as soon as it is complete, also one whose digits were escapes. Each step shortens the text."""
    decoded = bytearray()
    for byte in text.encode("utf-8", "surrogatepass"):
        decoded.append(byte)
        while len(decoded) >= _ESCAPE_BYTES and decoded[-3] == _PERCENT and decoded[-2] in _HEX and decoded[-1] in _HEX:
            decoded[-3:] = bytes.fromhex(decoded[-2:].decode())
    return decoded.decode("utf-8", "replace")
