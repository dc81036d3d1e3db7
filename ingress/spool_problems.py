"""What is wrong with a spool, by use of it: logged and counted when the spool becomes unusable, and when it is usable again."""

from __future__ import annotations

from pathlib import Path

from shared import metrics
from shared.log import get_logger

log = get_logger(__name__)


class SpoolProblems:
    """The problem of each use that fails: `lock`, `write` or `remove`. One use can fail while another succeeds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._usable = metrics.SPOOL_USABLE.labels(path.stem)
        metrics.SPOOL_SET_ASIDE.labels(path.stem)  # so that the series exists from the start
        self._problems: dict[str, str] = {}

    @property
    def first(self) -> str:
        """The problem that began first, or ''."""
        return next(iter(self._problems.values()), "")

    def sentence(self, error: Exception) -> str:
        """Return an error of the file as a sentence for users."""
        return f"the spool {self._path} cannot be used: {error}. Check the disk and CALLFOLD_SPOOL_DIR"

    def note(self, use: str, problem: str) -> None:
        """Keep the problem of a use; '' means that it succeeded."""
        was_unusable = bool(self._problems)
        if problem:
            self._problems[use] = problem
        else:
            self._problems.pop(use, None)
        self._usable.set(not self._problems)
        if was_unusable != bool(self._problems):
            if problem:
                log.error("spool_unusable", file=str(self._path), detail=problem)
            else:
                log.info("spool_usable", file=str(self._path))
