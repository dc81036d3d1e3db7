"""Files on disk: a file is at its name whole, or not at all, whatever dies in between (docs/adr/0005-archive-writes.md).

Every try writes a file of its own in `.incomplete`, so that no two writers, and no thread that outlives its deadline, ever
have the same one in hand. A file there is locked (flock(2)) for as long as somebody works on it; what a killed process leaves
is not, and is swept.
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

INCOMPLETE = ".incomplete"
_SUFFIX = ".callfold-tmp"
_COPY_BYTES = 1 << 20
# What is written is brought to the disk bit by bit, so that a slow disk is seen to move.
_SYNC_BYTES = 64 << 20
# Far longer than a write may last: what counts where the file system knows no locks.
_STALE_S = 86400

Last = Callable[[], Awaitable[None]]
Moved = Callable[[], object]


class TakenError(CallfoldError):
    """There is a file of that name already, and it was not to be written over."""


class DurableDirectory:
    """Writes files below a directory that is one file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Directories whose own entries are known to be on the disk.
        self._durable: set[Path] = set()

    async def put(
        self,
        path: str,
        content: BinaryIO | bytes,
        *,
        last: Last | None = None,
        is_new: bool = False,
        moved: Moved = lambda: None,
    ) -> None:
        """Write a file: temporary file, fsync, `last`, rename, fsync of the directory.

        `last` is awaited when nothing is left but the rename; what it raises keeps the file from its name. One that is cut off
        is not renamed later, though its thread goes on. `moved` is called, in that thread, for each piece that was written.

        Raises:
            OSError: it could not be written.
            TakenError: `is_new`, and there is one.
        """
        draft = _Draft(self._root / INCOMPLETE / f"{uuid.uuid4().hex}{_SUFFIX}")
        try:
            await asyncio.to_thread(draft.write, content, moved)
            if last is not None:
                await last()
            await asyncio.to_thread(self._publish, draft, path, is_new)
        except BaseException:
            draft.abandon()
            raise

    def _publish(self, draft: _Draft, path: str, is_new: bool) -> None:  # noqa: FBT001 - of `to_thread`
        final = self._root / path
        if not final.parent.exists():
            self._durable.discard(final.parent)
            final.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(final, is_new=is_new)
        _fsync_directory(final.parent)
        if final.parent not in self._durable:
            for directory in final.parent.relative_to(self._root).parents:  # a new directory is an entry of the one above
                _fsync_directory(self._root / directory)
            self._durable.add(final.parent)

    def sweep(self) -> None:
        """Remove what killed processes left. Not for the event loop."""
        for path in (self._root / INCOMPLETE).glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError), path.open("rb") as file:
                if _is_left(file):
                    path.unlink()


def _is_left(file: BinaryIO) -> bool:
    """Tell whether nobody works on a temporary file; where that is so, nobody else can begin to until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return time.time() - os.fstat(file.fileno()).st_mtime > _STALE_S
    return True


class _Draft:
    """A temporary file of one try, locked until it has its name or is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_abandoned = threading.Event()
        self._closing = threading.Lock()
        self._held: int | None = None  # keeps the lock when the file is written and closed

    def write(self, content: BinaryIO | bytes, moved: Moved) -> None:
        self._path.parent.mkdir(exist_ok=True)
        try:
            with self._created() as file:
                self._held = os.dup(file.fileno())
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    self._copy(content, file, moved)
                file.flush()
                os.fsync(file.fileno())
            self._check()
        except BaseException:  # a file that its reader closed meanwhile is a ValueError
            self._remove()
            raise

    def _created(self) -> BinaryIO:
        while True:
            file: BinaryIO = self._path.open("xb")
            with suppress(OSError):  # no locks here
                fcntl.flock(file, fcntl.LOCK_EX)
            if self._path.exists():
                return file
            file.close()  # swept in the moment before it was locked

    def _copy(self, content: BinaryIO, file: BinaryIO, moved: Moved) -> None:
        content.seek(0)
        written = 0
        while piece := content.read(_COPY_BYTES):
            self._check()
            file.write(piece)
            written += len(piece)
            if written % _SYNC_BYTES < _COPY_BYTES:
                file.flush()
                os.fsync(file.fileno())
            moved()

    def rename(self, final: Path, *, is_new: bool) -> None:
        self._check()
        if is_new:
            self._link(final)
        else:
            self._path.rename(final)
        self._release()

    def _link(self, final: Path) -> None:
        """Give the file its name where there is none of that name, in one step: another may be at it in the same moment."""
        try:
            final.hardlink_to(self._path)
        except FileExistsError as error:
            raise TakenError(f"{final.name} is there already") from error
        except OSError:  # a file system without hard links
            if final.exists():
                raise TakenError(f"{final.name} is there already") from None
            self._path.rename(final)
            return
        self._path.unlink()

    def abandon(self) -> None:
        """Give the try up. The thread that may still write sees it, and the file is removed without waiting for that."""
        self._is_abandoned.set()
        asyncio.get_running_loop().run_in_executor(None, self._remove)

    def _check(self) -> None:
        if self._is_abandoned.is_set():
            raise TimeoutError("given up meanwhile")

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
