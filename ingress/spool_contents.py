"""What the spool files of a directory hold, read without changing them."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingress.spool_paths import KEPT, SET_ASIDE
from ingress.spool_reader import SpoolReader
from shared.domain.raw_event import receipt_times

_SOURCE = re.compile(rb'"source": ?"([a-z0-9_-]{1,63})"')
_FILES = re.compile(
    rf"(spool|waiting-[a-z0-9][a-z0-9_-]{{0,62}})\.sqlite((?:{re.escape(SET_ASIDE)}|{re.escape(KEPT)})[0-9TZ.]+)?"
)


@dataclass(frozen=True, slots=True)
class FileContents:
    """Contents of one file.

    `problem` is why some of its rows, or all, cannot be read. `unreadable` counts those rows as far as that is possible.
    """

    path: Path
    messages: int
    callbacks: int
    size: int
    oldest: str
    sources: Mapping[str, int]
    unreadable: int
    problem: str

    @property
    def is_set_aside(self) -> bool:
        """True for a damaged file that ingress set aside."""
        return SET_ASIDE in self.path.name

    @property
    def is_kept(self) -> bool:
        """True for what remains of a damaged file after its readable rows were published."""
        return KEPT in self.path.name


@dataclass(frozen=True, slots=True)
class SpoolContents:
    """Contents of all files of a directory, without those that are only kept for a repair by hand."""

    directory: Path
    files: Sequence[FileContents]

    @property
    def messages(self) -> int:
        return sum(file.messages for file in self._counted)

    @property
    def callbacks(self) -> int:
        return sum(file.callbacks for file in self._counted)

    @property
    def size(self) -> int:
        """The bytes of the messages."""
        return sum(file.size for file in self._counted)

    @property
    def oldest(self) -> str:
        """When the oldest callback was received, or ''."""
        return min((file.oldest for file in self._counted if file.oldest), default="")

    @property
    def sources(self) -> Mapping[str, int]:
        """The callbacks of each source."""
        return sum((Counter(file.sources) for file in self._counted), Counter[str]())

    @property
    def problems(self) -> Sequence[str]:
        """Why some files cannot be read."""
        return [f"{file.path}: {file.problem}" for file in self._counted if file.problem]

    @property
    def is_empty(self) -> bool:
        """True if nothing is left that could be published."""
        return not self.messages and not self.problems

    @property
    def _counted(self) -> Iterator[FileContents]:
        return (file for file in self.files if not file.is_kept)


def spool_files(directory: Path) -> list[Path]:
    """List the files of a directory that hold messages: the spool, waiting callbacks, and what was set aside or kept of these."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in directory.iterdir() if _FILES.fullmatch(path.name))
    return []


def set_aside_files(directory: Path) -> list[Path]:
    """List the damaged files that were set aside."""
    return [path for path in spool_files(directory) if SET_ASIDE in path.name]


def read_contents(directory: Path) -> SpoolContents:
    """Read all files. A file that cannot be read has a `problem`.

    Raises:
        OSError: the directory cannot be listed.
    """
    return SpoolContents(directory, [contents for path in spool_files(directory) if (contents := _read_file(path)) is not None])


def _read_file(path: Path) -> FileContents | None:
    """Read one file; None if it vanished in the meantime."""
    reader = SpoolReader(path)
    messages = callbacks = size = 0
    oldest = ""
    sources: Counter[str] = Counter()
    problem = ""
    try:
        for row in reader.rows():
            times = receipt_times(row.body)
            messages, callbacks, size = messages + 1, callbacks + max(len(times), 1), size + len(row.body)
            oldest = min([*times, *([oldest] if oldest else [])], default="")
            sources.update(source.decode() for source in _SOURCE.findall(row.body))
    except sqlite3.Error as error:
        problem = str(error)
    if not path.exists():
        return None
    return FileContents(path, messages, callbacks, size, oldest, sources, reader.unreadable, problem or reader.problem)
