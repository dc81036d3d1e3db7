"""Ages like `90s`, `15m`, `2h` and `7d`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from shared.errors import ConfigError

_DURATION = re.compile(r"(\d+)([smhd])")
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def ago(text: str, now: datetime | None = None) -> datetime:
    """Return the time that an age refers to, counted from now or from the given time; 1970 at the earliest.

    RabbitMQ finds nothing from an earlier time on, instead of everything.

    Raises:
        ConfigError: the text is not an age.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"{text!r} is not a duration. Expected a number with s, m, h or d, e.g. 90s or 2h.")
    try:
        return max(_EARLIEST, (now or datetime.now(UTC)) - timedelta(**{_UNITS[match[2]]: int(match[1])}))
    except (OverflowError, ValueError):  # as of a number of thousands of digits
        return _EARLIEST


def moment(text: str, now: datetime | None = None) -> datetime:
    """Parse a time in RFC 3339, an age like `2h`, or `now`; 1970 at the earliest, as in `ago`.

    Raises:
        ConfigError: it is none of these, or no time of the years 1 to 9999 in UTC.
    """
    if text.strip().casefold() == "now":
        return now or datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text.strip())
        if at.tzinfo is not None:
            return max(_EARLIEST, at.astimezone(UTC))
    except (ValueError, OverflowError):  # an age, or a time that is in no year in UTC
        pass
    try:
        return ago(text.strip(), now)
    except ConfigError:
        raise ConfigError(
            f"{text!r} is neither a duration nor a time. "
            "Expected RFC 3339 like 2026-11-23T07:44:00Z, an age like 90s or 2h, or now."
        ) from None
