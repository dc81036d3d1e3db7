"""Reads when an X.509 certificate ends. It judges nothing, so it reads certificates that no client would trust."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_EARLIEST: Final = datetime(1950, 1, 1, tzinfo=UTC)
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_LONG_FORM: Final = 0x80


def end_of_validity(der: bytes) -> datetime:
    """Return when a certificate ends.

    Raises:
        ValueError: it is no certificate.
    """
    try:
        # Certificate, tbsCertificate: [version,] serialNumber, signature, issuer, validity, ... (RFC 5280, section 4.1)
        fields = _children(_children(_element(der, 0)[1])[0][1])
        validity = fields[4] if fields[0][0] == _VERSION else fields[3]
        if validity[0] != _SEQUENCE:
            raise ValueError("the validity is no sequence")
        tag, text = _children(validity[1])[1]
        # Years of two digits are those from 1950 on, which `%y` would take from 1969 on.
        written = text.decode("ascii")
        if tag == _UTC_TIME:
            written = f"{'20' if written < '50' else '19'}{written}"
        # Times long ago have no times before them that could be computed.
        return max(datetime.strptime(written, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC), _EARLIEST)
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("this is no X.509 certificate") from error


def _children(content: bytes) -> list[tuple[int, bytes]]:
    elements, at = [], 0
    while at < len(content):
        tag, value, at = _element(content, at)
        elements.append((tag, value))
    return elements


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return tag and value of the DER element at a place, and the place after it."""
    tag, length, at = data[at], data[at + 1], at + 2
    if length & _LONG_FORM:
        size = length & ~_LONG_FORM
        length, at = int.from_bytes(data[at : at + size], "big"), at + size
    if at + length > len(data):
        raise IndexError("the element is cut off")
    return tag, data[at : at + length], at + length
