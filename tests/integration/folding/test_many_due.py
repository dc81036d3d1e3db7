"""One source with 100,000 due calls: those of another are fired at the next look, and its own at its rate. On a real Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import pytest
from redis.asyncio import Redis

from shared.amqp.publisher import Message, Publisher
from shared.domain.barrier import FoldedUntil
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import TimerEvent, decode
from shared.state.keys import PARTITIONS, PLAIN_KEYS, partition
from shared.state.store import Store
from tests.helpers.servers import Servers
from worker.folding.timer_shares import BURST, PER_S
from worker.folding.timers import Timers

NOW_MS = 1_800_000_000_000
FLOODER, OTHER = SourceName("flooder"), SourceName("other")
MANY = 100_000


class _Site:
    """Timers of a worker whose events close their calls at once."""

    def __init__(self, store: Store, redis: Redis) -> None:
        self.timers = Timers(cast("Publisher", self), store, lease_s=30, hold_off_s=0)
        self.fired: Counter[CallKey] = Counter()
        self._redis = redis

    async def add(self, keys: list[CallKey], wake_up_ms: int) -> None:
        parts: dict[int, dict[str, float]] = {}
        for number, key in enumerate(keys):
            parts.setdefault(partition(key), {})[str(key)] = wake_up_ms + number
        async with self._redis.pipeline(transaction=False) as pipeline:
            for number, scores in parts.items():
                pipeline.zadd(PLAIN_KEYS.open(number), scores)
            await pipeline.execute()

    async def publish(self, message: Message) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for event in decode(message.body):
                assert isinstance(event, TimerEvent)
                key = CallKey(SourceName(event.source), CallRef(event.call))
                self.fired[key] += 1
                pipeline.zrem(PLAIN_KEYS.open(partition(key)), str(key))
            await pipeline.execute()

    async def fire(self, after_ms: int) -> Counter[SourceName]:
        """Look once with the watermark at some time after `NOW_MS`; returns the number of fired calls of each source."""
        before = self.fired.copy()
        await self.timers.fire(FoldedUntil(NOW_MS + after_ms))
        return Counter(key.source for key in (self.fired - before).elements())

    async def count(self, until: int | str = "+inf") -> int:
        """Count the open calls with a wake-up until then."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for number in range(PARTITIONS):
                pipeline.zcount(PLAIN_KEYS.open(number), "-inf", until)
            return sum(await pipeline.execute())


def _keys(source: SourceName, count: int, first: int = 1) -> list[CallKey]:
    return [CallKey(source, CallRef(str(number))) for number in range(first, first + count)]


@pytest.fixture
async def site(redis_only: Servers) -> AsyncIterator[_Site]:
    store = Store(redis_only.stack.redis_url)
    async with Redis.from_url(redis_only.stack.redis_url) as redis:
        yield _Site(store, redis)
    await store.aclose()


async def test_due_calls_of_one_source_hide_none_of_another(site: _Site) -> None:
    await site.add(_keys(FLOODER, MANY), NOW_MS - MANY)
    await site.add(_keys(OTHER, 1), NOW_MS)
    first = await site.fire(0)
    assert first == {OTHER: 1, FLOODER: BURST}
    assert await site.count() == MANY + 1 - first.total(), "none is lost"
    assert await site.count(NOW_MS) == 0, "none is due any more"
    assert await site.count(NOW_MS + 10_000) <= 11 * PER_S, "and no more come due than may fire"
    for second in range(1, 6):
        await site.add(_keys(OTHER, 1, first=second + 1), NOW_MS + 1000 * second)
        fired = await site.fire(1000 * second)
        assert fired[OTHER] == 1
        assert await site.count(NOW_MS + 1000 * second) == 0


async def test_every_due_call_of_a_flood_fires_once_at_the_rate_of_its_source(site: _Site) -> None:
    keys = _keys(FLOODER, 6 * BURST)
    await site.add(keys, NOW_MS - len(keys))
    fired, tick = 0, 0
    while await site.count():
        fired += (await site.fire(250 * tick)).total()
        assert fired <= BURST + PER_S * 0.25 * tick
        tick += 1
        assert tick < 2 * len(keys) / PER_S / 0.25, "as fast as the rate allows"
    assert site.fired == Counter(keys)


async def test_many_sources_with_many_due_calls_hide_none_either(site: _Site) -> None:
    for number in range(20):
        await site.add(_keys(SourceName(f"gone{number}"), 2000), NOW_MS - 10_000)
    await site.add(_keys(OTHER, 1), NOW_MS)
    assert (await site.fire(0))[OTHER] == 1
