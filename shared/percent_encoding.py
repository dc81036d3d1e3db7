"""Percent-decoding that is repeated until nothing changes, in time proportional to the length of the text."""

from __future__ import annotations

import re
from urllib.parse import unquote

_HEX = frozenset(b"0123456789ABCDEFabcdef")
_PERCENT = ord("%")
_ESCAPE_BYTES = 3
# What is encoded again and again.
_NESTED = re.compile(r"%(?:25)+(?=[0-9A-Fa-f]{2})")


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
