"""The note in Redis about the rebuild that is running, for the console."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

import orjson

REBUILD_NOTE: Final = "rebuild"


class RebuildStep(StrEnum):
    """The steps of a rebuild, in their order."""

    WAITING = "waiting"  # for what workers had in flight
    READING = "reading"
    REPLAYING = "replaying"


@dataclass(frozen=True, slots=True)
class RebuildNote:
    """Progress of a rebuild: partitions that have lost state, messages read, events replayed, and seconds so far."""

    step: RebuildStep
    partitions: int
    messages: int
    events: int
    seconds: int

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self))


def read_note(text: bytes | None) -> RebuildNote | None:
    """Read a note; None if there is none, or if another release wrote it."""
    try:
        return None if text is None else RebuildNote(**{**(row := orjson.loads(text)), "step": RebuildStep(row["step"])})
    except (ValueError, TypeError, KeyError):
        return None
