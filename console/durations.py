"""Reading the journals: the streams `calls.journal` and `callbacks.journal`, from now on or from some time ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from shared.errors import ConfigError
from shared.log import get_logger

log = get_logger(__name__)

_DURATION = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def ago(text: str, now: datetime | None = None) -> datetime:
    """Turn `90s`, `15m`, `2h` or `7d` into the time that long ago, or that long before another time.

    Raises:
        ConfigError: the text is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"{text!r} is not a duration: expected a number with s, m, h or d, like 90s or 2h.")
    return (now or datetime.now(UTC)) - timedelta(**{_UNITS[match[2]]: int(match[1])})
