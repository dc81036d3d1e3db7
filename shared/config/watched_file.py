"""A configuration file on disk: whether it changed since it was read, and what it holds now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

Fingerprint = tuple[tuple[int, ...], ...]
_T = TypeVar("_T")


class WatchedFile(Generic[_T]):
    """A file, and the files of credentials that it names. All methods block.

    A symlink is followed, so that a swap of links, as Kubernetes updates a ConfigMap, is a change too.
    """

    def __init__(
        self, path: Path, *, read: Callable[[], str], referred: Callable[[str], Sequence[str]], parse: Callable[[str], _T]
    ) -> None:
        """Take the path, and functions that read the text, find the files of credentials in it, and parse and check it.

        `read` and `parse` raise ConfigError for a fault.
        """
        self._path = path
        self._read_text, self._referred, self._parse = read, referred, parse
        self._credentials: list[Path] = []
        self._read: Fingerprint | None = None  # None after a fault, so that each poll tries again
        self._seen: Fingerprint | None = None

    def read(self) -> _T:
        """Read and check the file.

        Raises:
            ConfigError: it has a fault; the message names the key.
        """
        self._read, of_file = None, _of_file(self._path)
        text = self._read_text()
        self._credentials = [Path(each) for each in self._referred(text)]
        before = (of_file, *map(_of_file, self._credentials))
        parsed = self._parse(text)
        self._read = before
        return parsed

    def poll(self, *, at_once: bool) -> _T | None:
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
        parsed = self.read()
        if self._now() != self._read:  # it changed while it was read
            self._read = None
            return None
        return parsed

    def _now(self) -> Fingerprint:
        return tuple(map(_of_file, (self._path, *self._credentials)))


def _of_file(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except (OSError, ValueError):  # the latter for a path with a null character
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
