"""The sources file on disk: whether it changed since it was read, and what it holds now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shared.config.sources import Sources, credential_files, parse_sources, read_text

Check = Callable[[Sources], object]
"""Raises ConfigError for sources that this process must not use."""
Fingerprint = tuple[tuple[int, ...], ...]


class SourcesFile:
    """The file that `CALLFOLD_SOURCES` or an argument names, and the files of credentials that it names. All methods block.

    A symlink is followed, so that a swap of links, as Kubernetes updates a ConfigMap, is a change too.
    """

    def __init__(self, path: Path, check: Check, *, is_argument: bool = False) -> None:
        """Take the path, and whether it is an argument of a command: errors do not lead to the setting then."""
        self._path = path
        self._is_argument = is_argument
        self._check = check
        self._credentials: list[Path] = []
        self._read: Fingerprint | None = None  # None after a fault, so that each poll tries again
        self._seen: Fingerprint | None = None

    def read(self) -> Sources:
        """Read and check the file.

        Raises:
            ConfigError: it has a fault; the message names source, key and line.
        """
        self._read, of_file = None, _of_file(self._path)
        text = read_text(self._path, remedy="Check its path.") if self._is_argument else read_text(self._path)
        self._credentials = [Path(each) for each in credential_files(text)]
        before = (of_file, *map(_of_file, self._credentials))
        sources = parse_sources(self._path, text)
        self._check(sources)
        self._read = before
        return sources

    def poll(self, *, at_once: bool) -> Sources | None:
        """Return what the file holds, if it changed since it was read without a fault; None if it did not.

        Unless `at_once`, a change counts from the second poll that finds the file as the first one did. Then it is not being
        written any more.

        Raises:
            ConfigError: as `read` does. Each poll raises it until the fault is corrected.
        """
        now = self._now()
        if now == self._read:
            return None
        is_settled, self._seen = now == self._seen, now
        if not is_settled and not at_once:
            return None
        sources = self.read()
        if self._now() != self._read:  # it changed while it was read
            self._read = None
            return None
        return sources

    def _now(self) -> Fingerprint:
        return tuple(map(_of_file, (self._path, *self._credentials)))


def _of_file(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except (OSError, ValueError):  # the latter for a path with a null character
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
