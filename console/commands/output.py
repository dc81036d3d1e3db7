"""What commands print: for people on a terminal, and whole for whoever reads a pipe."""

from __future__ import annotations

import sys

from rich.console import Console

_ENDLESS = 100_000


def output(*, on_stderr: bool = False) -> Console:
    """Make a console on standard output, or error; where that is no terminal nothing is folded: pipes want whole lines."""
    stream = sys.stderr if on_stderr else sys.stdout
    return Console(width=None if stream.isatty() else _ENDLESS, stderr=on_stderr)


def counted(count: int, noun: str) -> str:
    """Write a number of things: `1 call`, `2 calls`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
