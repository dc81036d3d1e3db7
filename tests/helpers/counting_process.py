"""A process of Callfold that lists its asyncio tasks: on SIGUSR1 it writes what each runs into the file named by TASKS_FILE.

COUNTED_MODULE=worker TASKS_FILE=/tmp/tasks python -m tests.helpers.counting_process
"""

from __future__ import annotations

import asyncio
import gc
import os
import runpy
import signal
from pathlib import Path


def _write(*_: object) -> None:
    gc.collect()
    path = Path(os.environ["TASKS_FILE"])
    part = path.with_suffix(".part")
    part.write_text("\n".join(sorted(str(task.get_coro()).partition(" at 0x")[0] for task in asyncio.all_tasks())))
    part.rename(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _write)
    runpy.run_module(os.environ["COUNTED_MODULE"], run_name="__main__", alter_sys=True)
