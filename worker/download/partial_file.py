"""What has come of a recording so far. It outlives a broken connection, a try, and a worker that died.

A part is resumed only where it surely is the beginning of what the server has now: the server gave a validator (RFC 9110,
8.8), and the file was written since this machine was last started, since what was not fsynced before may be lost in its
middle. Otherwise it is started anew.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NoReturn

import orjson

from shared.errors import ConfigError
from shared.log import get_logger

log = get_logger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ABANDONED_S = 2 * 86400
_SWEEP_S = 3600
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PART, _NOTE = ".part", ".note"


class Partial:
    """A file that grows, and what tells whether more can be added to it."""

    def __init__(self, file: BinaryIO, directory: Path, note: Path | None, link: str = "") -> None:
        self.file = file
        self._of = hashlib.sha256(link.encode("utf-8", "surrogatepass")).hexdigest()
        self.directory = directory
        self._note = note
        self.size = 0
        self.validator: str | None = None
        self.total: int | None = None
        self.encoding = ""
        if note is not None:
            self._resume(note)

    @property
    def is_kept(self) -> bool:
        """Tell whether it is still there for the next try."""
        return self._note is not None

    def _resume(self, note: Path) -> None:
        try:
            told = orjson.loads(note.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            told = {}
        if (told.get("boot"), told.get("of")) != (_boot_id(), self._of) or not told.get("validator"):
            self.restart()
            return
        self.validator, self.total, self.encoding = told["validator"], told["total"], told["encoding"]
        self.size = self.file.seek(0, os.SEEK_END)

    def restart(self, validator: str | None = None, total: int | None = None, encoding: str = "") -> None:
        """Throw away what has come, and note what the server says of what comes now."""
        self.file.seek(0)
        self.file.truncate()
        self.size, self.validator, self.total, self.encoding = 0, validator, total, encoding
        if self._note is not None:
            told = {"boot": _boot_id(), "of": self._of, "validator": validator, "total": total, "encoding": encoding}
            self._note.write_bytes(orjson.dumps(told))

    def append(self, piece: bytes) -> None:
        self.file.write(piece)
        self.size += len(piece)


@contextmanager
def partial(directory: Path, name: str, *, is_kept: bool, link: str = "") -> Iterator[Partial]:
    """Open the part of a recording, of what was downloaded from this link.

    With `is_kept` it stays in the directory until `forget`. Without, while another process has it, or on a system that does
    not tell its starts apart (macOS), it is a file without a name, of which nothing is left.
    """
    with ExitStack() as closing:
        found = _open_locked(directory, name) if is_kept and _boot_id() else None
        if found is None:
            directory.mkdir(parents=True, exist_ok=True)
            file = closing.enter_context(tempfile.TemporaryFile(dir=directory))
            yield Partial(file, directory, None)
            return
        closing.enter_context(found)
        opened = Partial(found, directory, _path(directory, name, _NOTE), link)
        try:
            yield opened
        finally:
            if opened.validator is None:
                opened.restart()  # nothing can be added to it: it would only take room
            found.flush()


def forget(directory: Path, name: str) -> None:
    """Remove the part of a recording that came to its end; what cannot be removed now is swept later."""
    for suffix in (_PART, _NOTE):
        with suppress(OSError):
            _path(directory, name, suffix).unlink(missing_ok=True)


def check_directory(directory: Path) -> None:
    """Make the directory, and see that it can be read and a file written in it; nothing is left of that file.

    Raises:
        ConfigError: it cannot; a full disk is the cause of that error as an OSError.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        next(directory.iterdir(), None)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"callfold")
            file.flush()
    except OSError as error:
        raise ConfigError(f"CALLFOLD_RECORDING_DIR {directory} cannot be written: {error.strerror}.") from error


def prepare(directory: Path) -> None:
    """Make the directory fit for downloads: one that can be written, without the parts of jobs that ended elsewhere.

    Raises:
        ConfigError: it cannot be written, for another reason than a full disk. Calls can be folded beside a full one; its
            jobs wait, with a reason of their own.
    """
    try:
        check_directory(directory)
    except ConfigError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _FULL:
            raise
        log.warning("recording_directory_full", detail=str(error))
    sweep(directory)


async def keep_swept(directory: Path) -> NoReturn:
    """Sweep every hour for as long as the process lives. Run it as a task."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        await asyncio.to_thread(sweep, directory)


def sweep(directory: Path) -> None:
    """Remove parts that nobody has touched for two days, with their notes: their jobs ended elsewhere."""
    stems = {path.with_suffix("") for path in directory.glob("*") if path.suffix in {_PART, _NOTE}}
    for stem in stems:
        paths = [stem.with_suffix(suffix) for suffix in (_PART, _NOTE)]
        with suppress(OSError):
            touched = max((path.stat().st_mtime for path in paths if path.exists()), default=time.time())
            if time.time() - touched > _ABANDONED_S:
                for path in paths:
                    path.unlink(missing_ok=True)


def make_room(directory: Path, kept_bytes: int) -> None:
    """Remove parts until no more than so many bytes of them lie there: who has waited longest goes first, none that is in work.

    A directory that cannot be read or written is logged: no job fails of it. Not for the event loop.
    """
    try:
        _remove_oldest(directory, kept_bytes)
    except OSError as error:
        log.warning("recording_parts_not_removed", detail=f"{type(error).__name__}: {error.strerror}")


def _remove_oldest(directory: Path, kept_bytes: int) -> None:
    parts = []
    for path in directory.glob(f"*{_PART}"):
        with suppress(FileNotFoundError):
            told = path.stat()
            parts.append((told.st_mtime_ns, told.st_size, path))
    lying = sum(size for _, size, _ in parts)
    for _, size, path in sorted(parts):
        if lying <= kept_bytes:
            return
        if _remove_idle(path):
            lying -= size
            log.info("recording_part_dropped", bytes=size)


def _remove_idle(part: Path) -> bool:
    """Remove a part and its note; False where somebody works on it."""
    with suppress(FileNotFoundError), part.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        part.with_suffix(_NOTE).unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return True


def _open_locked(directory: Path, name: str) -> BinaryIO | None:
    directory.mkdir(parents=True, exist_ok=True)
    path = _path(directory, name, _PART)
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # removed in the moment before it was locked


def _path(directory: Path, name: str, suffix: str) -> Path:
    return directory / (sha256(name.encode()).hexdigest()[:32] + suffix)


def _boot_id() -> str:
    """Tell this start of the machine from every other; empty where the system does not."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
