"""Times: RFC 3339 text, Java timestamps, milliseconds and microseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A timestamp further from its receipt is nonsense and must not date a call. A PBX clock may be a little ahead. A start may be
# older than its hangup by the longest call and a day.
_MAX_AHEAD = timedelta(minutes=5)
_MAX_BEHIND = timedelta(days=2)


def java_time(text: str, received_at: str) -> str | None:
    """Convert a Java timestamp (milliseconds since 1970 UTC) to RFC 3339, or None if it is nonsense."""
    if not (text.isascii() and text.isdigit()) or len(text) > len("9999999999999"):
        return None
    at = _EPOCH + timedelta(milliseconds=int(text))
    received = datetime.fromisoformat(received_at)
    return rfc3339(at) if received - _MAX_BEHIND <= at <= received + _MAX_AHEAD else None


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
