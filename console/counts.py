"""Numbers of things in sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a number of things: `1 call`, `2 calls`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def either(count: int, one: str, several: str) -> str:
    """Return the words for one thing, or for several."""
    return one if count == 1 else several
