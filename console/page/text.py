"""Values as readable text: times, durations, sizes, and long values cut short.

The templates escape HTML (Jinja2, always on). `console.safe_text` makes invisible characters visible.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from console.safe_text import plain
from shared.domain.times import rfc3339

CLIP_CHARACTERS = 160
_FORM_CHARACTERS = 20_000
BODY_CHARACTERS = 20_000
NOT_KNOWN = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def moved(at: str, by_s: float) -> str:
    """Return an RFC 3339 time on a clock that is ahead by some seconds."""
    return rfc3339(datetime.fromisoformat(at) + timedelta(seconds=by_s)) if by_s else at


def clip(value: object, characters: int = CLIP_CHARACTERS) -> str:
    """Write a value; a long one is cut and its full length added."""
    text = str(value)
    if len(text) <= characters:
        return plain(text)
    return f"{plain(text[:characters])}… ({len(text)} characters)"


def plain_lines(value: object) -> str:
    """Write lines of a form, each as plain text."""
    return "\n".join(plain(line) for line in str(value)[:_FORM_CHARACTERS].splitlines())


def body(value: object) -> str:
    """Write the body of a message, which may be long."""
    return clip(value, BODY_CHARACTERS)


def clock(at: str | None) -> str:
    """Write the time of day of an RFC 3339 time (`07:44:00`), or a dash if there is none."""
    return at[11:19] if at else NOT_KNOWN


def precise(at: str | None) -> str:
    """Write the time of day with milliseconds: `07:44:00.123`."""
    return at[11:23].removesuffix("Z") if at else NOT_KNOWN


def moment(at: str | None) -> str:
    """Write date and time of an RFC 3339 time: `2026-11-23 07:44:00`."""
    return f"{at[:10]} {at[11:19]}" if at else NOT_KNOWN


def seconds_between(since: str, until: str) -> float:
    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()


def duration(seconds: float | None) -> str:
    """Write a duration in its two largest units: `0.4 s`, `42 s`, `3 min 05 s`, `15 min`, `2 h 10 min`, `1 d 3 h`."""
    if seconds is None:
        return NOT_KNOWN
    sign, size = (MINUS if seconds < 0 else ""), abs(seconds)
    if size < _MINUTE_S:
        return f"{sign}{size:.1f} s" if size < 10 and round(size, 1) % 1 else f"{sign}{size:.0f} s"  # noqa: PLR2004 - tenths matter below ten
    whole = round(size)
    if whole < _HOUR_S:
        return f"{sign}{whole // _MINUTE_S} min {whole % _MINUTE_S:02d} s".removesuffix(" 00 s")
    if whole < _DAY_S:
        return f"{sign}{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02d} min".removesuffix(" 00 min")
    return f"{sign}{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def delay(seconds: float | None) -> str:
    """Write the delay from an event to its callback: `+0.180 s`, `+12 s`."""
    if seconds is None:
        return NOT_KNOWN
    sign = MINUS if seconds < 0 else "+"
    return f"{sign}{abs(seconds):.3f} s" if abs(seconds) < 10 else f"{sign}{duration(abs(seconds))}"  # noqa: PLR2004 - as in `duration`


def size(count: int | None) -> str:
    """Write a number of bytes: `812 B`, `1.4 MB`."""
    if count is None:
        return NOT_KNOWN
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":  # noqa: PLR2004 - the SI step
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def number(count: int | None) -> str:
    """Write a count with a space between thousands; `?` if it is unknown."""
    return "?" if count is None else f"{count:,}".replace(",", " ")
