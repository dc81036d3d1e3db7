"""Scripts on a Redis whose memory is full: those that need memory write nothing at all, those that free it run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import StoreUnavailableError
from shared.state.keys import PLAIN_KEYS, partition
from shared.state.store import Store
from shared.state.stored_call import Claim, LeaseLimits, Publication, RestoredPublication, WakeUp
from shared.state.watermark import SpoolReport
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers

KEY = CallKey(SourceName("acme"), CallRef("513"))
SEEN = ("leg:API:1:pickup", "2026-11-23T07:44:00.000000Z")
LATER = ("leg:API:1:hangup", "2026-11-23T07:44:30.000000Z")
LIMITS = LeaseLimits(calls=10, calls_of_source=10, interval_ms=1)
PUBLICATION = Publication(KEY, 1, b"outbox", "", "1")
Step = Callable[[Store], Awaitable[object]]

NEED_MEMORY: dict[str, Step] = {
    "merge": lambda store: store.merge({KEY: [[LATER]]}),
    "claim": lambda store: store.claim({KEY: PUBLICATION}, holder="a"),
    "restore": lambda store: store.restore_publications({KEY: RestoredPublication(1, "", WakeUp(None, ""))}),
    # A timer cannot be merged, so a call must not be due again and again.
    "lease": lambda store: store.lease(until_ms=round(time.time() * 1000), lease_s=5, limits=LIMITS),
    "register": lambda store: store.watermarks.register("worker"),
    "round": lambda store: store.watermarks.open_round(pause_s=0),
    "pass": lambda store: store.watermarks.pass_round("worker", 1),
    "count": lambda store: store.watermarks.store_consumer_count(1, 1),
    "spool": lambda store: store.watermarks.store_spool_reports([SpoolReport("spool", None, 1)]),
}


@pytest.fixture
def servers(redis_only: Servers) -> Servers:
    return redis_only


@asynccontextmanager
async def _full(servers: Servers, redis: Redis) -> AsyncIterator[None]:
    await redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await redis.config_set("maxmemory", 0)


async def _dump(redis: Redis) -> dict[bytes | str, tuple[bytes | None, bool]]:
    return {name: (await redis.dump(name), await redis.ttl(name) > 0) for name in await redis.keys("*")}


async def _prepare(store: Store, redis: Redis) -> None:
    version = (await store.merge({KEY: [[SEEN]]})).calls[KEY].version
    await store.schedule({KEY: WakeUp(1, version)})
    # It is out of date, so that the first command of merge.lua frees memory. Redis lets a script go on after such a write.
    await redis.zadd(PLAIN_KEYS.recent(partition(KEY)), {"acme/1": 1})


@pytest.mark.parametrize("script", NEED_MEMORY)
async def test_a_script_that_needs_memory_is_refused_before_it_writes_anything(servers: Servers, script: str) -> None:
    store = Store(servers.stack.redis_url)
    async with Redis.from_url(servers.stack.redis_url) as redis:
        await _prepare(store, redis)
        before = await _dump(redis)
        async with _full(servers, redis):
            running = asyncio.all_tasks()
            with pytest.raises(StoreUnavailableError, match="OOM"):
                await NEED_MEMORY[script](store)
            # The first refusal ends a step. What it sent to other partitions must not arrive when there is memory again.
            if left := asyncio.all_tasks() - running:
                await asyncio.wait(left, timeout=LIMIT_S)
        assert await _dump(redis) == before
        await NEED_MEMORY[script](store)
    await store.aclose()


async def test_what_frees_memory_runs_while_it_is_full(servers: Servers) -> None:
    store = Store(servers.stack.redis_url, retain_s=100)
    async with Redis.from_url(servers.stack.redis_url) as redis:
        await _prepare(store, redis)
        assert await store.claim({KEY: PUBLICATION}, holder="a") == {KEY: (Claim.YOURS, b"outbox")}
        assert await store.locks.acquire("a", "holder", lease_s=60)
        async with _full(servers, redis):
            await store.mark({KEY: 1})
            assert await store.open_calls() == {}
            await store.schedule({KEY: WakeUp(None, "1")})
            assert await store.locks.renew("a", "holder", lease_s=60)
            await store.locks.release("a", "holder")
            assert not await redis.exists("callfold:lock:a")
            await store.watermarks.reports()
        fields = await redis.hgetall(f"callfold:{{{partition(KEY)}}}:publication:{KEY}")
        assert (fields[b"state"], b"outbox" in fields) == (b"published", False)
    await store.aclose()
