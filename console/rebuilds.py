"""The sentence of the page and of `callfold doctor` about partitions of Redis that are being rebuilt."""

from __future__ import annotations

from shared.state.flags import Flags
from shared.state.keys import PARTITIONS
from shared.state.rebuild_note import REBUILD_NOTE, RebuildNote, RebuildStep, read_note
from shared.state.store import Store

_STEPS = {
    RebuildStep.WAITING: "it waits for what workers had in flight",
    RebuildStep.READING: "the journals are read",
    RebuildStep.REPLAYING: "callbacks are replayed",
}


async def describe_rebuild(store: Store) -> str:
    """Return a sentence if Redis has lost state and calls wait for it; else ''.

    Raises:
        StoreUnavailableError: Redis is not available.
    """
    waiting = await store.partitions.waiting()
    return sentence(len(waiting), await _note(store.flags)) if waiting else ""


async def _note(flags: Flags) -> RebuildNote | None:
    return read_note(await flags.value(REBUILD_NOTE))


def sentence(partitions: int, note: RebuildNote | None) -> str:
    """Describe a rebuild of some partitions. Without a note, none of the workers has begun, or their events are folded."""
    lost = f"Redis lost the state of {partitions} of {PARTITIONS} partitions. Their calls wait until it is rebuilt"
    if note is None:
        return f"{lost}."
    figures = f"{note.messages:,} messages read, {note.events:,} events replayed, {note.seconds} s so far"
    return f"{lost}: {_STEPS[note.step]} ({figures})."
