"""Locks of files with flock(2). The kernel releases a lock when the file is closed, also by the death of its process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO


def open_lock_file(path: Path) -> int:
    """Open a file that exists only to be locked, and create it if necessary; returns its descriptor.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(file: BinaryIO | int, *, is_shared: bool = False) -> bool:
    """Lock an open file, alone or shared with others that do the same; returns False if another holder prevents that.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
