"""Calls in Redis: merge facts, claim and mark publications, set and lease wake-ups. `call_reader.py` reads them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import cast

from shared.domain.facts import Fact, leg_of, started_us
from shared.domain.ids import CallKey, SourceName
from shared.domain.leg_event import LegEvent
from shared.domain.times import microseconds
from shared.state.bounds import BOUNDS
from shared.state.broker_move import BrokerMoveNotes
from shared.state.call_reader import CallReader
from shared.state.call_replies import read_leased, read_merged
from shared.state.dials import DialStore
from shared.state.flags import Flags
from shared.state.keys import PARTITIONS, by_partition
from shared.state.locks import Locks
from shared.state.ops_conditions import OpsConditions
from shared.state.partitions import Partitions
from shared.state.pbx_clocks import PbxClockNotes
from shared.state.pbx_watch import PbxWatchStore
from shared.state.positions import Positions
from shared.state.previous_secrets import PreviousSecrets
from shared.state.redis_connect import connect
from shared.state.redis_servers import RedisServers
from shared.state.refused_legs import RefusedLegs
from shared.state.replicas import Confirm
from shared.state.replies import redis_reply, text
from shared.state.script import Argument, Run, Script
from shared.state.server_roles import ServerRoles
from shared.state.stored_call import Claim, Leased, LeaseLimits, Merged, Publication, RestoredPublication, WakeUp
from shared.state.stored_position import PartitionState
from shared.state.unfinished_recordings import UnfinishedRecordings
from shared.state.unreplaced import UnreplacedPlaceholders
from shared.state.watermark import Watermarks

# A publication outlives its facts by longer than the journal, so that a replay recognizes calls that are over.
TOMBSTONE_BEYOND_FACTS_S = 8 * 24 * 3600
_DAY_S = 24 * 3600
_RECEIPTS = tuple(event.value for event in LegEvent)


class Store(CallReader, RedisServers):
    """Call state in Redis. Every method raises StoreUnavailableError if Redis is not available; all can be repeated.

    It reads calls as `CallReader` does, and has the clock and the checks of `RedisServers`.
    """

    def __init__(
        self,
        url: str,
        *,
        claim_lease_s: float = 10,
        first_wake_up_s: float = 4 * 3600,
        retain_s: int = 7 * 24 * 3600,
        replicas: int = 0,
        is_guarded: bool = False,
    ) -> None:
        """Prepare connections without opening one.

        `is_guarded`: each write compares the position of its partition with what is known, see `positions.py`.
        `first_wake_up_s`: time from the first fact of a call to its first re-evaluation, unless an earlier one is requested.
        `retain_s`: how long the facts of a published call are kept.
        `replicas`: how many replicas confirm what must not be lost, if they can.
        """
        redis = connect(url, replicas=replicas)
        CallReader.__init__(self, redis)
        RedisServers.__init__(self, redis)
        self.claim_lease_s = claim_lease_s
        self._lease_ms = round(claim_lease_s * 1000)
        self._first_wake_up_ms = round(first_wake_up_s * 1000)
        self._retention = (retain_s, retain_s + TOMBSTONE_BEYOND_FACTS_S)
        # The longest time that a call can be open, then the retention time, and a day for clocks that differ.
        self._listed_ms = self._first_wake_up_ms + (retain_s + _DAY_S) * 1000
        self._merge, self._claim, self._mark = Script("merge"), Script("claim"), Script("mark")
        self._schedule, self._lease, self._restore = Script("schedule"), Script("lease"), Script("restore")
        self._postpone, self._remember = Script("postpone"), Script("remember")
        self.positions = Positions(uuid.uuid4().hex[:12])
        self.partitions = Partitions(self._redis, self.keys, self.positions, self.clock)
        self._is_guarded = is_guarded
        self._open_to: Mapping[int, Collection[PartitionState]] = {}
        self._generations: Mapping[int, int] = {}
        self.watermarks = Watermarks(self._redis)
        self.broker_move = BrokerMoveNotes(self._redis)
        self.locks = Locks(self._redis)
        self.flags = Flags(self._redis)
        self.dials = DialStore(self._redis)
        self.refused_legs = RefusedLegs(self._redis)
        self.unreplaced = UnreplacedPlaceholders(self._redis)
        self.pbx_clocks = PbxClockNotes(self._redis)
        self.previous_secrets = PreviousSecrets(self._redis)
        self.pbx_watch = PbxWatchStore(self._redis)
        self.unfinished_recordings = UnfinishedRecordings(self._redis)
        self.roles = ServerRoles(self._redis)
        self.ops_conditions = OpsConditions(self._redis)

    async def aclose(self) -> None:
        await self._redis.aclose()

    def for_rebuild(self, generations: Mapping[int, int]) -> Store:
        """Return a store that alone writes to partitions that are being rebuilt, as long as they have these generations."""
        other = copy.copy(self)
        other._is_guarded, other._generations = True, generations  # noqa: SLF001 - it is of this class
        other._open_to = dict.fromkeys(generations, frozenset({PartitionState.REBUILDING}))  # noqa: SLF001 - as above
        return other

    def for_drain(self, number: int) -> Store:
        """Return a store that writes to a partition while it is drained too."""
        other = copy.copy(self)
        other._open_to = {number: {PartitionState.DRAINING, PartitionState.READY}}  # noqa: SLF001 - it is of this class
        return other

    def can_write(self, number: int) -> bool:
        """Return whether this store may write calls of a partition, as far as it knows; True if it knows nothing of it."""
        state = self.positions.state(number)
        return not self._is_guarded or state is None or self._may_write(number, state)

    def _may_write(self, number: int, state: PartitionState) -> bool:
        if number in self._generations and self.positions.generation(number) != self._generations[number]:
            return False
        return state in self._open_to.get(number, {PartitionState.READY})

    async def fence(self, partitions: Iterable[int] = range(PARTITIONS)) -> None:
        """Begin a new generation of those partitions that have lost state. They are then to be rebuilt."""
        await self.partitions.fence(list(partitions))

    async def rebuilding(self) -> dict[int, int]:
        """Read from Redis which partitions are to be rebuilt, with their generations."""
        return await self.partitions.rebuilding()

    async def finish_rebuild(self, partition: int, generation: int) -> bool:
        """End the rebuild of a partition; False if it has another generation by now."""
        return await self.partitions.finish(partition, generation) is not None

    async def merge(
        self, events: Mapping[CallKey, Sequence[Sequence[Fact]]], *, begins: Mapping[CallKey, str] | None = None
    ) -> Merged:
        """Merge the facts of events into their calls, durably, and return these calls.

        `begins`: when a call began that also gets facts of events before it (RFC 3339 UTC).
        """

        def merge_partition(number: int, keys: Sequence[CallKey]) -> Run:
            args: list[Argument] = [self._first_wake_up_ms, self._listed_ms, *BOUNDS, len(_RECEIPTS), *_RECEIPTS]
            for key in keys:
                args += (str(key), len(events[key]))
                begin = microseconds(begins[key]) if begins and key in begins else 0
                for facts in events[key]:
                    start = max(started_us(facts) or 0, begin) or ""
                    args += (leg_of(facts), start, len(facts), *chain.from_iterable(facts))
            return [self.keys.open(number), self.keys.recent(number), *self.keys.facts_and_publications(number, keys)], args

        rows = await self._run(self._merge, events, merge_partition, mode="we")
        return read_merged(cast("dict[CallKey, list[object]]", rows))

    async def claim(self, publications: Mapping[CallKey, Publication], *, holder: str) -> dict[CallKey, tuple[Claim, bytes]]:
        """Claim publications. A claim that is YOURS comes with the outbox to publish, which after a take-over is the stored one.

        `holder` is unique among all running holders. A holder that asks again gets its own claim back.
        """

        def claim_partition(number: int, keys: Sequence[CallKey]) -> Run:
            args: list[Argument] = [holder, self._lease_ms]
            for key in keys:
                publication = publications[key]
                args += (publication.revision, publication.outbox, publication.summary, publication.version)
            return [self.keys.publication(number, key) for key in keys], args

        claims = cast("dict[CallKey, list[bytes]]", await self._run(self._claim, publications, claim_partition))
        return {key: (Claim(text(code)), outbox) for key, (code, outbox) in claims.items()}

    async def mark(self, published: Mapping[CallKey, int]) -> None:
        """Mark the revisions that RabbitMQ has confirmed as published. These calls expire after the retention time."""
        rows: dict[CallKey, tuple[Argument, ...]] = {key: (revision,) for key, revision in published.items()}
        # If Redis loses the mark alone, the claim is taken over, and its stored outbox is published again.
        await self._update(self._mark, rows, is_owed=False)

    async def remember_uses(self, uses: Mapping[CallKey, int]) -> None:
        """Remember how many uses RequestIDs had, by the call of the first use."""

        def remember_partition(number: int, keys: Sequence[CallKey]) -> Run:
            return [self.keys.publication(number, key) for key in keys], [self._retention[1], *(uses[key] for key in keys)]

        await self._run(self._remember, uses, remember_partition)

    async def schedule(self, wake_ups: Mapping[CallKey, WakeUp]) -> None:
        """Set wake-ups. A caller that has not seen every fact can only set an earlier one."""
        await self._update(self._schedule, {key: (wake_up.version, _at(wake_up)) for key, wake_up in wake_ups.items()})

    async def restore_publications(self, publications: Mapping[CallKey, RestoredPublication]) -> None:
        """Restore publications that Redis has lost. What Redis has as published already stays as it is."""
        rows: dict[CallKey, tuple[Argument, ...]] = {}
        for key, publication in publications.items():
            wake_up = "tombstone" if publication.is_tombstone else _at(publication.wake_up)
            last_event = "" if publication.last_event_ms is None else publication.last_event_ms
            rows[key] = (publication.revision, publication.summary, publication.wake_up.version, wake_up, last_event)
        await self._update(self._restore, rows)

    async def _update(self, script: Script, rows: Mapping[CallKey, tuple[Argument, ...]], *, is_owed: bool = True) -> None:
        """Run a script that takes the two retention times, and then the name and the row of each call."""

        def update_partition(number: int, keys: Sequence[CallKey]) -> Run:
            args: list[Argument] = [*self._retention]
            for key in keys:
                args += (str(key), *rows[key])
            return [self.keys.open(number), *self.keys.facts_and_publications(number, keys)], args

        await self._run(script, rows, update_partition, is_owed=is_owed)

    async def lease(
        self, *, until_ms: int, lease_s: float, limits: LeaseLimits, last_wake_ups: Mapping[SourceName, int] | None = None
    ) -> Leased:
        """Lease calls that are due by `until_ms` (since 1970). They are due again when the lease expires.

        Due calls of a source beyond `limits` are postponed, those of `last_wake_ups` (ms since 1970) to after these.
        """
        args: list[Argument] = [round(lease_s * 1000), limits.calls, until_ms, limits.calls_of_source, limits.interval_ms]
        args += chain.from_iterable((last_wake_ups or {}).items())
        runs: dict[int, Run] = {
            number: ([self.keys.open(number)], args) for number in range(PARTITIONS) if self.can_write(number)
        }
        parts = list((await self._write(self._lease, runs, mode="")).values())
        return read_leased(cast("list[tuple[list[bytes], list[bytes | int], int]]", parts))

    async def postpone(self, wake_ups: Mapping[CallKey, int], *, leased_until_ms: int) -> None:
        """Move the wake-ups of leased calls (ms since 1970). A call that was folded since keeps the wake-up it has got."""

        def postpone_partition(number: int, keys: Sequence[CallKey]) -> Run:
            args: list[Argument] = [leased_until_ms]
            for key in keys:
                args += (str(key), wake_ups[key])
            return [self.keys.open(number)], args

        await self._run(self._postpone, wake_ups, postpone_partition, mode="")

    async def _run(
        self,
        script: Script,
        keys: Iterable[CallKey],
        run_of: Callable[[int, Sequence[CallKey]], Run],
        *,
        mode: str = "w",
        is_owed: bool = True,
    ) -> dict[CallKey, object]:
        """Run a script for each partition of some calls, in one round trip; returns its row for each call, if it has rows.

        Replicas confirm all that it writes: even a wake-up that is lost closes its call hours later.
        """
        parts = by_partition(keys)
        runs = {number: run_of(number, part) for number, part in parts.items()}
        rows: dict[CallKey, object] = {}
        for number, reply in (await self._write(script, runs, mode=mode, is_owed=is_owed)).items():
            if reply is not None:
                rows |= zip(parts[number], cast("list[object]", reply), strict=True)
        return rows

    async def _write(self, script: Script, runs: Mapping[int, Run], *, mode: str, is_owed: bool = True) -> dict[int, object]:
        """Run a script in some partitions; `mode` and `is_owed` are as in `Partitions.write`."""
        if self._is_guarded:
            return await self.partitions.write(script, runs, self._may_write, mode=mode, is_owed=is_owed)
        confirm = Confirm.YES if mode else Confirm.NO
        return dict(zip(runs, await redis_reply(script.run_each(self._redis, list(runs.values()), confirm)), strict=True))


def _at(wake_up: WakeUp) -> Argument:
    return "" if wake_up.at_ms is None else wake_up.at_ms
