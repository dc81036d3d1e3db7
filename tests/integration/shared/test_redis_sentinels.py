"""The store behind Sentinels: it follows a failover, and believes no Sentinel alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import StoreUnavailableError
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from tests.helpers.pace import LIMIT_S
from tests.helpers.redis_sentinels import RedisSentinels, fail_over, redis_sentinels
from tests.helpers.redis_servers import ask
from tests.helpers.servers import eventually

_CALLS = 40


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisSentinels]:
    async with redis_sentinels(tmp_path / "redis") as running:
        yield running


async def _merge(store: Store, name: str, fact: str) -> dict[str, str]:
    key = CallKey(SourceName("acme"), CallRef(name))
    merged = await asyncio.wait_for(until_redis_answers(lambda: store.merge({key: [[(fact, "1")]]})), LIMIT_S)
    return dict(merged.calls[key].facts)


async def test_what_a_replica_confirmed_survives_a_failover_under_writes(redis: RedisSentinels) -> None:
    merged: list[str] = []

    async def merge_on(store: Store, worker: int, stop: asyncio.Event) -> None:
        for number in range(10**6):
            if stop.is_set():
                return
            await _merge(store, f"{worker}-{number}", "a")
            merged.append(f"{worker}-{number}")

    async with aclosing(Store(redis.url, replicas=1)) as store:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for worker in range(4):
                group.create_task(merge_on(store, worker, stop))
            await eventually(lambda: _is(len(merged) > _CALLS))
            old = await redis.primary()
            new = await fail_over(redis)
            before = len(merged)
            old.resume()  # as a master, until the Sentinels make it a replica
            await eventually(lambda: _is(len(merged) > before + _CALLS))
            stop.set()
        keys = [CallKey(SourceName("acme"), CallRef(name)) for name in merged]
        assert await ask(new, "ROLE", is_raw=True)
        assert set(await store.read_many(keys)) == set(keys)
        await store.verify()
        assert store.unclear_master == ""


async def _is(condition: bool) -> bool:  # noqa: FBT001 - a condition
    return condition


@pytest.mark.volume
async def test_a_sentinel_that_is_cut_off_with_the_old_master_is_not_believed(redis: RedisSentinels) -> None:
    """Its two peers have failed over. It still names the old master, which still takes writes."""
    old, (alone, *others) = redis.servers[0], redis.sentinels
    alone.pause()  # it hears of nothing
    new = await fail_over(redis)
    async with aclosing(Store(redis.url)) as store:
        assert await _merge(store, "1", "a") == {"a": "1"}
        assert await ask(new, "DBSIZE") != 0
        for sentinel in others:
            sentinel.pause()
        # Its address of the old master is all that can be learned now.
        alone.resume()
        old.resume()
        async with aclosing(Store(redis.url)) as late:
            with pytest.raises(StoreUnavailableError, match="1 of 3 Sentinels of calls answered, and 2 must agree on the master"):
                await late.check()
        async with aclosing(Store(f"redis+sentinel://127.0.0.1:{alone.port}/calls")) as fewer:
            with pytest.raises(StoreUnavailableError, match="list more of them in CALLFOLD_REDIS_URL"):
                await fewer.check()
        assert await _merge(store, "1", "b") == {"a": "1", "b": "1"}, "the master that is known goes on"
        await store.verify()
        assert "2 must agree" in store.unclear_master
        assert store.handicaps == [store.unclear_master]


async def test_connections_leave_a_master_that_the_sentinels_have_replaced(redis: RedisSentinels) -> None:
    """It does not know yet that it was replaced, and would take writes until it does."""
    old = redis.servers[0]
    async with aclosing(Store(redis.url)) as store:
        await asyncio.gather(*(_merge(store, str(number), "a") for number in range(8)))
        new = await fail_over(redis)
        for sentinel in redis.sentinels:  # none makes the old one a replica
            sentinel.pause()
        old.resume()
        for sentinel in redis.sentinels[1:]:
            sentinel.resume()
        await store.verify()
        await asyncio.gather(*(_merge(store, str(number), "b") for number in range(8)))
        assert f":{new.port}" in str(await store.server_settings())
