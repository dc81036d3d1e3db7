"""Python 3.11.0 to 3.11.3 put whatever an `except*` raises into a group, which no caller expects: Debian 12 has 3.11.2."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("clients", "console", "ingress", "shared", "simulator", "worker")


def _raised_in_except_star(source: str) -> Iterator[int]:
    """Find the lines on which the body of an `except*` raises or exits."""
    for handling in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.TryStar)):
        for node in (node for handler in handling.handlers for node in ast.walk(handler)):
            if isinstance(node, ast.Raise) or (isinstance(node, ast.Attribute) and node.attr == "exit"):
                yield node.lineno


def test_nothing_is_raised_in_an_except_star() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    assert [f"{path}:{line}" for path in files for line in _raised_in_except_star(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("last", ["raise ValueError from None", "sys.exit(1)"])
def test_what_raises_is_found(last: str) -> None:
    assert list(_raised_in_except_star(f"try:\n    pass\nexcept* OSError:\n    {last}\n")) == [4]
