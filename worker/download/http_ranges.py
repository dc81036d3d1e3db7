"""Checks that a response continues a partial download: HTTP ranges and validators (RFC 9110, 8.8, 13.1.5, 14.4, 15.3.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp import hdrs

from worker.download.partial_file import Partial

# No file size has more digits. Python refuses to parse thousands of them.
_CONTENT_RANGE = re.compile(r"bytes[ =](?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_STRONG_TAG = re.compile(r'"[!#-~]*"')
# A date has a resolution of one second, in which a file can change twice. The clocks of a server and its file system can differ.
_SETTLED = timedelta(seconds=60)

_CONTENT_ENCODING = "content-encoding"
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416
# A proxy that has changed a header answers 203 instead of 200.
_WHOLE = frozenset({200, 203})


def is_content(status: int, part: Partial) -> bool:
    """Return whether a response with this status has a part of the recording, or says that nothing is missing."""
    return status in _WHOLE or status == _PARTIAL or (status == _RANGE_NOT_SATISFIABLE and part.size > 0)


def prepare(response: aiohttp.ClientResponse, part: Partial) -> bool | None:
    """Prepare a partial download for the body of a response.

    Returns:
        None if the body is to be read. True if the download is complete. False if the two do not match, and it was discarded.
    """
    status, headers = response.status, response.headers
    if status == _PARTIAL and part.size:
        if is_continuation(headers, part):
            return None
    elif status == _RANGE_NOT_SATISFIABLE:
        # Within one attempt the two lengths are of one content, and a Content-Length that was too large was wrong.
        if total_of(headers) == part.size and (part.total in {None, part.size} or part.is_of_this_attempt):
            return True
    elif status in _WHOLE or begins_whole(headers):
        total = total_of(headers) if status == _PARTIAL else None
        part.restart(validator_of(headers), total or response.content_length, encoding_of(headers))
        return None
    part.restart()
    return False


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Return the value for If-Range: a strong entity tag, or a date long past if there is no tag."""
    if headers.get(hdrs.ACCEPT_RANGES, "").lower() == "none":
        return None
    tag = headers.get(hdrs.ETAG)
    if tag is not None:
        return tag if _STRONG_TAG.fullmatch(tag) else None
    modified, now = date_of(headers.get(hdrs.LAST_MODIFIED)), date_of(headers.get(hdrs.DATE))
    return headers[hdrs.LAST_MODIFIED] if modified and now and now - modified >= _SETTLED else None


def is_continuation(headers: Mapping[str, str], part: Partial) -> bool:
    """Return whether a 206 response is exactly the rest of the partial download. It must repeat the validator."""
    content_range = _CONTENT_RANGE.fullmatch(headers.get(hdrs.CONTENT_RANGE, ""))
    if not part.size or not content_range or content_range[1] is None or int(content_range[1]) != part.size:
        return False
    if not _repeats(headers, part.validator) or encoding_of(headers) != part.encoding:
        return False
    if content_range[3] == "*":
        return part.total is None
    if part.total is None:
        part.total = int(content_range[3])
    return int(content_range[3]) == part.total and int(content_range[2]) < part.total


def total_of(headers: Mapping[str, str]) -> int | None:
    """Return the total length from `Content-Range: bytes */123`, or from that of a part."""
    content_range = _CONTENT_RANGE.fullmatch(headers.get(hdrs.CONTENT_RANGE, ""))
    return int(content_range[3]) if content_range and content_range[3] != "*" else None


def begins_whole(headers: Mapping[str, str]) -> bool:
    """Return whether a 206 response to a request without Range may begin with the first byte. Some servers always answer so.

    Without a range that can be read, the audio decides whether it is whole.
    """
    content_range = _CONTENT_RANGE.fullmatch(headers.get(hdrs.CONTENT_RANGE, ""))
    return content_range is None or int(content_range[1] or 0) == 0


def is_ended_by_server(headers: Mapping[str, str]) -> bool:
    """Return whether a response says where it ends. Otherwise it ends with its connection, even if that has failed."""
    return hdrs.CONTENT_LENGTH in headers or "chunked" in headers.get(hdrs.TRANSFER_ENCODING, "").lower()


def encoding_of(headers: Mapping[str, str]) -> str:
    """Return all Content-Encodings in lower case. Other bytes than ASCII are escaped, so that they can be stored and logged."""
    values = [value for name, value in headers.items() if name.lower() == _CONTENT_ENCODING]
    return ", ".join(values).lower().encode("ascii", "backslashreplace").decode("ascii")


def _repeats(headers: Mapping[str, str], validator: str | None) -> bool:
    tag = headers.get(hdrs.ETAG)
    return validator is not None and validator == (headers.get(hdrs.LAST_MODIFIED) if tag is None else tag)


def date_of(text: str | None, zone: tzinfo | None = None) -> datetime | None:
    """Read a date of a header. None if there is none, it cannot be read, or it has no time zone and there is no other `zone`."""
    try:
        date = parsedate_to_datetime(text) if text and text.isascii() else None
    except (ValueError, OverflowError):
        return None
    date = date and date.replace(tzinfo=date.tzinfo or zone)
    return date if date and date.tzinfo else None
