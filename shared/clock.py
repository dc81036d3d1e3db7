"""The current time in the form of facts."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_second = -1
_written = ""


def utc_now() -> str:
    """Return the current time in RFC 3339 UTC with microseconds. The part down to the second is formatted once a second."""
    global _second, _written  # noqa: PLW0603 - a cache; both are set before use, so it is never stale
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    if second != _second:
        _written = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second = second
    return f"{_written}.{nanoseconds // 1000:06d}Z"
