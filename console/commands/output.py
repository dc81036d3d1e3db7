"""Printing for terminals and for pipes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_NO_WRAP = 100_000


def output(*, on_stderr: bool = False) -> Console:
    """Return a console on stdout or stderr. It wraps lines only on a terminal: a program that reads a pipe needs whole lines."""
    from rich.console import Console  # noqa: PLC0415 - most commands print plain lines

    stream = sys.stderr if on_stderr else sys.stdout
    return Console(width=None if stream.isatty() else _NO_WRAP, stderr=on_stderr)
