"""Free ports for the processes of one machine."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from shared.errors import ConfigError

# Below what Linux (from 32768) and macOS (from 49152) use for outgoing connections.
PORTS = (20_000, 32_000)
_reserved: set[int] = set()


def free_port() -> int:
    """Return a port that is free now, that the kernel gives to no connection, and that is reserved while this process lives.

    A server binds its port seconds after it was chosen. Until then, only the reservation keeps another process of this user from
    choosing the same port.

    Raises:
        ConfigError: the file of reservations cannot be opened.
    """
    while True:
        port = random.randrange(*PORTS)  # noqa: S311 - no secret
        if port in _reserved or not _lock(port):
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _reserved.add(port)
            return port


def _lock(port: int) -> bool:
    """Lock the byte of this port, until this process ends; False if another process holds it."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # POSIX leaves the choice to the system
        return False
    return True


@cache
def _reservations() -> int:
    """Open the file of this user in which each reserved port locks one byte. Closing it would free the locks."""
    path = Path(tempfile.gettempdir(), f"callfold-ports-{os.getuid()}")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"Cannot open {path}: {error.strerror}. Remove it, or set TMPDIR to another directory.") from error
