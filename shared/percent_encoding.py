"""Percent-encoding: of bytes that no link can have, and decoding that is repeated until nothing changes.

All of it takes time proportional to the length of the text.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_to_bytes

_HEX = frozenset(b"0123456789ABCDEFabcdef")
_PERCENT = ord("%")
_ESCAPE_BYTES = 3
# What is encoded again and again.
_NESTED = re.compile(r"%(?:25)+(?=[0-9A-Fa-f]{2})")
_NESTED_BYTES = re.compile(rb"%(?:25)+(?=[0-9A-Fa-f]{2})")
# How JSON escapes a character of one byte.
_JSON_ESCAPE = re.compile(rb"\\u00([0-9A-Fa-f]{2})")
_JSON_ESCAPE_BYTES = 6
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


def decode_bytes(content: bytes) -> bytes:
    """Decode bytes until no percent escape is left, and those of JSON for one byte once."""
    plain = _decoded(content)
    return _decoded(_JSON_ESCAPE.sub(rb"%\1", plain)) if b"\\u00" in plain else plain


def _decoded(content: bytes) -> bytes:
    if b"%" not in content:
        return content
    plain = unquote_to_bytes(_NESTED_BYTES.sub(b"%", content))
    return plain if b"%" not in plain or unquote_to_bytes(plain) == plain else decode_with_places(plain)[0]


def decode_with_places(content: bytes) -> tuple[bytes, list[int]]:
    """Return what `decode_bytes` returns, and where each of its bytes begins in the content; the last place is its end."""
    decoded, places = bytearray(), []
    for place, byte in enumerate(content):
        decoded.append(byte)
        places.append(place)
        while (length := _escape_at_end(decoded)) > 0:
            decoded[-length:] = bytes.fromhex(decoded[-2:].decode())
            del places[1 - length :]
    return bytes(decoded), [*places, len(content)]


def _escape_at_end(decoded: bytearray) -> int:
    """Return the length of the escape at the end of some bytes, 0 without one."""
    if decoded[-1] not in _HEX or len(decoded) < _ESCAPE_BYTES or decoded[-2] not in _HEX:
        return 0
    if decoded[-_ESCAPE_BYTES] == _PERCENT:
        return _ESCAPE_BYTES
    return _JSON_ESCAPE_BYTES if decoded[-_JSON_ESCAPE_BYTES:-2] == b"\\u00" else 0
