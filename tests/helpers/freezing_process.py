"""A worker that freezes once, where CALLFOLD_CRASH_AT would kill it, until it gets SIGCONT.

CALLFOLD_CRASH_AT=rebuild.replayed python -m tests.helpers.freezing_process
"""

from __future__ import annotations

import os
import runpy
import signal
from types import SimpleNamespace

from shared import crash_points


def _freeze(pid: int, _: int) -> None:
    del os.environ[crash_points.VARIABLE]
    os.kill(pid, signal.SIGSTOP)


if __name__ == "__main__":
    # In a process that starts warm, other modules have imported the function already.
    crash_points.os = SimpleNamespace(environ=os.environ, getpid=os.getpid, kill=_freeze)  # type: ignore[assignment, attr-defined]
    runpy.run_module("worker", run_name="__main__", alter_sys=True)
