"""How far a rebuild is: log, metrics, and a note in Redis for the console, which other processes read too."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from shared import metrics
from shared.errors import StoreUnavailableError
from shared.log import get_logger
from shared.state.flags import Flags
from shared.state.rebuild_note import REBUILD_NOTE, RebuildNote, RebuildStep

log = get_logger(__name__)

_LOG_S: Final = 10.0
_NOTE_S: Final = 1.0
_NOTE_KEPT_S: Final = 30.0


class Progress:
    """The progress of one rebuild."""

    def __init__(self, flags: Flags, partitions: Collection[int]) -> None:
        self._flags = flags
        self._partitions = len(partitions)
        self._began = time.monotonic()
        self._logged_at = self._noted_at = self._began
        self.step = RebuildStep.WAITING
        self.messages = 0
        self.events = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def read(self, messages: int) -> None:
        """Count messages that were read."""
        self.messages += messages
        metrics.REBUILD_MESSAGES.inc(messages)

    def replay(self, events: int) -> None:
        """Count events that were replayed."""
        self.events += events
        metrics.REBUILD_EVENTS.inc(events)

    def is_due(self) -> bool:
        """Return whether the last report was made some seconds ago."""
        return time.monotonic() - self._noted_at >= _NOTE_S

    async def report(self) -> None:
        """Log the progress now and then, and leave the note."""
        self._noted_at = time.monotonic()
        metrics.REBUILD_SECONDS.set(self.seconds)
        if self._noted_at - self._logged_at >= _LOG_S:
            self._logged_at = self._noted_at
            log.info("rebuild_progress", step=str(self.step), **self.figures())
        note = RebuildNote(self.step, self._partitions, self.messages, self.events, round(self.seconds))
        with suppress(StoreUnavailableError):  # nothing depends on it
            await self._flags.put(REBUILD_NOTE, note.encode(), expires_in_s=_NOTE_KEPT_S)

    def figures(self) -> dict[str, int | float]:
        return {
            "partitions": self._partitions,
            "messages": self.messages,
            "events": self.events,
            "seconds": round(self.seconds, 1),
        }
