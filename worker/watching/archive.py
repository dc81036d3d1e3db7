"""Observes whether the archive can be written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

from shared.archive.storage import Archive
from shared.domain.condition import Kind, Observation
from shared.errors import CallfoldError

SUBJECT: Final = "archive"
_INTERVAL_S: Final = 60.0
_RETRY_S: Final = 10.0
# One failed check can be a request that was lost.
_FAILED_CHECKS: Final = 2
# A check has limits for each of its calls. All of them together may not take longer than this.
_CHECK_S: Final = 120.0


class ArchiveWatch:
    """Checks the archive now and then, and more often while it fails."""

    def __init__(self, archive: Archive, now: Callable[[], str]) -> None:
        """Take an archive that no other task checks."""
        self._archive, self._now = archive, now
        self._failed, self._problem, self._at = 0, "", ""
        self._checking: asyncio.Task[None] | None = None

    async def run(self) -> NoReturn:
        """Check until cancelled. Run it as a task."""
        while True:
            # The worker has just checked the archive when it starts.
            await asyncio.sleep(_RETRY_S if self._failed else _INTERVAL_S)
            await self.check()

    async def check(self) -> None:
        began = self._now()
        try:
            await self._check()
        except (CallfoldError, TimeoutError) as error:
            if not self._failed:
                self._at = began
            self._failed += 1
            self._problem = str(error) or f"The archive {self._archive.url} did not answer within {_CHECK_S:g} s."
        else:
            if self._failed or not self._at:
                self._at = began
            self._failed, self._problem = 0, ""

    async def _check(self) -> None:
        """Check within the time limit. A check that hangs holds a thread, so the next one begins when it has ended.

        Raises:
            CallfoldError: the archive cannot be written.
            TimeoutError: it does not answer.
        """
        checking = self._checking = self._checking or asyncio.ensure_future(self._archive.check())
        try:
            await asyncio.wait([checking], timeout=_CHECK_S)
        except asyncio.CancelledError:
            checking.cancel()
            raise
        if not checking.done():
            raise TimeoutError
        self._checking = None
        checking.result()

    def observations(self) -> list[Observation]:
        """Return what is known."""
        if not self._at or 0 < self._failed < _FAILED_CHECKS:
            return []
        detail = self._problem or f"The archive {self._archive.url} can be written."
        figures = {"failed_checks": self._failed} if self._failed else {}
        return [Observation(Kind.ARCHIVE_AWAY, SUBJECT, is_bad=bool(self._failed), at=self._at, detail=detail, figures=figures)]
