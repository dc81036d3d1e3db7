"""A process reports to its supervisor that it serves."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from shared.runtime.supervisor import report_ready


@pytest.mark.parametrize("is_abstract", [False, True])
def test_it_reports_once_that_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_abstract: bool) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(f"\0{path}" if is_abstract else path)
        supervisor.setblocking(False)  # noqa: FBT003 - the standard library's argument
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}" if is_abstract else path)
        report_ready()
        assert supervisor.recv(100) == b"READY=1"


def test_without_a_supervisor_or_with_one_that_is_gone_the_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    report_ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    report_ready()
