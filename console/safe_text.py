"""Escaping of callback values: invisible, text-reversing and terminal control characters become visible, e.g. `[U+001B]`."""

from __future__ import annotations

import re

_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_LINE_BREAKS = re.compile("[\t\n]")


def plain(value: object) -> str:
    """Return a value as text with invisible and control characters escaped; line ends and tabs stay."""
    return _INVISIBLE.sub(_escape, str(value))


def plain_line(value: object) -> str:
    """Return a value as part of one line, with line ends and tabs escaped too."""
    return _LINE_BREAKS.sub(_escape, plain(value))


def _escape(match: re.Match[str]) -> str:
    return f"[U+{ord(match[0]):04X}]"
