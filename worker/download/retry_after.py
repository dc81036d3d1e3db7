"""How long a PBX asks to wait: Retry-After (RFC 9110, 10.2.3), within limits, for a source or for one link."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from aiohttp import hdrs

from worker.download.http_ranges import date_of

_SECONDS = re.compile(r"\s*([0-9]{1,12})(?:\.[0-9]*)?\s*", re.ASCII)
# A server that asks for more is wrong, or is asked again in vain.
MAX_S = 3600.0
_MAX_LINKS = 10_000


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait that a response asks for, in seconds, at most `MAX_S`. None if there is none, or it cannot be read."""
    text = headers.get(hdrs.RETRY_AFTER, "")
    if seconds := _SECONDS.fullmatch(text):
        return min(float(seconds[1]), MAX_S)
    # RFC 9110 (5.6.7) has a form without a time zone, which is UTC.
    until = date_of(text, UTC)
    if until is None:
        return None
    # The two dates are from one clock, which may differ from ours.
    now = date_of(headers.get(hdrs.DATE), UTC) or datetime.now(UTC)
    return min(max((until - now).total_seconds(), 0.0), MAX_S)


class Pauses:
    """Until when a source, or one of its links, is not to be requested."""

    def __init__(self) -> None:
        self._source_until = 0.0
        self._link_until: dict[str, float] = {}

    def pause(self, wait_s: float) -> None:
        """Let no link of the source be requested for a while."""
        self._source_until = max(self._source_until, time.monotonic() + wait_s)

    def pause_link(self, url: str, wait_s: float) -> None:
        """Let one link not be requested for a while. The others of the source do not wait."""
        now = time.monotonic()
        if len(self._link_until) >= _MAX_LINKS:
            self._link_until = {link: until for link, until in self._link_until.items() if until > now}
        if len(self._link_until) < _MAX_LINKS:
            self._link_until[url] = now + wait_s

    def remaining_s(self, url: str) -> float:
        """Return how long a link is to wait; 0 if it need not."""
        return max(0.0, max(self._source_until, self._link_until.get(url, 0.0)) - time.monotonic())
