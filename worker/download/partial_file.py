"""A partial download: what has arrived of a recording. The next attempt resumes it, even after the worker died.

It has two files: `.part` with the content, and `.note` with what the next attempt needs to know. A download is only resumed if
its content is certainly the beginning of the current file. For this the server must have sent a validator (RFC 9110, 8.8), and
the machine must not have restarted since. After a restart, bytes that were not fsynced can be missing in the middle.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import orjson

from shared.file_lock import try_lock

PART, NOTE = ".part", ".note"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Partial:
    """A growing file, and the properties of the response that it came from."""

    def __init__(self, file: BinaryIO, directory: Path, note: Path | None, link: str = "") -> None:
        self.file = file
        self.directory = directory
        self._link_sha256 = sha256(link.encode("utf-8", "surrogatepass")).hexdigest()
        self._note = note
        self.size = 0
        self.validator: str | None = None
        self.total: int | None = None
        self.encoding = ""
        self.is_of_this_attempt = False
        if note is not None:
            self._resume(note)

    @property
    def is_kept(self) -> bool:
        """Return whether the next attempt can resume it."""
        return self._note is not None

    def _resume(self, note: Path) -> None:
        try:
            data = orjson.loads(note.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            data = {}
        if (data.get("boot"), data.get("of")) != (_boot_id(), self._link_sha256) or not data.get("validator"):
            self.restart()
            return
        self.validator, self.total, self.encoding = data["validator"], data["total"], data["encoding"]
        self.size = self.file.seek(0, os.SEEK_END)

    def restart(self, validator: str | None = None, total: int | None = None, encoding: str = "") -> None:
        """Discard the content, and note the properties of the response that follows."""
        self.is_of_this_attempt = True
        self.file.seek(0)
        self.file.truncate()
        self.size, self.validator, self.total, self.encoding = 0, validator, total, encoding
        if self._note is not None:
            data = {"boot": _boot_id(), "of": self._link_sha256, "validator": validator, "total": total, "encoding": encoding}
            self._note.write_bytes(orjson.dumps(data))

    def append(self, piece: bytes) -> None:
        self.file.write(piece)
        self.size += len(piece)


@contextmanager
def partial(directory: Path, name: str, *, is_kept: bool, link: str = "") -> Iterator[Partial]:
    """Open the partial download of a job and its link.

    With `is_kept` it stays in the directory until `forget`. Otherwise it is an unnamed file, which leaves nothing behind. It is
    also unnamed while another process has it, and on systems without a boot id (macOS).
    """
    with ExitStack() as closing:
        locked = _open_locked(directory, name) if is_kept and _boot_id() else None
        if locked is None:
            directory.mkdir(parents=True, exist_ok=True)
            file = closing.enter_context(tempfile.TemporaryFile(dir=directory))
            yield Partial(file, directory, None)
            return
        closing.enter_context(locked)
        part = Partial(locked, directory, _path(directory, name, NOTE), link)
        try:
            yield part
        finally:
            if part.validator is None:
                part.restart()  # it cannot be resumed, so it would only take space
            locked.flush()


def forget(directory: Path, name: str) -> None:
    """Remove the partial download of a finished job. If that fails, a sweep removes it later."""
    for suffix in (PART, NOTE):
        with suppress(OSError):
            _path(directory, name, suffix).unlink(missing_ok=True)


def _open_locked(directory: Path, name: str) -> BinaryIO | None:
    directory.mkdir(parents=True, exist_ok=True)
    path = _path(directory, name, PART)
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        if not try_lock(file):
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # removed before it was locked


def _path(directory: Path, name: str, suffix: str) -> Path:
    return directory / (sha256(name.encode()).hexdigest()[:32] + suffix)


def _boot_id() -> str:
    """Return an id that changes when the machine restarts. Empty if the system has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
