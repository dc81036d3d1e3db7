"""Guarded writes on a real Redis: each loss of state is seen before anything is concluded, and no write gets past a fence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from types import SimpleNamespace
from typing import cast

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import StateLostError, StateMovedError, StateUnverifiedError
from shared.state.keys import PARTITIONS, PLAIN_KEYS, partition
from shared.state.store import Store
from shared.state.stored_call import Claim, LeaseLimits, Publication, WakeUp
from shared.state.stored_position import PartitionState
from tests.helpers.servers import Servers
from worker.folding.state_journal import StateJournal
from worker.folding.state_watch import StateWatch

KEY = CallKey(SourceName("acme"), CallRef("513"))
NUMBER = partition(KEY)
FACTS = {KEY: [[("x", "1")]]}
LIMITS = LeaseLimits(calls=10, calls_of_source=10, interval_ms=1)
PUBLICATION = Publication(KEY, 1, b"outbox", "", "1")

WRITES: dict[str, Callable[[Store], Awaitable[object]]] = {
    "merge": lambda store: store.merge(FACTS),
    "claim": lambda store: store.claim({KEY: PUBLICATION}, holder="a"),
    "mark": lambda store: store.mark({KEY: 1}),
    "schedule": lambda store: store.schedule({KEY: WakeUp(1, "1")}),
    "remember": lambda store: store.remember_uses({KEY: 2}),
    "postpone": lambda store: store.postpone({KEY: 2}, leased_until_ms=1),
    "lease": lambda store: store.lease(until_ms=1, lease_s=1, limits=LIMITS),
}


@pytest.fixture
def servers(redis_only: Servers) -> Servers:
    return redis_only


@pytest_asyncio.fixture
async def redis(servers: Servers) -> AsyncIterator[Redis]:
    async with Redis.from_url(servers.stack.redis_url) as redis:
        yield redis


def _store(servers: Servers) -> AbstractAsyncContextManager[Store]:
    return aclosing(Store(servers.stack.redis_url, is_guarded=True))


async def _dump(redis: Redis) -> dict[bytes | str, bytes | None]:
    return {name: await redis.dump(name) for name in await redis.keys("*")}


@pytest.mark.parametrize("name", WRITES)
async def test_no_script_writes_to_an_emptied_partition(servers: Servers, redis: Redis, name: str) -> None:
    async with _store(servers) as store:
        await store.merge(FACTS)
        await store.merge(FACTS)  # by now the first connection is verified
        await redis.flushall()
        with pytest.raises(StateLostError) as lost:
            await WRITES[name](store)
        assert lost.value.causes[NUMBER] == "emptied"
        assert not await redis.keys("*")


@pytest.mark.parametrize("name", WRITES)
async def test_no_script_writes_to_an_older_state(servers: Servers, redis: Redis, name: str) -> None:
    async with _store(servers) as store, _store(servers) as other:
        await other.merge(FACTS)
        await store.merge(FACTS)
        old = {name: await redis.dump(name) for name in await redis.keys("callfold*")}
        await store.merge(FACTS)
        await redis.flushall()
        for key, value in old.items():
            await redis.restore(key, 0, value or b"")
        before = await _dump(redis)
        with pytest.raises(StateLostError) as lost:
            await WRITES[name](store)
        assert lost.value.causes == {NUMBER: "older"}
        assert await _dump(redis) == before


async def test_a_lost_partition_is_fenced_once_and_only_its_rebuilder_writes(servers: Servers, redis: Redis) -> None:
    async with _store(servers) as store, _store(servers) as other:
        await store.merge(FACTS)
        await other.merge(FACTS)
        await redis.delete(PLAIN_KEYS.position(NUMBER), PLAIN_KEYS.facts(NUMBER, KEY))
        await asyncio.gather(store.fence(), other.fence())
        rebuilding = await store.rebuilding()
        assert list(rebuilding) == [NUMBER]
        assert await store.partitions.waiting() == {NUMBER: PartitionState.REBUILDING}
        for each in (store, other):
            assert each.positions.state(NUMBER) is PartitionState.REBUILDING
            assert not each.can_write(NUMBER)
            with pytest.raises(StateMovedError):
                await each.merge(FACTS)
        rebuilder = store.for_rebuild(rebuilding)
        await rebuilder.merge(FACTS)
        assert not await store.finish_rebuild(NUMBER, rebuilding[NUMBER] - 1)
        assert await store.finish_rebuild(NUMBER, rebuilding[NUMBER])
        with pytest.raises(StateMovedError):
            await rebuilder.merge(FACTS)
        await store.merge(FACTS)
        await other.merge(FACTS)  # it learns that the partition is ready


async def test_a_process_that_knows_an_earlier_generation_alone_writes_nothing(servers: Servers, redis: Redis) -> None:
    """It has written nothing itself, so no number of its own is missing."""
    async with _store(servers) as store, _store(servers) as other:
        await store.merge(FACTS)
        await other.read_facts([KEY])
        await other.partitions.verify()
        await redis.delete(PLAIN_KEYS.position(NUMBER))
        await store.fence()
        assert await store.finish_rebuild(NUMBER, (await store.rebuilding())[NUMBER])
        assert (await redis.hget(PLAIN_KEYS.position(NUMBER), "state")) == b"ready"
        with pytest.raises(StateMovedError):
            await other.claim({KEY: PUBLICATION}, holder="a")
        assert await redis.hget(PLAIN_KEYS.publication(NUMBER, KEY), "state") is None


async def test_a_new_connection_is_verified_with_what_others_have_published(servers: Servers, redis: Redis) -> None:
    async with _store(servers) as store, _store(servers) as other:
        await other.merge(FACTS)
        position = await redis.dump(PLAIN_KEYS.position(NUMBER))
        await other.merge(FACTS)
        await redis.restore(PLAIN_KEYS.position(NUMBER), 0, position or b"", replace=True)
        now_ms = round(time.time() * 1000)

        async def sync() -> None:
            for number, (generation, writes) in other.positions.unrecorded().items():
                store.positions.take(number, generation, {other.positions.writer: (writes, now_ms)}, now_ms)

        journal = SimpleNamespace(sync=sync, now_ms=now_ms)
        watch = StateWatch(store, cast("StateJournal", journal))
        with pytest.raises(StateUnverifiedError):
            await store.merge(FACTS)
        while not store.partitions.is_verified:
            await watch.check()
        assert list(await store.rebuilding()) == [NUMBER]


async def test_events_wait_during_a_rebuild_and_are_drained_after_it(servers: Servers, redis: Redis) -> None:
    async with _store(servers) as store:
        await store.merge(FACTS)
        await redis.flushall()
        await store.fence()
        generation = (await store.rebuilding())[NUMBER]
        await store.partitions.wait({NUMBER: [b"one", b"two", b"one"]})
        assert await store.finish_rebuild(NUMBER, generation)
        assert store.positions.state(NUMBER) is PartitionState.DRAINING
        assert store.positions.drain_due.is_set()
        assert await store.partitions.take_waiting(NUMBER, 2) == [b"one", b"two"]
        assert await store.partitions.take_waiting(NUMBER, 2, [b"one", b"two"]) == [b"one"]
        assert await store.finish_rebuild(NUMBER, generation)
        assert store.positions.state(NUMBER) is PartitionState.DRAINING
        assert await store.partitions.take_waiting(NUMBER, 2, [b"one"]) == []
        assert await store.finish_rebuild(NUMBER, generation)
        assert store.positions.state(NUMBER) is PartitionState.READY


async def test_a_claim_of_before_the_loss_is_not_given_again(servers: Servers, redis: Redis) -> None:
    async with _store(servers) as store:
        await store.merge(FACTS)
        assert (await store.claim({KEY: PUBLICATION}, holder="a"))[KEY][0] is Claim.YOURS
        await redis.flushall()
        with pytest.raises(StateLostError):
            await store.claim({KEY: PUBLICATION}, holder="a")


async def test_the_first_start_loses_nothing(servers: Servers, redis: Redis) -> None:
    async with _store(servers) as store:
        plain = Store(servers.stack.redis_url)
        await plain.merge(FACTS)
        await plain.aclose()
        await store.merge(FACTS)
        assert len(await redis.keys("*:position")) == PARTITIONS
        assert await store.rebuilding() == {}
