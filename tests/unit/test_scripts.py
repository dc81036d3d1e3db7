"""Lua scripts: each says in its header what it takes and what it returns, and returns that or nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# Without a first line with flags, Redis runs a script while its memory is full, and fails it in the middle of its writes.
FLAGS = {
    "fence": "allow-oom",
    "fields": "no-writes",
    "finish": "allow-oom",
    "lock": "allow-oom",
    "look": "allow-oom",
    "mark": "allow-oom",
    "reports": "no-writes",
    "schedule": "allow-oom",
    "swap": "allow-oom",
    "take": "allow-oom",
}
SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "shared" / "state" / "scripts").glob("*.lua"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_states_what_it_takes_and_returns(script: Path) -> None:
    text = script.read_text("utf-8")
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("--"))
    assert re.search(r"^-- KEYS", header, re.MULTILINE)
    assert re.search(r"^-- ARGV", header, re.MULTILINE)
    (returns,) = re.findall(r"^-- Returns +(.+)$", header, re.MULTILINE)
    assert (returns == "nothing") == (re.search(r"^return ", text, re.MULTILINE) is None)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_declares_when_redis_may_run_it(script: Path) -> None:
    flags = FLAGS.get(script.stem)
    assert script.read_text("utf-8").splitlines()[0] == (f"#!lua flags={flags}" if flags else "#!lua")
