"""Range and conditional requests (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from typing import NamedTuple

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class Range(NamedTuple):
    """The first and the last byte to send. `is_partial` is True if a range was requested, even of the whole file."""

    first: int
    last: int
    is_partial: bool


def matches_etag(if_none_match: str, etag: str) -> bool:
    """Return whether the client already has the file (RFC 9110, section 13.1.2)."""
    return any(known.strip().removeprefix("W/") in {etag, "*"} for known in if_none_match.split(","))


def read_range(header: str | None, size: int) -> Range | None:
    """Read a Range header: the whole file if it is absent or unsupported, None if the range is outside the file."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return Range(0, size - 1, is_partial=False)
    first, last = match.groups()
    if not first:
        return Range(max(0, size - int(last)), size - 1, is_partial=True) if int(last) and size else None
    if int(first) >= size or (last and int(last) < int(first)):
        return None
    return Range(int(first), min(int(last), size - 1) if last else size - 1, is_partial=True)
