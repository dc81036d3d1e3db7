"""Is what comes now the rest of what is there? HTTP ranges and validators (RFC 9110, 8.8, 13.1.5, 14.4 and 15.3.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from aiohttp import hdrs

from worker.download.partial_file import Partial

# No length of a file has more digits; Python refuses to read thousands of them.
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.ASCII)
_STRONG_TAG = re.compile(r'"[!#-~]*"')
# A file can be written twice within the second that a date tells, and a server's clock is not its file system's.
_SETTLED = timedelta(seconds=60)


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Find what If-Range can be asked with: a strong entity tag, or, where there is no tag at all, a date long past."""
    if headers.get(hdrs.ACCEPT_RANGES, "").lower() == "none":
        return None
    tag = headers.get(hdrs.ETAG)
    if tag is not None:
        return tag if _STRONG_TAG.fullmatch(tag) else None
    modified, now = _date(headers.get(hdrs.LAST_MODIFIED)), _date(headers.get(hdrs.DATE))
    return headers[hdrs.LAST_MODIFIED] if modified and now and now - modified >= _SETTLED else None


def continues(headers: Mapping[str, str], part: Partial) -> bool:
    """Tell whether an answer 206 is exactly what is missing of the part; one that does not repeat the validator is not."""
    found = _CONTENT_RANGE.fullmatch(headers.get(hdrs.CONTENT_RANGE, ""))
    if not part.size or not found or found[1] is None or int(found[1]) != part.size:
        return False
    if not _repeats(headers, part.validator) or encoding_of(headers) != part.encoding:
        return False
    if found[3] == "*":
        return part.total is None
    if part.total is None:
        part.total = int(found[3])
    return int(found[3]) == part.total and int(found[2]) < part.total


def total_of(headers: Mapping[str, str]) -> int | None:
    """Read the whole length out of `Content-Range: bytes */123`."""
    found = _CONTENT_RANGE.fullmatch(headers.get(hdrs.CONTENT_RANGE, ""))
    return int(found[3]) if found and found[3] != "*" else None


def encoding_of(headers: Mapping[str, str]) -> str:
    """Read Content-Encoding in lower case; bytes that are no ASCII are written out, so that it can be kept and told."""
    return headers.get(hdrs.CONTENT_ENCODING, "").lower().encode("ascii", "backslashreplace").decode("ascii")


def _repeats(headers: Mapping[str, str], validator: str | None) -> bool:
    tag = headers.get(hdrs.ETAG)
    return validator is not None and validator == (headers.get(hdrs.LAST_MODIFIED) if tag is None else tag)


def _date(told: str | None) -> datetime | None:
    try:
        read = parsedate_to_datetime(told) if told and told.isascii() else None
    except (ValueError, OverflowError):
        return None
    return read if read and read.tzinfo else None
