"""What commands print: for people on a terminal, and whole for whoever reads a pipe."""

from __future__ import annotations

import sys

from rich.console import Console

_ENDLESS = 100_000


def standard_output() -> Console:
    """Make a console on standard output; where that is no terminal nothing is folded: who reads it wants whole lines."""
    return Console(width=None if sys.stdout.isatty() else _ENDLESS)


def counted(count: int, noun: str) -> str:
    """Write a number of things: `1 call`, `2 calls`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
