"""Workers fold behind Sentinels and on a cluster while a master freezes and slots move: every call is published, with one body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from redis.crc import key_slot

from console.local.ports import free_port
from shared.state.keys import CLUSTER_KEYS
from tests.helpers import redis_clusters, redis_sentinels
from tests.helpers.downstream import DOWNSTREAM, downstream
from tests.helpers.servers import Servers, Stack, call_back, empty_streams, eventually_as_many, lines_of

_CALLS = 30
_Break = Callable[[], Awaitable[None]]


@asynccontextmanager
async def _sentinels(directory: Path) -> AsyncIterator[tuple[str, _Break]]:
    async with redis_sentinels.redis_sentinels(directory) as redis:

        async def fail_over() -> None:
            old = await redis.primary()
            await redis_sentinels.fail_over(redis)
            old.resume()

        yield redis.url, fail_over


@asynccontextmanager
async def _cluster(directory: Path) -> AsyncIterator[tuple[str, _Break]]:
    async with redis_clusters.redis_cluster(directory) as redis:

        async def move_and_fail_over() -> None:
            for number in (0, 15):
                slot = key_slot(CLUSTER_KEYS.open(number).encode())
                source = await redis.master_of(slot)
                assert source is not None
                await redis_clusters.move_slot(slot, source, redis.masters[1])
            await redis_clusters.fail_over(redis, redis.masters[1])
            redis.masters[1].resume()

        yield redis.url, move_and_fail_over


@pytest.mark.volume
@pytest.mark.parametrize("topology", [_sentinels, _cluster], ids=["sentinel", "cluster"])
async def test_a_failover_under_load_costs_no_call(
    servers: Servers, topology: Callable[[Path], AbstractAsyncContextManager[tuple[str, _Break]]]
) -> None:
    port, answered, seen, is_over = free_port(), set[int](), dict[str, set[bytes]](), asyncio.Event()

    async def load() -> None:
        for number in count(1000):
            if is_over.is_set():
                return
            await call_back(port, lines_of(number))
            answered.add(number)

    async def published() -> int:
        for message in await servers.take_all(DOWNSTREAM):
            seen.setdefault(str(message.message_id), set()).add(message.body)
        return len(seen)

    assert isinstance(servers.stack, Stack)
    await empty_streams(servers.stack)  # it knows the positions of the Redis that other tests share
    async with AsyncExitStack() as closing:
        url, break_it = await closing.enter_async_context(topology(servers.directory / "redis"))
        await closing.enter_async_context(downstream(servers))
        fleet = await closing.enter_async_context(servers.fleet(CALLFOLD_REDIS_URL=url, CALLFOLD_REDIS_REPLICAS="1"))
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        for number in range(2):
            fleet.add(f"worker-{number}", "worker", {})
        await fleet.start_all()
        loading = asyncio.ensure_future(load())
        await eventually_as_many(_CALLS, published)
        await break_it()
        await eventually_as_many(len(seen) + _CALLS, published)
        is_over.set()
        await loading
        await eventually_as_many(len(answered), published)
        assert all(process.is_running for process in fleet.processes)
    assert set(seen) == {f"default/{number}/1" for number in answered}
    assert all(len(bodies) == 1 for bodies in seen.values())
    assert await servers.take_all("callbacks.dead") == []
