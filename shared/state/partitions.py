"""The partitions of Redis with their positions: guarded writes, and what happens to a partition that has lost state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, cast

from shared.errors import StateLostError, StateMovedError, StateUnverifiedError
from shared.log import get_logger
from shared.state.keys import PARTITIONS, Keys
from shared.state.positions import Positions, Ticket
from shared.state.redis_client import RedisClient
from shared.state.redis_clock import RedisClock
from shared.state.replicas import Confirm
from shared.state.replies import redis_reply, text, text_pairs
from shared.state.script import Argument, Run, Script
from shared.state.stored_position import Known, LossCause, PartitionState, StoredPosition

log = get_logger(__name__)

WAITING: Final = frozenset({PartitionState.REBUILDING, PartitionState.DRAINING})
_WRITER = "w:"
_ALL = range(PARTITIONS)


class Partitions:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated.

    Attributes:
        is_watched: `verify` is called by a watch that knows the positions of other processes; until then nothing is written.
        verification_due: set when something was to be written that was not verified.
    """

    def __init__(self, redis: RedisClient, keys: Keys, positions: Positions, clock: RedisClock) -> None:
        self._redis, self._keys = redis, keys
        self._positions = positions
        self._clock = clock
        self._verified: int | None = None
        self.is_watched = False
        self.verification_due = asyncio.Event()
        self._look, self._fence, self._finish = Script("look"), Script("fence"), Script("finish")
        self._wait, self._take = Script("wait"), Script("take")

    @property
    def is_verified(self) -> bool:
        """True while what is known was compared with the server that is connected now."""
        return self._verified == self._redis.incarnation

    async def verify(self) -> None:
        """Compare what is known with Redis, so that the process may write. Begin the positions of partitions that have none.

        Raises:
            StateLostError: some partitions have lost state. The others may be written.
        """
        incarnation = self._redis.incarnation
        lost = await self._compare(_ALL)
        self._verified = incarnation
        if lost:
            raise StateLostError({number: cause for number, (cause, _) in lost.items()})

    async def write(
        self,
        script: Script,
        runs: Mapping[int, Run],
        allowed: Callable[[int, PartitionState], bool],
        *,
        mode: str,
        is_owed: bool = True,
    ) -> dict[int, object]:
        """Run a script that writes calls in some partitions, in one round trip; returns its replies.

        `allowed` decides in which states a partition may be written. `mode` is that of position.lua. A write that `is_owed` is
        to be published to the stream before anything that it made possible is acked.

        Raises:
            StateLostError, StateMovedError: a partition is not as this process knew it. Some of the others were written.
        """
        await self._prepare(runs, allowed)
        incarnation = self._redis.incarnation
        tickets = {number: self._positions.send(number) for number in runs}
        replies: dict[int, object] = {}
        try:
            signed = [self._signed(runs[number], ticket, mode) for number, ticket in tickets.items()]
            confirm = Confirm.YES if "w" in mode else Confirm.NO
            answers = await redis_reply(script.guarded.run_each(self._redis, signed, confirm))
            replies = dict(zip(runs, answers, strict=True))
        finally:
            changed = self._settle(tickets, replies, is_counted="w" in mode, is_owed=is_owed)
        if self._redis.incarnation != incarnation:
            self.verification_due.set()
            raise StateUnverifiedError("The connection to Redis was replaced during a step")
        if changed:
            await self.look(changed)
            raise StateMovedError(f"Partitions {sorted(changed)} of Redis are not as they were. The work begins again.")
        return {number: cast("list[object]", reply)[1] for number, reply in replies.items()}

    async def _prepare(self, numbers: Collection[int], allowed: Callable[[int, PartitionState], bool]) -> None:
        if not self.is_verified:
            if self.is_watched:
                self.verification_due.set()
                raise StateUnverifiedError("The state of Redis was not verified yet after a new connection")
            await self.verify()
        doubtful = self._not_allowed(numbers, allowed)
        if doubtful:
            await self.look(doubtful)
        self._positions.check_unchanged()
        if doubtful and (others := self._not_allowed(doubtful, allowed)):
            states = ", ".join(f"{number} {self._positions.state(number)}" for number in others)
            raise StateMovedError(f"Partitions of Redis have another state: {states}. The work begins again.")

    def _not_allowed(self, numbers: Iterable[int], allowed: Callable[[int, PartitionState], bool]) -> list[int]:
        state = self._positions.state
        return [number for number in numbers if (is_in := state(number)) is None or not allowed(number, is_in)]

    def _settle(
        self, tickets: Mapping[int, Ticket], replies: Mapping[int, object], *, is_counted: bool, is_owed: bool
    ) -> list[int]:
        """End writes; returns the partitions that are not as this process knew them."""
        changed: list[int] = []
        for number, ticket in tickets.items():
            reply = replies.get(number)
            if isinstance(reply, list):
                self._positions.seen(ticket)
            else:
                changed += [number] if reply is not None else []
            writes = cast("int", reply[0]) if isinstance(reply, list) and is_counted else None
            if not self._positions.settle(ticket, writes, is_owed=is_owed):
                changed.append(number)
        return changed

    async def look(self, numbers: Collection[int] = _ALL) -> None:
        """Learn the positions of partitions.

        Raises:
            StateLostError: some of them have lost state.
        """
        lost = await self._compare(numbers)
        if lost:
            raise StateLostError({number: cause for number, (cause, _) in lost.items()})

    async def _compare(self, numbers: Collection[int]) -> dict[int, tuple[LossCause, int]]:
        """Learn positions; returns those that show a loss, with its cause and the generation in Redis, 0 if there is none."""
        before = self._positions.known(self._now_ms())
        stored = await self._read(numbers, before)
        lost: dict[int, tuple[LossCause, int]] = {}
        for number, position in stored.items():
            cause = self._positions.learn(number, before.get(number), position)
            if cause is not None:
                lost[number] = cause, position.generation if position else 0
        return lost

    async def _read(self, numbers: Collection[int], known: Mapping[int, Known] | None) -> dict[int, StoredPosition | None]:
        """Read positions, and begin those that are not `known`, unless that is None."""
        runs = [([self._keys.position(number)], [int(known is not None and number not in known)]) for number in numbers]
        replies = await redis_reply(self._look.run_each(self._redis, runs))
        return {number: _position(cast("list[bytes]", reply)) for number, reply in zip(numbers, replies, strict=True)}

    async def fence(self, numbers: Collection[int] = _ALL) -> None:
        """Begin a new generation of those partitions that have lost state, and learn the new positions."""
        lost = await self._compare(numbers)
        runs: list[Run] = [
            ([self._keys.position(number)], [seen or "", max(seen, self._positions.generation(number))])
            for number, (_, seen) in lost.items()
        ]
        answers = await redis_reply(self._fence.run_each(self._redis, runs)) if runs else ()
        for (number, (cause, _)), answer in zip(lost.items(), answers, strict=True):
            is_mine, generation = cast("tuple[int, bytes]", answer)
            if is_mine:
                self._positions.begun(number, int(generation))
                log.error("state_lost", partition=number, cause=str(cause), generation=int(generation))
        if lost:
            await self._compare(lost)

    async def rebuilding(self) -> dict[int, int]:
        """Read from Redis which partitions are to be rebuilt, with their generations."""
        positions = await self._read(_ALL, None)
        return {
            number: position.generation
            for number, position in positions.items()
            if position is not None and position.state is PartitionState.REBUILDING
        }

    async def waiting(self) -> dict[int, PartitionState]:
        """Read from Redis which partitions are not ready, and their states. No script, so also while Redis refuses writes."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for number in _ALL:
                pipe.hget(self._keys.position(number), "state")
            fields = await redis_reply(pipe.execute())
        states = {number: PartitionState(text(field)) for number, field in zip(_ALL, fields, strict=True) if field is not None}
        return {number: state for number, state in states.items() if state in WAITING}

    async def finish(self, number: int, generation: int) -> PartitionState | None:
        """End a rebuild, or a draining once nothing waits; returns the new state, None if the generation is another."""
        answer = await redis_reply(
            self._finish(self._redis, [self._keys.position(number), self._keys.waiting(number)], [generation])
        )
        if not (state := text(answer)):
            return None
        self._positions.moved(number, generation, PartitionState(state))
        return PartitionState(state)

    async def wait(self, events: Mapping[int, Sequence[bytes]]) -> None:
        """Add raw events to those that wait until their partition is rebuilt."""
        runs: dict[int, Run] = {number: ([self._keys.waiting(number)], rows) for number, rows in events.items()}
        await self.write(self._wait, runs, lambda _, state: state in WAITING, mode="w")

    async def take_waiting(self, number: int, at_most: int, folded: Sequence[bytes] = ()) -> list[bytes]:
        """Read the first events that wait for a partition that is drained, after those that were folded are deleted."""
        runs: dict[int, Run] = {number: ([self._keys.waiting(number)], [at_most, *folded])}
        replies = await self.write(self._take, runs, lambda _, state: state is PartitionState.DRAINING, mode="w", is_owed=False)
        return cast("list[bytes]", replies[number])

    async def forget(self, writers: Mapping[int, Iterable[str]]) -> None:
        """Delete the numbers of writers that are gone for long."""
        for number, names in writers.items():
            fields = [_WRITER + name for name in names]
            if fields:
                await redis_reply(self._redis.hdel(self._keys.position(number), *fields))

    def _signed(self, run: Run, ticket: Ticket, mode: str) -> Run:
        """Add a position to the keys and arguments of a script, as position.lua reads them."""
        keys, args = run
        signed: list[Argument] = [*args]
        for name, writes in ticket.writers:
            signed += (_WRITER + name, writes)
        signed += (len(ticket.writers), ticket.generation, str(ticket.state), mode)
        return [*keys, self._keys.position(ticket.number)], signed

    def _now_ms(self) -> int:
        return round(self._clock.now().timestamp() * 1000)


def _position(flat: Sequence[bytes]) -> StoredPosition | None:
    fields = text_pairs(flat)
    if "generation" not in fields:
        return None
    writes = {name.removeprefix(_WRITER): int(value) for name, value in fields.items() if name.startswith(_WRITER)}
    evicted = fields["evicted_now"]
    has_evicted = evicted not in {"0", fields.get("evicted", "0")}
    state = PartitionState(fields.get("state", PartitionState.READY))
    return StoredPosition(int(fields["generation"]), state, int(fields.get("replaced", 0)), writes, has_evicted)
