"""The files of a spool in its directory, as the operating system sees them: which they are, their lock, and their removal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from shared.file_lock import open_lock_file, try_lock

_LOCK_TIMEOUT_S, _LOCK_POLL_S = 5.0, 0.02
_LOG, _INDEX = "-wal", "-shm"
NO_LOG = 0
SET_ASIDE, KEPT = ".damaged-", ".salvaged-"

Identity = tuple[int, int, int]
"""Device and number of the file, and number of its log, or NO_LOG."""


class LockHeldError(OSError):
    """Another process holds the lock, and did so for as long as an attempt waits."""


class SpoolPaths:
    """The file at `path`, with the log and the index that SQLite keeps next to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # In this order: without the file, the others would be taken for those of the next file.
        self._parts = [self._next_to(_INDEX), self._next_to(_LOG), path]

    def identity(self) -> Identity:
        """Return which file and which log are in the directory.

        Raises:
            OSError: there is no file.
        """
        status = self.path.stat()
        try:
            return status.st_dev, status.st_ino, self._next_to(_LOG).stat().st_ino
        except FileNotFoundError:
            return status.st_dev, status.st_ino, NO_LOG

    def is_without_file(self) -> bool:
        """Return whether the log or the index is there, and the file is not."""
        return not self.path.exists() and any(part.exists() for part in self._parts)

    def delete(self) -> None:
        for part in self._parts:
            part.unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Rename the file and its parts, whole, so that nothing in them is lost; returns the new name of the file."""
        at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return self._rename(self.path.with_name(f"{self.path.name}{SET_ASIDE}{at}"))

    def keep(self) -> Path:
        """Rename a file that was set aside, once its readable rows are published; returns the new name."""
        return self._rename(self.path.with_name(self.path.name.replace(SET_ASIDE, KEPT)))

    def _rename(self, target: Path) -> Path:
        for part in reversed(self._parts):
            with suppress(FileNotFoundError):
                part.rename(target.with_name(target.name + part.name.removeprefix(self.path.name)))
        return target

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock under which the processes of a machine open, set aside and replace the file.

        Raises:
            LockHeldError: another process holds it for too long.
            OSError: it cannot be opened.
        """
        handle = open_lock_file(self._next_to(".lock"))
        try:
            until = time.monotonic() + _LOCK_TIMEOUT_S
            while not try_lock(handle):
                if time.monotonic() > until:
                    raise LockHeldError(f"another process holds the lock of {self.path}")
                time.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(handle)

    def _next_to(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)
