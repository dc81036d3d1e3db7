"""What this process knows of the positions of partitions in Redis. From them it sees that Redis has lost state.

`stored_position.py` says what a position is.

A rebuilder works as follows. Everything raises StoreUnavailableError while Redis is away.

1. `Store.positions.rebuild_due` is an asyncio.Event that is set when this process learns that a partition is to be rebuilt.
   The rebuilder clears it. It also looks every few seconds, since the worker that was rebuilding may have died.
2. `await Store.rebuilding()` reads the partitions to rebuild from Redis, with their generations: `{partition: generation}`.
3. `Store.for_rebuild({partition: generation})` returns a store whose `merge`, `restore_publications`, `schedule`, `mark` and
   `remember_uses` write to these partitions. All other writers are kept out. A `StateMovedError` (`shared/errors.py`) says
   that the partition was lost again, or that its rebuild was finished: give up and begin with step 2.
4. Events that are folded after the fence wait in Redis, so the rebuilder need not read them. It replays the journals up to
   their end after a complete round that was opened after the fence. Claims of before the fence are not published after that
   round. So a call that is claimed in Redis gets its publication from `calls.journal` alone.
5. `await Store.finish_rebuild(partition, generation)` makes the partition `draining`, or `ready` if nothing waits. False: it
   has another generation, so begin with step 2. The worker drains it (`worker/folding/waiting_events.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from shared.errors import StateMovedError
from shared.state.stored_position import Known, LossCause, PartitionState, StoredPosition, Writers, loss_between

FORGOTTEN_MS = 24 * 3600 * 1000
"""A writer that has shown no sign of life for this time is forgotten, and Redis may forget it too."""

_MAX_SEEN = 100
_AT_START: ContextVar[int | None] = ContextVar("changes_at_start", default=None)


@dataclass(frozen=True, slots=True)
class Ticket:
    """One write in flight, with what the process knew when it was sent: the last of `writers` is the process."""

    number: int
    generation: int
    state: PartitionState
    writers: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class _Partition:
    """The knowledge about one partition.

    Attributes:
        state: None before Redis was looked at.
        unseen: numbers of other writers that were not compared with Redis yet.
        owed: number of own writes that must be published before anything is acked. `recorded` are published.
        in_flight: for each write in flight the number that was known when it was sent.
        returned: numbers that such writes returned.
        is_lost: a number was returned twice, so a write is lost although Redis has as many.
    """

    generation: int
    state: PartitionState | None = None
    writers: dict[str, tuple[int, int]] = field(default_factory=dict)
    unseen: dict[str, int] = field(default_factory=dict)
    owed: int = 0
    recorded: int = 0
    in_flight: list[int] = field(default_factory=list)
    returned: set[int] = field(default_factory=set)
    is_lost: bool = False


class Positions:
    """The positions of all partitions, as one process knows them. It does no I/O.

    Attributes:
        changes: grows when a generation or a state changes, and when a loss is seen.
        rebuild_due, drain_due: set when a partition is seen to be rebuilt or drained.
    """

    def __init__(self, writer: str) -> None:
        """Take the name of the process, which is unique among all processes that ever wrote."""
        self.writer = writer
        self.changes = 0
        self.rebuild_due, self.drain_due = asyncio.Event(), asyncio.Event()
        self._partitions: dict[int, _Partition] = {}

    def state(self, number: int) -> PartitionState | None:
        """Return the state of a partition as last seen; None if Redis must be looked at first."""
        known = self._partitions.get(number)
        return known.state if known else None

    def generation(self, number: int) -> int:
        """Return the latest known generation of a partition; 0 if none is known."""
        known = self._partitions.get(number)
        return known.generation if known else 0

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Let `check_unchanged` fail in this task once a generation or a state has changed.

        What a task has read of a partition that is lost must not be written to the partition that is rebuilt.
        """
        token = _AT_START.set(self.changes)
        try:
            yield
        finally:
            _AT_START.reset(token)

    def check_unchanged(self) -> None:
        """Check that nothing has changed since `unchanged` began.

        Raises:
            StateMovedError: the work must begin again.
        """
        if _AT_START.get() not in {None, self.changes}:
            raise StateMovedError("Redis has lost state, or has got it back. The work begins again.")

    def send(self, number: int) -> Ticket:
        """Begin a write to a partition whose state is known."""
        known = self._partitions[number]
        if known.state is None:
            raise ValueError(f"the state of partition {number} is unknown")
        own = known.writers.get(self.writer, (0, 0))[0]
        known.in_flight.append(own)
        return Ticket(number, known.generation, known.state, (*known.unseen.items(), (self.writer, own)))

    def settle(self, ticket: Ticket, writes: int | None, *, is_owed: bool = True) -> bool:
        """End a write; `writes` is the number that Redis returned, None if it did not count the write or did not answer.

        Returns False if Redis has lost a write: it returned this number before.
        """
        known = self._partitions[ticket.number]
        if known.generation != ticket.generation:
            return True
        own = ticket.writers[-1][1]
        known.in_flight.remove(own)
        is_new = True
        if writes is not None:
            is_new = writes > own and writes not in known.returned
            known.returned.add(writes)
            self._raise_own(known, writes)
            if is_owed:
                known.owed = max(known.owed, writes)
        if not known.in_flight:
            known.returned.clear()
        elif len(known.returned) > _MAX_SEEN:
            known.returned = {number for number in known.returned if number > min(known.in_flight)}
        if not is_new:
            known.is_lost = True
            self._doubt(known)
        return is_new

    def seen(self, ticket: Ticket) -> None:
        """Record that Redis has at least the numbers of a ticket."""
        known = self._partitions[ticket.number]
        if known.generation == ticket.generation:
            for writer, number in ticket.writers[:-1]:
                if known.unseen.get(writer) == number:
                    del known.unseen[writer]

    def known(self, now_ms: int) -> dict[int, Known]:
        """Return what is known before Redis is looked at, without writers that are forgotten."""
        return {
            number: Known(known.generation, self._alive(known.writers, now_ms - FORGOTTEN_MS))
            for number, known in self._partitions.items()
        }

    def learn(self, number: int, before: Known | None, stored: StoredPosition | None) -> LossCause | None:
        """Compare a position in Redis with what was known before it was read. A loss is returned, everything else is learned."""
        known = self._partitions.get(number)
        if known is not None and (before is None or known.generation != before.generation):
            return None  # read before a change that is known by now
        cause = loss_between(before, stored)
        if known is not None and known.is_lost and stored is not None and stored.generation == known.generation:
            cause = cause or LossCause.OLDER
        if cause is not None and known is not None:
            self._doubt(known)
        if cause is not None or stored is None:
            return cause
        if known is None or stored.generation > known.generation:
            known = self._begin(number, stored.generation)
        if stored.generation == known.generation:
            self._set_state(known, stored.state)
            self._raise_own(known, stored.writes.get(self.writer, 0))
            known.unseen = {writer: writes for writer, writes in known.unseen.items() if writes > stored.writes.get(writer, 0)}
        return None

    def begun(self, number: int, generation: int) -> None:
        """Record a new generation of a partition whose state was lost."""
        if generation > self.generation(number):
            self._begin(number, generation)

    def moved(self, number: int, generation: int, state: PartitionState) -> None:
        """Record the state that this process has set."""
        known = self._partitions.get(number)
        if known is not None and known.generation == generation:
            self._set_state(known, state)

    def take(self, number: int, generation: int, writers: Writers, now_ms: int) -> None:
        """Take numbers from a record of another process, which may be late or repeated."""
        known = self._partitions.get(number)
        if known is None or generation > known.generation:
            known = self._begin(number, generation)
        if generation < known.generation:
            return
        for writer, (writes, at_ms) in writers.items():
            before = known.writers.get(writer, (0, 0))
            known.writers[writer] = max(before[0], writes), max(before[1], at_ms)
            if writer != self.writer and writes > before[0] and at_ms >= now_ms - FORGOTTEN_MS:
                known.unseen[writer] = writes

    def is_owing(self) -> bool:
        """Return whether a write must be published before anything that it made possible is acked."""
        return any(known.owed > known.recorded for known in self._partitions.values())

    def unrecorded(self) -> dict[int, tuple[int, int]]:
        """Return generation and number of the own writes that are not published yet, by partition."""
        rows: dict[int, tuple[int, int]] = {}
        for number, known in self._partitions.items():
            own = known.writers.get(self.writer, (0, 0))[0]
            if own > known.recorded:
                rows[number] = known.generation, own
        return rows

    def recorded(self, rows: Mapping[int, tuple[int, int]]) -> None:
        """Record that RabbitMQ has confirmed what `unrecorded` returned."""
        for number, (generation, writes) in rows.items():
            known = self._partitions[number]
            if known.generation == generation:
                known.recorded = max(known.recorded, writes)

    def alive(self, now_ms: int) -> None:
        """Record a sign of life of this process, so that its numbers are not forgotten while it writes nothing."""
        for known in self._partitions.values():
            if self.writer in known.writers:
                known.writers[self.writer] = known.writers[self.writer][0], now_ms

    def forget(self, now_ms: int) -> dict[int, list[str]]:
        """Forget writers that were silent for twice the time after which they count no more; returns them by partition."""
        gone: dict[int, list[str]] = {}
        for number, known in self._partitions.items():
            kept = self._alive(known.writers, now_ms - 2 * FORGOTTEN_MS)
            gone[number] = [writer for writer in known.writers if writer not in kept]
            for writer in gone[number]:
                del known.writers[writer]
                known.unseen.pop(writer, None)
        return gone

    def not_ready(self) -> dict[int, PartitionState]:
        """Return the partitions that are known to be in another state than `ready`."""
        return {
            number: known.state
            for number, known in self._partitions.items()
            if known.state is not None and known.state is not PartitionState.READY
        }

    def _begin(self, number: int, generation: int) -> _Partition:
        known = self._partitions[number] = _Partition(generation)
        self.changes += 1
        return known

    def _set_state(self, known: _Partition, state: PartitionState) -> None:
        if known.state is not state:
            known.state = state
            self.changes += 1
            if state is PartitionState.REBUILDING:
                self.rebuild_due.set()
            elif state is PartitionState.DRAINING:
                self.drain_due.set()

    def _doubt(self, known: _Partition) -> None:
        known.state = None
        self.changes += 1

    def _raise_own(self, known: _Partition, writes: int) -> None:
        before = known.writers.get(self.writer, (0, 0))
        if writes > before[0]:
            known.writers[self.writer] = writes, before[1]

    def _alive(self, writers: Writers, since_ms: int) -> dict[str, tuple[int, int]]:
        return {writer: row for writer, row in writers.items() if row[1] >= since_ms or writer == self.writer}
