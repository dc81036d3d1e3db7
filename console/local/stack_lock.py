"""A lock file that allows one stack per directory and holds its process id. The kernel releases it when the process ends."""

from __future__ import annotations

import os
from pathlib import Path

from shared.errors import ConfigError
from shared.file_lock import open_lock_file, try_lock

_PID_BYTES = 20


def take(directory: Path) -> int:
    """Lock an existing directory for this process; returns the file descriptor that holds the lock.

    Raises:
        ConfigError: another process holds it.
    """
    handle = open_lock_file(_file(directory))
    if not try_lock(handle):
        pid = os.read(handle, _PID_BYTES).decode("ascii", "replace").strip()
        os.close(handle)
        raise ConfigError(
            f"Callfold already runs in {directory} (process {pid or 'unknown'}). Stop it with Ctrl-C in its terminal"
            f"{f' or `kill {pid}`' if pid else ''}, or name another --directory."
        )
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
