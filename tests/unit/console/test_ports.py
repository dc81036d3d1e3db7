from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest

from console.local import ports
from shared.errors import ConfigError
from tests.helpers.servers import ROOT

# Two processes choose 20 ports each out of 60, so without reservations they would choose some port twice. No other test chooses these.
RANGE = (19_000, 19_060)
CHOOSE = (
    f"from console.local import ports; ports.PORTS = {RANGE}; print(*(ports.free_port() for _ in range(20)), flush=True); input()"
)


def test_two_processes_that_live_at_the_same_time_never_choose_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", CHOOSE]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        theirs = {int(port) for port in other.stdout.readline().split()}
        monkeypatch.setattr(ports, "PORTS", RANGE)
        ours = {ports.free_port() for _ in range(20)}
        other.stdin.close()
    assert len(theirs) == len(ours) == 20
    assert theirs & ours == set()


def test_the_file_of_reservations_that_cannot_be_opened_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    monkeypatch.setattr(ports, "_reservations", ports._reservations.__wrapped__)
    with pytest.raises(ConfigError, match=r"^Cannot open /nowhere/callfold-ports-\d+: No such file or directory\."):
        ports.free_port()
