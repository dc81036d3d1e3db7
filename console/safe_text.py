"""Values of callbacks made harmless: what would not be seen, turn text around or move a terminal is shown as what it is."""

from __future__ import annotations

import re

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_BETWEEN_LINES = re.compile("[\t\n]")


def plain(value: object) -> str:
    """Write a value with control characters and those that turn the direction of text shown as what they are."""
    return _UNSEEN.sub(_shown, str(value))


def plain_line(value: object) -> str:
    """Write a value as part of one line: line ends and tabs, too, are shown as what they are."""
    return _BETWEEN_LINES.sub(_shown, plain(value))


def _shown(found: re.Match[str]) -> str:
    return f"[U+{ord(found[0]):04X}]"
