"""The tools that the other tests of this folder use are there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "build" / "tools" / "bin"


@pytest.mark.parametrize(
    "command", [("helm", "version"), ("kubectl", "version", "--client"), ("hadolint", "--version")], ids="-".join
)
def test_tool_runs(command: tuple[str, ...]) -> None:
    name, *options = command
    assert subprocess.run([TOOLS / name, *options], check=True, capture_output=True, text=True, timeout=60).stdout
