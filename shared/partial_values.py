"""The part of a value that an error, a log or an audit may show."""

from __future__ import annotations

_SHOWN_CHARACTERS = 20
_DIGITS_OF_A_CODE = 4


def mask(value: str) -> str:
    """Return the first characters of a value, at most a quarter of it, and `***`."""
    shown = min(4, len(value) // 4)
    return f"{value[:shown]}***" if value else ""


def shorten_name(value: str) -> str:
    """Return the start of a value that should be a name or a code. A value with more digits than a code is masked instead."""
    if sum(character.isdigit() for character in value) > _DIGITS_OF_A_CODE:
        return mask(value)
    shown = "".join(character if character.isprintable() else "?" for character in value[:_SHOWN_CHARACTERS])
    return shown if len(value) <= _SHOWN_CHARACTERS else f"{shown}..."
