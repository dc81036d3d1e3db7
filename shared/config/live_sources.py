"""The sources in force. A running process takes changes of the sources file from here, without a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from shared import metrics
from shared.clock import utc_now
from shared.config.source_changes import SourceChanges, changes_between
from shared.config.sources import Sources, load_sources
from shared.config.sources_file import Check, SourcesFile
from shared.errors import ConfigError
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)

_T = TypeVar("_T")


def _no_check(_: Sources) -> None:
    return


class Derived(Generic[_T]):
    """Something that is built from the sources. `current` is that of the sources in force."""

    __slots__ = ("build", "current")

    def __init__(self, build: Callable[[Sources], _T], sources: Sources) -> None:
        self.build = build
        self.current = build(sources)


class LiveSources:
    """The sources in force, which are never changed in place: a reader takes `current` once for a request or batch.

    A new state takes force as a whole, with everything derived from it, or not at all.

    Attributes:
        current: the sources in force.
        known: these, and those that were removed while this process runs, with their last options.
        problem: what is wrong with the sources file, as a sentence; '' if nothing is.
    """

    def __init__(self, sources: Sources, file: SourcesFile | None = None) -> None:
        """Take the first state, and the file with later ones, if there is one."""
        self.current = self.known = sources
        self.problem = ""
        self._file = file
        self._derived: list[Derived[Any]] = []
        self._loaded_at = utc_now()
        self._reading = asyncio.Lock()
        self._outage = Outage(log, "sources_reload_failed", "sources_file_valid", is_error=True)
        metrics.SOURCES_LOADED.set(time.time())

    @classmethod
    def load(cls, path: Path | None, check: Check = _no_check) -> Self:
        """Read the sources file, or take the source `default` without one.

        Raises:
            ConfigError: the file has a fault, or `check` does not allow the sources.
        """
        if path is None:
            sources = load_sources(None)
            check(sources)
            return cls(sources)
        file = SourcesFile(path, check)
        return cls(file.read(), file)

    @property
    def has_file(self) -> bool:
        return self._file is not None

    def derive(self, build: Callable[[Sources], _T]) -> Derived[_T]:
        """Build something from the sources, and again from each later state before that takes force."""
        derived = Derived(build, self.current)
        self._derived.append(derived)
        return derived

    def problems(self) -> list[str]:
        """Return a sentence about the fault of the file, if it has one."""
        return [f"The sources of {self._loaded_at} stay in force. {self.problem}"] if self.problem else []

    async def refresh(self, *, at_once: bool = True) -> None:
        """Take over a change of the file. With a fault, the sources stay as they are. See `SourcesFile.poll` for `at_once`."""
        if self._file is None:
            return
        async with self._reading:
            try:
                sources = await asyncio.to_thread(self._file.poll, at_once=at_once)
                if sources is not None:
                    self._replace(sources, await asyncio.to_thread(self._built, sources))
            except ConfigError as error:
                self._refuse(str(error))
            except Exception as error:  # noqa: BLE001 - whatever is in the file, the process goes on
                self._refuse(f"The sources file cannot be used ({type(error).__name__}).")

    def _built(self, sources: Sources) -> list[object]:
        return [derived.build(sources) for derived in self._derived]

    def _replace(self, sources: Sources, built: list[object]) -> None:
        """Let a state take force, with what was built from it."""
        changes = changes_between(self.current, sources)
        if changes:
            self.current = sources
            self.known = {**self.known, **sources}
            for derived, value in zip(self._derived, built, strict=True):
                derived.current = value
            _log_changes(changes)
        metrics.SOURCES_RELOADS.labels("changed" if changes else "unchanged").inc()
        self.problem = ""
        self._loaded_at = utc_now()
        self._outage.succeeded()
        metrics.SOURCES_RELOAD_FAILED.set(0)
        metrics.SOURCES_LOADED.set(time.time())

    def _refuse(self, problem: str) -> None:
        if problem != self.problem:  # a fault is found again each second until it is corrected
            metrics.SOURCES_RELOADS.labels("failed").inc()
        self.problem = problem
        self._outage.failed(problem)
        metrics.SOURCES_RELOAD_FAILED.set(1)


def _log_changes(changes: SourceChanges) -> None:
    log.info("sources_reloaded", added=changes.added, changed=changes.keys_by_source(), removed=changes.removed)
