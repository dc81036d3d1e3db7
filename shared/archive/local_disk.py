"""Files on disk: a file has its name only if it is complete, even after a crash (docs/adr/0005-archive-writes.md).

Every attempt writes its own temporary file in `.incomplete`. So two writers never share one, even if a thread outlives its
deadline. The writer locks the file with flock(2). A killed process loses its locks, so `sweep` can recognize its files.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from shared.errors import CallfoldError
from shared.file_lock import try_lock

INCOMPLETE = ".incomplete"
PROBE = ".probe-"
"""Begins the names of the small files with which an archive is checked."""
_SUFFIX = ".callfold-tmp"
_COPY_BYTES = 1 << 20
# The file is fsynced in steps of this size, so that a slow disk shows progress.
_SYNC_BYTES = 64 << 20
# Far longer than a write may take. If the file system has no locks, an older temporary file is abandoned.
_ABANDONED_S = 86400

Confirm = Callable[[], Awaitable[None]]
OnProgress = Callable[[], object]


class TakenError(CallfoldError):
    """The file must be new, but its name is taken."""


class DurableDirectory:
    """Writes files in a directory that is on one file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Directories that have been fsynced, and their parents too.
        self._durable: set[Path] = set()

    async def put(
        self,
        path: str,
        content: BinaryIO | bytes,
        *,
        confirm: Confirm | None = None,
        is_new: bool = False,
        on_progress: OnProgress = lambda: None,
    ) -> None:
        """Write a file: temporary file, fsync, `confirm`, rename, fsync of the directory.

        `confirm` is awaited immediately before the rename. If it raises, the file does not get its name. A cancelled write is
        never renamed, although its thread continues. `on_progress` is called in that thread for each piece.

        Raises:
            OSError: the file could not be written.
            TakenError: `is_new`, and the file exists.
        """
        temporary = _TemporaryFile(self._root / INCOMPLETE / f"{uuid.uuid4().hex}{_SUFFIX}")
        try:
            await asyncio.to_thread(temporary.write, content, on_progress)
            if confirm is not None:
                await confirm()
            await asyncio.to_thread(self._name, temporary, path, is_new)
        except BaseException:
            temporary.abandon()
            raise

    def _name(self, temporary: _TemporaryFile, path: str, is_new: bool) -> None:  # noqa: FBT001 - of `to_thread`
        final = self._root / path
        if not final.parent.exists():
            self._durable.discard(final.parent)
            final.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(final, is_new=is_new)
        _fsync_directory(final.parent)
        if final.parent not in self._durable:
            for directory in final.parent.relative_to(self._root).parents:  # a new directory is an entry in its parent
                _fsync_directory(self._root / directory)
            self._durable.add(final.parent)

    def sweep(self) -> None:
        """Remove the temporary files and probes of killed processes. Not for the event loop."""
        for probe in self._root.glob(f"{PROBE}*"):
            with suppress(FileNotFoundError):
                if _is_old(probe.stat()):
                    probe.unlink()
        for path in (self._root / INCOMPLETE).glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError), path.open("rb") as file:
                if _is_abandoned(file):
                    path.unlink()


def _is_abandoned(file: BinaryIO) -> bool:
    """Return whether no process writes a temporary file. If so, it stays locked until `file` is closed."""
    try:
        return try_lock(file)
    except OSError:  # the file system has no locks
        return _is_old(os.fstat(file.fileno()))


def _is_old(status: os.stat_result) -> bool:
    return time.time() - status.st_mtime > _ABANDONED_S


class _TemporaryFile:
    """The temporary file of one attempt, locked until it is renamed or removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_abandoned = threading.Event()
        self._closing = threading.Lock()
        self._held: int | None = None  # keeps the lock after the file is closed

    def write(self, content: BinaryIO | bytes, on_progress: OnProgress) -> None:
        self._path.parent.mkdir(exist_ok=True)
        try:
            with self._created() as file:
                self._held = os.dup(file.fileno())
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    self._copy(content, file, on_progress)
                file.flush()
                os.fsync(file.fileno())
            self._check()
        except BaseException:  # includes ValueError: another thread closed the content
            self._remove()
            raise

    def _created(self) -> BinaryIO:
        while True:
            file: BinaryIO = self._path.open("xb")
            with suppress(OSError):  # the file system has no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if self._path.exists():
                return file
            file.close()  # swept before it was locked

    def _copy(self, content: BinaryIO, file: BinaryIO, on_progress: OnProgress) -> None:
        content.seek(0)
        written = 0
        while piece := content.read(_COPY_BYTES):
            self._check()
            file.write(piece)
            written += len(piece)
            if written % _SYNC_BYTES < _COPY_BYTES:
                file.flush()
                os.fsync(file.fileno())
            on_progress()

    def rename(self, final: Path, *, is_new: bool) -> None:
        self._check()
        if is_new:
            self._link(final)
        else:
            self._path.rename(final)
        self._release()

    def _link(self, final: Path) -> None:
        """Give the file its name if the name is free. This is one step, because another writer may want the name too."""
        try:
            final.hardlink_to(self._path)
        except FileExistsError as error:
            raise TakenError(f"{final.name} already exists") from error
        except OSError:  # a file system without hard links
            if final.exists():
                raise TakenError(f"{final.name} already exists") from None
            self._path.rename(final)
            return
        self._path.unlink()

    def abandon(self) -> None:
        """Make a thread that still writes stop at its next piece, and remove the file without waiting for the thread."""
        self._is_abandoned.set()
        asyncio.get_running_loop().run_in_executor(None, self._remove)

    def _check(self) -> None:
        if self._is_abandoned.is_set():
            raise TimeoutError("the write was cancelled")

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        with self._closing:
            held, self._held = self._held, None
        if held is not None:
            os.close(held)


def _fsync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
