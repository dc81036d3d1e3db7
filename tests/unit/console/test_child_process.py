"""The supervisor of child processes: readiness, early exits, and the end of a process that ignores SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from console.local.child_process import ChildProcess, ProcessFailedError, first_of, while_all_run
from console.local.stack import Server
from tests.helpers.pace import LIMIT_S


def _child(directory: Path, script: str) -> ChildProcess:
    return ChildProcess("child", ["sh", "-c", script], os.environ, log=directory / "log")


async def _started(directory: Path, script: str) -> ChildProcess:
    """Start a script that creates the file `ready` once it is ready."""
    child = _child(directory, script.replace("READY", f"touch {directory}/ready"))

    async def is_ready() -> bool:
        return (directory / "ready").exists()

    await child.start_until(is_ready, within_s=LIMIT_S)
    return child


async def _never() -> bool:
    return False


async def test_an_exit_before_it_is_ready_is_an_error_with_the_log_of_this_start(tmp_path: Path) -> None:
    child = _child(tmp_path, "echo no such setting >&2; exit 3")
    (tmp_path / "log").write_text("an earlier start\n")
    with pytest.raises(ProcessFailedError, match=r"^child exited while starting\.\nEnd of .*log:\nno such setting$"):
        await child.start_until(_never, within_s=LIMIT_S)
    assert (child.returncode, child.is_running) == (3, False)


async def test_a_process_that_is_not_ready_in_time_is_an_error_and_can_still_be_ended(tmp_path: Path) -> None:
    child = _child(tmp_path, "exec sleep 600")
    with pytest.raises(ProcessFailedError, match=r"^child was not ready within 0\.2 s\."):
        await child.start_until(_never, within_s=0.2)
    await child.end(signal.SIGTERM, within_s=LIMIT_S)
    assert child.returncode == -signal.SIGTERM


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child = await _started(tmp_path, 'trap "" TERM; READY; while :; do sleep 0.05; done')
    await child.end(signal.SIGTERM, within_s=0.3)
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(ProcessFailedError, match="child is not running"):
        child.pause()


async def test_a_process_that_has_exited_still_has_a_process_id(tmp_path: Path) -> None:
    child = await _started(tmp_path, "READY; exec sleep 600")
    await child.end(signal.SIGTERM, within_s=LIMIT_S)
    assert (child.returncode, child.pid > 0) == (-signal.SIGTERM, True)


async def test_of_two_that_end_at_once_the_error_counts() -> None:
    async def succeeds() -> int:
        return 0

    async def fails() -> int:
        raise ProcessFailedError("child exited")

    with pytest.raises(ProcessFailedError, match="child exited"):
        await first_of(succeeds(), fails())


async def test_work_ends_with_the_first_child_that_exits(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    steady = await _started(other, "READY; exec sleep 600")
    child = await _started(tmp_path, "echo out of memory; READY; exec sleep 600")
    endless = asyncio.get_running_loop().create_future()

    async def work() -> None:
        child.send_signal(signal.SIGKILL)
        await endless

    with pytest.raises(ProcessFailedError, match=r"^child exited unexpectedly\.\nEnd of .*log:\nout of memory$"):
        await asyncio.wait_for(while_all_run(work(), [steady, child]), LIMIT_S)
    assert endless.cancelled()
    assert await while_all_run(asyncio.sleep(0, "done"), [steady]) == "done"
    await steady.end(signal.SIGTERM, within_s=LIMIT_S)


async def test_a_server_that_was_never_ready_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ ignores SIGTERM while it boots."""
    monkeypatch.setattr("console.local.stack._STOP_BOOTING_S", 0.2)
    monkeypatch.setattr("console.local.stack._STOP_TIMEOUT_S", 600)
    script = f'trap "" TERM; touch {tmp_path}/trapped; while :; do sleep 0.05; done'
    server = Server("booting", ["sh", "-c", script], os.environ, port=1, log=tmp_path / "log")
    starting = asyncio.create_task(server.start())
    async with asyncio.timeout(LIMIT_S):
        while not (tmp_path / "trapped").exists():
            await asyncio.sleep(0.01)
        starting.cancel()
        await server.stop()
    assert server.returncode == -signal.SIGKILL
