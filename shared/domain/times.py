"""Times: RFC 3339 text, Java timestamps, milliseconds and microseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A timestamp further from its receipt is nonsense and must not date a call. A PBX may send its local time as UTC, and be wrong by
# minutes besides. A start may be older than its hangup by the longest call and a day.
_MAX_AHEAD = timedelta(days=1)
_MAX_BEHIND = timedelta(days=2)


_NUMBER = re.compile(r"([0-9]{10}|[0-9]{13}|[0-9]{16}|[0-9]{19})(\.[0-9]{1,9})?")
# A text without a zone could be the time of any place.
_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?) ?(Z|UTC|[+-]\d\d:?\d\d)", re.ASCII | re.IGNORECASE
)
_MAX_CHARACTERS = 64
# Units of a number with this many digits, in microseconds.
_UNITS = {10: 1_000_000, 13: 1000, 16: 1, 19: 0.001}


def java_time(text: str, received_at: str) -> str | None:
    """Convert a Java timestamp (milliseconds since 1970 UTC) to RFC 3339, or None if it is nonsense.

    Seconds, microseconds, decimals and ISO 8601 with a zone are read too. A time of the wrong unit would be far from its receipt.
    """
    if len(text) == len("1595496055313") and text.isdecimal() and text.isascii():
        at = _EPOCH + timedelta(milliseconds=int(text))
    elif (other := _other_time(text.strip())) is not None:
        at = other
    else:
        return None
    received = datetime.fromisoformat(received_at)
    return rfc3339(at) if received - _MAX_BEHIND <= at <= received + _MAX_AHEAD else None


def _other_time(text: str) -> datetime | None:
    """Read a time that is no Java timestamp; None if it is in no known form."""
    if len(text) > _MAX_CHARACTERS:
        return None
    if number := _NUMBER.fullmatch(text):
        unit_us = _UNITS[len(number[1])]
        return _EPOCH + timedelta(microseconds=int(number[1]) * unit_us + float(number[2] or 0) * unit_us)
    if written := _TEXT.fullmatch(text):
        zone = "Z" if written[3].upper() == "UTC" else written[3].upper()
        try:
            return datetime.fromisoformat(f"{written[1]}T{written[2]}{zone}").astimezone(UTC)
        except (OverflowError, ValueError):  # month 13 has the form but is not a time
            return None
    return None


def microseconds(at: str) -> int:
    """Convert an RFC 3339 time to microseconds since 1970."""
    return (datetime.fromisoformat(at) - _EPOCH) // timedelta(microseconds=1)


def at_microseconds(since_1970: int) -> str:
    """Convert microseconds since 1970 to an RFC 3339 time."""
    return rfc3339(_EPOCH + timedelta(microseconds=since_1970))


def milliseconds(at: str) -> int:
    """Convert an RFC 3339 time to milliseconds since 1970."""
    return (datetime.fromisoformat(at) - _EPOCH) // timedelta(milliseconds=1)


def seconds_between(since: str | None, until: str | None) -> float | None:
    """Return the seconds between two RFC 3339 times; None if one is unknown or they contradict each other."""
    if since is None or until is None or until < since:
        return None
    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()


def rfc3339(at: datetime) -> str:
    """Write a time in UTC with microseconds and `Z`. The width is fixed, so text order is time order."""
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
