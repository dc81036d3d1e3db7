"""A position of a partition as it is in Redis, what a process knows of it, and which differences show that Redis has lost state.

A position is a generation, a state, and for each writer the number of its writes (`position.lua`). Every script that writes calls
compares the position with what its process knows, and counts the write. A smaller number shows that Redis went back. Writers
publish their numbers to the stream `state.journal` before they ack anything, so a restart of all processes forgets none.

A partition is in one of three states:

- `ready`: calls are folded.
- `rebuilding`: it has lost state. Nothing is evaluated, claimed, scheduled, leased or published. Events that arrive wait.
- `draining`: it is rebuilt, and the events that waited are folded, in the order of arrival. Other events wait behind them.

A loss begins a new generation, larger than every known one (`Partitions.fence`). Scripts of an earlier generation then change
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class PartitionState(StrEnum):
    """The state of a partition."""

    READY = "ready"
    REBUILDING = "rebuilding"
    DRAINING = "draining"


class LossCause(StrEnum):
    """Kinds of losses."""

    EMPTIED = "emptied"
    OLDER = "older"
    EVICTED = "evicted"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """A position as it is in Redis.

    Attributes:
        replaced: the latest generation that was known when this one began; 0 if it is the first one.
        writes: the number of writes of each writer.
        has_evicted: Redis has evicted keys since the generation began.
    """

    generation: int
    state: PartitionState
    replaced: int
    writes: Mapping[str, int]
    has_evicted: bool = False


Writers = Mapping[str, tuple[int, int]]
"""Of each writer the number of its writes, and its last sign of life (ms since 1970)."""


@dataclass(frozen=True, slots=True)
class Known:
    """The generation and the writers of one partition, as a full map has them and as a look compares them."""

    generation: int
    writers: Writers


def loss_between(before: Known | None, stored: StoredPosition | None) -> LossCause | None:
    """Return why Redis has lost state, given what was known before its position was read; None if it has lost nothing."""
    if before is None:
        return LossCause.EVICTED if stored is not None and stored.has_evicted else None
    if stored is None:
        return LossCause.EMPTIED
    if stored.generation < before.generation:
        return LossCause.OLDER
    if stored.generation > before.generation:
        return LossCause.REPLACED if stored.replaced < before.generation else None
    if any(writes > stored.writes.get(writer, 0) for writer, (writes, _) in before.writers.items()):
        return LossCause.OLDER
    return LossCause.EVICTED if stored.has_evicted else None
