"""The sources file on disk: whether it changed since it was read, and what it holds now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shared.config.sources import Sources, credential_files, parse_sources, read_text
from shared.config.watched_file import WatchedFile

Check = Callable[[Sources], object]
"""Raises ConfigError for sources that this process must not use."""


class SourcesFile(WatchedFile[Sources]):
    """The file that `CALLFOLD_SOURCES` or an argument names, and the files of credentials that it names."""

    def __init__(self, path: Path, check: Check, *, is_argument: bool = False) -> None:
        """Take the path, and whether it is an argument of a command: errors do not lead to the setting then."""

        def read() -> str:
            return read_text(path, remedy="Check its path.") if is_argument else read_text(path)

        def parse(text: str) -> Sources:
            sources = parse_sources(path, text)
            check(sources)
            return sources

        super().__init__(path, read=read, referred=credential_files, parse=parse)
