"""Which processes use a spool directory: each holds a shared lock of the directory itself, so no lock file is needed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from shared.file_lock import try_lock

# Another process holds the exclusive lock only for the moment in which it asks, or deletes empty files.
_TIMEOUT_S, _POLL_S = 1.0, 0.02


class SpoolUse:
    """The use of a directory by this process, until it is closed. On a file system without locks no other use is seen."""

    def __init__(self, directory: Path) -> None:
        self._handle = _open(directory)
        until = time.monotonic() + _TIMEOUT_S
        while not self._share() and time.monotonic() < until:
            time.sleep(_POLL_S)

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def is_alone(self) -> bool:
        """Return whether no other process uses the directory."""
        is_alone = self.try_exclude()
        self._share()
        return is_alone

    def leave_to_others(self) -> bool:
        """End the use if another process uses the directory; returns whether it ended.

        If all processes of a directory ask at once, one of them stays. The next one that asks does not see those that left.
        """
        if self.try_exclude():
            self._share()
            return False
        self.close()
        return True

    def try_exclude(self) -> bool:
        """Keep other processes out of the directory until `close`, if none uses it. The own use ends otherwise."""
        if self._handle is None:
            return True
        try:
            return try_lock(self._handle)
        except OSError:
            return True

    def _share(self) -> bool:
        if self._handle is None:
            return True
        try:
            return try_lock(self._handle, is_shared=True)
        except OSError:
            return True


def is_used(directory: Path) -> bool:
    """Return whether a process uses the directory.

    The look takes no shared lock: an ingress that stops just then would take it for a use, and leave its spool to it.
    """
    handle = _open(directory)
    if handle is None:
        return False
    try:
        return not try_lock(handle)
    except OSError:
        return False
    finally:
        os.close(handle)


def is_drain_locked(directory: Path) -> bool:
    """Return whether a process, also of an earlier release, drains a file of the directory."""
    return any(map(_is_locked, directory.glob("*drain.lock")))


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not try_lock(handle, is_shared=True)
    except OSError:
        return False
    finally:
        os.close(handle)


def _open(directory: Path) -> int | None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
