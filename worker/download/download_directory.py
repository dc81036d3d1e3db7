"""The directory of unfinished downloads: checks that it is writable, and removes partial downloads that are old or too many."""

from __future__ import annotations

import asyncio
import errno
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from shared.errors import ConfigError
from shared.file_lock import try_lock
from shared.log import get_logger
from worker.download.partial_file import NOTE, PART

log = get_logger(__name__)

_ABANDONED_S = 2 * 86400
_SWEEP_S = 3600
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def check_directory(directory: Path) -> None:
    """Create the directory, list it, and write a temporary file in it.

    Raises:
        ConfigError: one of these failed. Its cause is the OSError.
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
    """Check the directory and sweep it. A full disk is only logged: calls do not need it, and recording jobs wait for space.

    Raises:
        ConfigError: the directory cannot be written, and not because its disk is full.
    """
    try:
        check_directory(directory)
    except ConfigError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _FULL:
            raise
        log.warning("recording_directory_full", detail=str(error))
    sweep(directory)


async def keep_swept(directory: Path) -> NoReturn:
    """Sweep the directory every hour. Run it as a task."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        await asyncio.to_thread(sweep, directory)


def sweep(directory: Path) -> None:
    """Remove partial downloads that have not changed for two days. Another worker has finished their jobs.

    Errors of the operating system are logged: they must not end a worker that can still fold calls.
    """
    try:
        _remove_abandoned(directory)
    except OSError as error:
        _log_not_removed(error)


def _remove_abandoned(directory: Path) -> None:
    stems = {path.with_suffix("") for path in directory.glob("*") if path.suffix in {PART, NOTE}}
    for stem in stems:
        paths = [stem.with_suffix(suffix) for suffix in (PART, NOTE)]
        with suppress(OSError):
            changed_at = max((path.stat().st_mtime for path in paths if path.exists()), default=time.time())
            if time.time() - changed_at > _ABANDONED_S:
                for path in paths:
                    path.unlink(missing_ok=True)


def make_room(directory: Path, max_bytes: int) -> None:
    """Remove the oldest partial downloads until the rest has at most `max_bytes`. Skip those that are in use.

    Errors of the directory are logged, because no job must fail because of them. Not for the event loop.
    """
    try:
        _remove_oldest(directory, max_bytes)
    except OSError as error:
        _log_not_removed(error)


def _log_not_removed(error: OSError) -> None:
    log.warning("partial_downloads_not_removed", detail=f"{type(error).__name__}: {error.strerror}")


def _remove_oldest(directory: Path, max_bytes: int) -> None:
    parts = []
    for path in directory.glob(f"*{PART}"):
        with suppress(FileNotFoundError):
            status = path.stat()
            parts.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in parts)
    for _, size, path in sorted(parts):
        if total <= max_bytes:
            return
        if _remove_if_unused(path):
            total -= size
            log.info("partial_download_removed", bytes=size)


def _remove_if_unused(part: Path) -> bool:
    """Remove a partial download and its note. Return False if an attempt is using it."""
    with suppress(FileNotFoundError), part.open("rb") as file:
        if not try_lock(file):
            return False
        part.with_suffix(NOTE).unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return True
