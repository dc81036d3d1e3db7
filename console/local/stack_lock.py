"""A lock file that allows one stack per directory and holds its process id. The kernel releases it when the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shared.errors import ConfigError

_PID_BYTES = 20


def take(directory: Path) -> int:
    """Lock an existing directory for this process; returns the file descriptor that holds the lock.

    Raises:
        ConfigError: another process holds it.
    """
    handle = os.open(_file(directory), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(handle, _PID_BYTES).decode("ascii", "replace").strip()
        os.close(handle)
        raise ConfigError(
            f"Callfold already runs in {directory} (process {pid or 'unknown'}). Stop it with Ctrl-C in its terminal"
            f"{f' or `kill {pid}`' if pid else ''}, or name another --directory."
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def check(directory: Path) -> None:
    """Check that `take` would succeed, without creating the directory.

    Raises:
        ConfigError: another process holds it.
    """
    if _file(directory).exists():
        os.close(take(directory))


def _file(directory: Path) -> Path:
    return directory / "lock"
