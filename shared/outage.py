"""Logs of outages: one line when something begins to fail, one a minute while it lasts, and one when it works again.

A loop that retries several times a second would otherwise log each attempt.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from structlog.stdlib import BoundLogger

REMIND_S: Final = 60.0
# A reason can contain something that changes with each attempt.
_MAX_REASONS: Final = 5

_T = TypeVar("_T")
_ErrorT = TypeVar("_ErrorT", bound=Exception)


class Outage:
    """The outage of one thing, as several tasks experience it.

    It begins with the first failure, and ends when each task that failed has succeeded or given up. If the last one gave up, the
    next success of any task is logged as the end. A reason that is not the one logged last is a change and is logged too, but at
    most five reasons a minute are. Failures that were not logged, because the thing fails and works in turn, count in the next
    line.
    """

    def __init__(self, log: BoundLogger, event: str, ended_event: str | None = None, *, is_error: bool = False) -> None:
        """Take the names of the log events: while it lasts, and at the end unless something else logs that."""
        self._log = log
        self._is_error = is_error
        self._event, self._ended_event = event, ended_event
        self._failing: dict[object, None] = {}
        self._logged_at: dict[tuple[str, object], float] = {}
        self._since: float | None = None
        self._failures = 0
        self._is_announced = False

    @property
    def is_ongoing(self) -> bool:
        return bool(self._failing)

    def failed(self, reason: str, /, *, task: object = None, key: object = None, **facts: object) -> None:
        """Record a failure of a task. A reason with another `key` is another reason."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self._failing[task] = None
        self._failures += 1
        self._logged_at = {known: at for known, at in self._logged_at.items() if now - at < REMIND_S}
        if (reason, key) not in self._logged_at and len(self._logged_at) < _MAX_REASONS:
            self._logged_at[reason, key] = now
            self._is_announced = True
            write = self._log.error if self._is_error else self._log.warning
            write(self._event, detail=reason, failures=self._failures, **facts)

    def succeeded(self, *, task: object = None) -> None:
        """Record that a task succeeded. It costs nothing unless something has failed."""
        if task in self._failing or (self._since is not None and not self._failing):
            self._forget(task, is_success=True)

    def gave_up(self, *, task: object = None) -> None:
        """Record that a task no longer tries."""
        if task in self._failing:
            self._forget(task, is_success=False)

    async def outlast(
        self,
        step: Callable[[], Awaitable[_T]],
        failure: type[_ErrorT],
        *,
        pauses_s: Sequence[float],
        on_failure: Callable[[_ErrorT], object] = str,
    ) -> _T:
        """Repeat a step as long as it raises `failure`, and return its result; the last of `pauses_s` repeats."""
        task = object()
        try:
            for attempt in itertools.count():
                try:
                    done = await step()
                except failure as error:
                    self.failed(str(error), task=task)
                    on_failure(error)
                else:
                    self.succeeded(task=task)
                    return done
                await asyncio.sleep(pauses_s[min(attempt, len(pauses_s) - 1)])
        finally:
            self.gave_up(task=task)
        raise AssertionError("count() does not end")

    def _forget(self, task: object, *, is_success: bool) -> None:
        self._failing.pop(task, None)
        if self._failing or self._since is None or (self._is_announced and not is_success):
            return
        if self._is_announced and self._ended_event is not None:
            seconds = round(time.monotonic() - self._since, 1)
            self._log.info(self._ended_event, seconds=seconds, failures=self._failures)
        if self._is_announced:
            self._failures = 0
        self._since = None
        self._is_announced = False
