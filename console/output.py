"""Consoles for people and for pipes."""

from __future__ import annotations

import sys

from rich.console import Console

_ENDLESS = 100_000


def standard_output() -> Console:
    """Make a console on standard output; where that is no terminal nothing is folded: who reads it wants whole lines."""
    return Console(width=None if sys.stdout.isatty() else _ENDLESS)
