"""One stack a directory: a locked file in it tells which process runs there. The lock ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shared.errors import ConfigError

_PID_BYTES = 20


def take(directory: Path) -> int:
    """Lock a directory that is there for this process; returns the open file that holds the lock.

    Raises:
        ConfigError: another process has it.
    """
    handle = os.open(_file(directory), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(handle, _PID_BYTES).decode("ascii", "replace").strip()
        os.close(handle)
        raise ConfigError(
            f"Callfold already runs in {directory} (process {pid or 'not known'}): stop it with Ctrl-C in its terminal"
            f"{f' or `kill {pid}`' if pid else ''}, or name another --directory."
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def check(directory: Path) -> None:
    """Find out beforehand whether `take` would find a directory taken.

    Raises:
        ConfigError: another process has it.
    """
    if _file(directory).exists():
        os.close(take(directory))


def _file(directory: Path) -> Path:
    return directory / "lock"
