"""Positions: a loss is seen before anything else is written, and nothing that is no loss is taken for one."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from shared.state.positions import FORGOTTEN_MS, Positions, Ticket
from shared.state.stored_position import Known, LossCause, PartitionState, StoredPosition
from tests.helpers.volume import sizes

NUMBER = 0
NOW_MS = 10 * FORGOTTEN_MS
WRITERS = st.sampled_from(("a", "b", "c"))


@dataclass
class Partition:
    """One partition in Redis, as position.lua, look.lua and fence.lua change it, with the writes that it has."""

    generation: int = 0
    state: PartitionState = PartitionState.READY
    replaced: int = 0
    writes: Counter[str] = field(default_factory=Counter)
    content: frozenset[int] = frozenset()

    def stored(self) -> StoredPosition | None:
        if not self.generation:
            return None
        return StoredPosition(self.generation, self.state, self.replaced, dict(self.writes))

    def run(self, ticket: Ticket, write: int) -> int | None:
        """Run a script behind position.lua; returns None if the position is another."""
        if (ticket.generation, ticket.state) != (self.generation, self.state):
            return None
        if any(self.writes[writer] < writes for writer, writes in ticket.writers):
            return None
        self.writes[ticket.writers[-1][0]] += 1
        self.content |= {write}
        return self.writes[ticket.writers[-1][0]]


@dataclass
class Sent:
    """A write in flight. `writes` is what Redis returned, None if the position was another."""

    ticket: Ticket
    write: int
    writes: int | None = None
    was_run: bool = False


class Losses(RuleBasedStateMachine):
    """Several writers of one partition in a Redis that goes back, is emptied, and answers late or not at all.

    A write counts as acked when its record is in the stream. Records arrive late, in order, at each reader.
    """

    may_lose = True

    def __init__(self) -> None:
        super().__init__()
        self.redis = Partition()
        self.snapshots = [copy.deepcopy(self.redis)]
        self.processes = {name: Positions(name) for name in "abc"}
        self.sent: dict[str, list[Sent]] = {name: [] for name in "abc"}
        self.stream: list[tuple[str, int, int]] = []
        self.read = Counter[str]()
        self.returned: dict[str, set[int]] = {name: set() for name in "abc"}
        self.acked: set[int] = set()
        self.rebuilt: set[int] = set()
        self.looks: dict[str, tuple[dict[int, Known], Partition]] = {}
        self.next_write = 0
        self.clock = 1
        self.was_lost = False

    @rule(name=WRITERS)
    def send(self, name: str) -> None:
        positions = self.processes[name]
        if positions.state(NUMBER) is not PartitionState.READY:
            return
        self.next_write += 1
        self.sent[name].append(Sent(positions.send(NUMBER), self.next_write))

    @rule(name=WRITERS, which=st.integers(0, 3))
    def run(self, name: str, which: int) -> None:
        waiting = [sent for sent in self.sent[name] if not sent.was_run]
        if waiting:
            sent = waiting[which % len(waiting)]
            sent.writes, sent.was_run = self.redis.run(sent.ticket, sent.write), True

    @rule(name=WRITERS, which=st.integers(0, 3), is_answered=st.booleans())
    def answer(self, name: str, which: int, *, is_answered: bool) -> None:
        """End a write. Only a write that was answered and is no mismatch is believed."""
        if not self.sent[name]:
            return
        sent = self.sent[name].pop(which % len(self.sent[name]))
        is_answered = is_answered and sent.was_run
        positions = self.processes[name]
        is_known = positions.generation(NUMBER) == sent.ticket.generation
        if not positions.settle(sent.ticket, sent.writes if is_answered else None):
            assert self.was_lost
            self.look_now(name)
        elif is_answered and sent.writes is not None:
            positions.seen(sent.ticket)
            if is_known:
                self.returned[name].add(sent.write)
        elif is_answered:
            self.look_now(name)

    @rule(name=WRITERS)
    def publish(self, name: str) -> None:
        """Publish what is owed; then everything that was returned is acked."""
        positions = self.processes[name]
        rows = positions.unrecorded()
        if rows:
            self.stream.append((name, *rows[NUMBER]))
            positions.recorded(rows)
        assert not positions.is_owing()
        self.acked |= self.returned[name]

    @rule(name=WRITERS, records=st.integers(1, 3))
    def read_stream(self, name: str, records: int) -> None:
        for _ in range(records):
            if self.read[name] < len(self.stream):
                writer, generation, writes = self.stream[self.read[name]]
                self.read[name] += 1
                self.processes[name].take(NUMBER, generation, {writer: (writes, NOW_MS)}, NOW_MS)

    @rule(name=WRITERS)
    def ask(self, name: str) -> None:
        """Read a position. The answer is believed later."""
        if NUMBER not in self.processes[name].known(NOW_MS) and not self.redis.generation and not self.stream:
            self.redis.generation, self.clock = self.clock, self.clock + 1
        self.looks[name] = self.processes[name].known(NOW_MS), copy.deepcopy(self.redis)

    @rule(name=WRITERS)
    def look(self, name: str) -> None:
        if name in self.looks:
            before, redis = self.looks.pop(name)
            self.learn(name, before, redis)

    def look_now(self, name: str) -> None:
        self.learn(name, self.processes[name].known(NOW_MS), self.redis)

    def learn(self, name: str, before: dict[int, Known], redis: Partition) -> None:
        cause = self.processes[name].learn(NUMBER, before.get(NUMBER), redis.stored())
        assert cause is None or self.was_lost, cause

    @rule(name=WRITERS)
    def verify(self, name: str) -> None:
        """Read the stream to its end and compare, as a worker does on a new connection. Fence what is lost."""
        self.read_stream(name, len(self.stream) - self.read[name])
        positions = self.processes[name]
        before = positions.known(NOW_MS)
        if NUMBER not in before and not self.redis.generation:
            self.redis.generation, self.clock = self.clock, self.clock + 1
        if positions.learn(NUMBER, before.get(NUMBER), self.redis.stored()) is None:
            return
        assert self.was_lost
        known = max(self.redis.generation, positions.generation(NUMBER))
        self.clock = max(self.clock, known) + 1
        self.redis = Partition(self.clock, PartitionState.REBUILDING, known)
        positions.begun(NUMBER, self.clock)
        self.look_now(name)

    @precondition(lambda self: self.redis.state is PartitionState.REBUILDING)
    @rule()
    def rebuild(self) -> None:
        self.redis.content |= self.acked
        self.redis.state = PartitionState.READY

    @rule()
    def save(self) -> None:
        self.snapshots.append(copy.deepcopy(self.redis))

    @precondition(lambda self: self.may_lose)
    @rule(which=st.integers(0, 10))
    def go_back(self, which: int) -> None:
        self.redis = copy.deepcopy(self.snapshots[which % len(self.snapshots)])
        self.was_lost = True

    @precondition(lambda self: self.may_lose)
    @rule()
    def empty(self) -> None:
        self.redis = Partition()
        self.was_lost = True

    @invariant()
    def nothing_is_concluded_from_lost_state(self) -> None:
        """A process that knows the stream, and compares, takes no partition for ready that lacks an acked write."""
        for name, positions in self.processes.items():
            other = copy.deepcopy(positions.known(NOW_MS))
            seen = copy.copy(other.get(NUMBER))
            if seen is None or self.read[name] < len(self.stream):
                continue
            if self.redis.state is PartitionState.READY and _is_same(seen, self.redis):
                assert self.acked <= self.redis.content


def _is_same(known: Known, redis: Partition) -> bool:
    """Return whether a write of a process that knows this would be run."""
    return known.generation == redis.generation and all(redis.writes[name] >= row[0] for name, row in known.writers.items())


class NoLosses(Losses):
    """The same without a loss: none is ever seen."""

    may_lose = False


@pytest.mark.parametrize("machine", [Losses, NoLosses])
@pytest.mark.parametrize("examples", sizes(40, 1000))
def test_a_loss_is_seen_and_only_a_loss(machine: type[Losses], examples: int) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=50, deadline=None))


def _known(positions: Positions) -> Known:
    return positions.known(NOW_MS)[NUMBER]


def test_a_late_look_is_compared_with_what_was_known_when_it_was_sent() -> None:
    positions = Positions("a")
    positions.learn(NUMBER, None, StoredPosition(1, PartitionState.READY, 0, {}))
    before = _known(positions)
    ticket = positions.send(NUMBER)
    positions.settle(ticket, 1)
    assert positions.learn(NUMBER, before, StoredPosition(1, PartitionState.READY, 0, {})) is None
    assert positions.learn(NUMBER, _known(positions), StoredPosition(1, PartitionState.READY, 0, {})) is LossCause.OLDER


def test_a_number_that_is_returned_twice_shows_a_loss() -> None:
    positions = Positions("a")
    positions.learn(NUMBER, None, StoredPosition(1, PartitionState.READY, 0, {}))
    one, other = positions.send(NUMBER), positions.send(NUMBER)
    assert positions.settle(one, 1)
    assert not positions.settle(other, 1)
    stored = StoredPosition(1, PartitionState.READY, 0, {"a": 1})
    assert positions.learn(NUMBER, _known(positions), stored) is LossCause.OLDER


def test_a_first_generation_that_another_process_began_in_an_empty_redis_is_a_loss() -> None:
    positions = Positions("a")
    positions.learn(NUMBER, None, StoredPosition(1, PartitionState.READY, 0, {}))
    assert positions.learn(NUMBER, _known(positions), StoredPosition(9, PartitionState.READY, 0, {})) is LossCause.REPLACED
    assert positions.learn(NUMBER, _known(positions), StoredPosition(9, PartitionState.REBUILDING, 1, {})) is None
    assert positions.state(NUMBER) is PartitionState.REBUILDING
    assert positions.rebuild_due.is_set()


def test_a_writer_without_a_sign_of_life_is_forgotten() -> None:
    positions = Positions("a")
    positions.take(NUMBER, 1, {"b": (5, NOW_MS - FORGOTTEN_MS - 1), "c": (3, NOW_MS)}, NOW_MS)
    assert positions.learn(NUMBER, _known(positions), StoredPosition(1, PartitionState.READY, 0, {"c": 3})) is None
    assert positions.forget(NOW_MS) == {NUMBER: []}
    assert positions.forget(NOW_MS + FORGOTTEN_MS) == {NUMBER: ["b"]}
    assert positions.send(NUMBER).writers == (("a", 0),)


def test_what_others_wrote_is_compared_once() -> None:
    positions = Positions("a")
    positions.learn(NUMBER, None, StoredPosition(1, PartitionState.READY, 0, {}))
    positions.take(NUMBER, 1, {"b": (5, NOW_MS)}, NOW_MS)
    first = positions.send(NUMBER)
    assert first.writers == (("b", 5), ("a", 0))
    positions.seen(first)
    positions.settle(first, 1)
    assert positions.send(NUMBER).writers == (("a", 1),)
