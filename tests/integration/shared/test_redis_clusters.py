"""The store on a Redis Cluster: it follows slots that move and masters that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
from redis.crc import key_slot

from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import StoreUnavailableError
from shared.state.keys import CLUSTER_KEYS, PARTITIONS, partition
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from shared.state.stored_call import Claim, LeaseLimits, Publication, RestoredPublication, WakeUp
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.redis_clusters import Move, RedisCluster, fail_over, redis_cluster
from tests.helpers.redis_servers import ask, replicas_confirm
from tests.helpers.servers import eventually

_CALLS = 40
SLOTS = [key_slot(CLUSTER_KEYS.open(number).encode()) for number in range(PARTITIONS)]


@pytest_asyncio.fixture(scope="module")
async def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisCluster]:
    # No test of it wants a failover, so a master may stand still for a while.
    options = ("--cluster-node-timeout", str(round(10_000 * PACE)))
    async with redis_cluster(tmp_path_factory.mktemp("cluster") / "redis", *options) as running:
        yield running


@pytest_asyncio.fixture
async def redis(shared_redis: RedisCluster) -> RedisCluster:
    """A cluster that is empty, and whose slots earlier tests may have moved."""
    for master in shared_redis.masters:
        await ask(master, "FLUSHALL")
    return shared_redis


@pytest_asyncio.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """A cluster whose nodes the test breaks."""
    # If a master is away, the others go on with their slots, and the error names the one that is away.
    async with redis_cluster(tmp_path / "redis", "--cluster-require-full-coverage", "no") as running:
        yield running


def _key(name: object) -> CallKey:
    return CallKey(SourceName("acme"), CallRef(str(name)))


async def _is(condition: bool) -> bool:  # noqa: FBT001 - a condition
    return condition


class _Writers:
    """Merge calls of every partition until the block ends; `merged` are those that the store has confirmed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.merged: list[CallKey] = []
        self.failures = 0

    async def more(self) -> None:
        """Wait until calls of every partition were merged again."""
        before = len(self.merged)
        await eventually(lambda: _is(len({partition(key) for key in self.merged[before:]}) == PARTITIONS))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._run(worker)) for worker in range(4)]
        try:
            await self.more()
            yield
            await self.more()
        finally:
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(error, asyncio.CancelledError) for error in done), done

    async def _run(self, worker: int) -> None:
        for number in range(10**6):
            keys = [_key(f"{worker}-{number}-{call}") for call in range(8)]
            await until_redis_answers(lambda: self._merge(keys))  # noqa: B023 - awaited before the loop goes on
            self.merged += keys

    async def _merge(self, keys: list[CallKey]) -> None:
        try:
            await self._store.merge({key: [[("a", "1")]] for key in keys})
        except StoreUnavailableError:
            self.failures += 1
            raise

    async def check(self) -> None:
        assert set(await self._store.read_many(self.merged)) == set(self.merged)


async def test_slots_that_moved_are_followed(redis: RedisCluster) -> None:
    """The new node does not have the scripts either."""
    keys = [_key(number) for number in range(100)]
    async with aclosing(Store(redis.url)) as store:
        await store.merge({key: [[("a", "1")]] for key in keys})
        for number in (0, 1, 15):
            move = await _move(redis, number)
            await move.begin()
            await move.finish()
        assert await store.read_facts(keys) == {key: {"a": "1"} for key in keys}
        merged = await store.merge({key: [[("b", "2")]] for key in keys})
        assert {key: call.facts for key, call in merged.calls.items()} == {key: {"a": "1", "b": "2"} for key in keys}


async def test_every_command_of_the_store_runs_in_a_cluster(redis: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.state.dials.time", SimpleNamespace(time=lambda: 1_800_000_000.0))  # no minute ends
    keys = [_key(number) for number in range(100)]
    async with aclosing(Store(redis.url, replicas=1)) as store:
        await store.check()
        await eventually(lambda: replicas_confirm(store))
        merged = await store.merge({key: [[("leg:API:1:pickup", "2026-01-01T00:00:00.000000Z")]] for key in keys})
        assert set(merged.calls) == set(keys)
        await store.schedule({key: WakeUp(1, merged.calls[key].version) for key in keys})
        assert set(await store.open_calls()) == set(keys)
        due = {key: Publication(key, 1, b"[]", "s", merged.calls[key].version) for key in keys}
        assert {claim for claim, _ in (await store.claim(due, holder="one")).values()} == {Claim.YOURS}
        await store.mark(dict.fromkeys(keys, 1))
        await store.restore_publications({keys[0]: RestoredPublication(2, "s", WakeUp(None, "1"))})
        restored = await store.read(keys[0])
        assert restored is not None
        assert restored.revision == 2
        leased = await store.lease(lease_s=1, until_ms=10, limits=LeaseLimits(10, 10, 10), last_wake_ups={})
        assert leased.calls == []
        await store.watermarks.register("one")
        assert await store.watermarks.open_round(pause_s=0)
        await store.watermarks.folded_until()
        assert await store.locks.acquire("a", "one", lease_s=9)
        assert await store.flags.set_first("x", b"y", expires_in_s=9) == b"y"
        assert await store.dials.begin("k", b"p") is None
        assert await store.dials.begin("k", b"q") == b"p"
        await store.dials.finish("k", b"r")
        assert await store.dials.answer("k") == b"r"
        assert [await store.dials.count("who") for _ in range(2)] == [1, 2]
        await store.dials.keep("id", b"event")
        assert await store.dials.unjournaled() == {"id": b"event"}
        assert len((await store.newest(None, 1000))[0]) == len(await store.listed(keys))
        await store.now()
        assert store.clock.offset_s is not None
        nodes = await store.server_settings()
        assert sorted(node.node.is_master for node in nodes) == [False] * 3 + [True] * 3


async def _move(redis: RedisCluster, number: int) -> Move:
    """Return a move of a partition's slot to the next master."""
    source = await redis.master_of(SLOTS[number])
    assert source is not None
    return Move(SLOTS[number], source, redis.masters[(redis.masters.index(source) + 1) % len(redis.masters)])


async def test_slots_move_while_calls_are_merged(redis: RedisCluster) -> None:
    async with aclosing(Store(redis.url)) as store:
        writers = _Writers(store)
        async with writers.running():
            for number in (0, 7, 15):
                move = await _move(redis, number)
                await move.begin()
                await move.move_keys(3)
                await move.finish()
                await writers.more()
        await writers.check()


async def test_calls_can_be_read_while_their_slot_moves_and_merges_wait_for_its_last_key(redis: RedisCluster) -> None:
    """The old node sends clients on for keys that have moved. A new key may be at either node, so its script waits."""
    keys = [key for key in map(_key, range(200)) if partition(key) == 3]
    async with aclosing(Store(redis.url)) as store:
        await store.merge({key: [[("a", "1")]] for key in keys})
        move = await _move(redis, 3)
        await move.begin()
        while await move.move_keys():
            pass
        assert await store.read_facts(keys) == {key: {"a": "1"} for key in keys}
        assert await store.read_some_facts({key: ["a"] for key in keys}) == {key: {"a": "1"} for key in keys}
        merging = asyncio.ensure_future(until_redis_answers(lambda: store.merge({key: [[("b", "2")]] for key in keys})))
        await move.finish()
        merged = await asyncio.wait_for(merging, LIMIT_S)
        assert {key: call.facts for key, call in merged.calls.items()} == {key: {"a": "1", "b": "2"} for key in keys}


async def test_what_a_replica_confirmed_survives_the_failover_of_a_master_and_a_check_names_one_that_is_away(
    own_redis: RedisCluster,
) -> None:
    redis = own_redis
    async with aclosing(Store(redis.url, replicas=1)) as store:
        writers = _Writers(store)
        async with writers.running():
            old = redis.masters[0]
            await fail_over(redis, old)
            await writers.more()
            old.resume()
        await writers.check()
        await asyncio.wait_for(until_redis_answers(store.check), LIMIT_S)
        for node in (*redis.replicas[1:], redis.masters[1]):
            await node.kill()
        with pytest.raises(StoreUnavailableError, match=f":{redis.masters[1].port}"):
            await store.check()
