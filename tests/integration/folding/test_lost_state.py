"""The fold on a Redis that loses state while it folds: nothing is concluded until the state is rebuilt, and no event is lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import orjson
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from console.local.stack import Server
from shared.amqp.batch_publish import Publishable
from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLS, topology
from shared.config.live_sources import LiveSources
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, RawEvent, encode, join
from shared.domain.times import rfc3339
from shared.runtime.process import background
from shared.state.keys import PARTITIONS, PLAIN_KEYS, partition
from shared.state.store import Store
from shared.state.stored_position import PartitionState
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.redis_servers import redis_server
from tests.helpers.servers import POLICY, RETRY_S, Servers, begin_generation, eventually, lines_of
from worker.folding import state_journal
from worker.folding.fold import Fold
from worker.folding.state_journal import StateJournal
from worker.folding.state_watch import StateWatch
from worker.folding.waiting_events import WaitingEvents

SOURCE = SourceName("default")


class Recorder(Publisher):
    """A publisher that records what it has published to `calls`, in order, with what was published ahead of it."""

    def __init__(self, address: BrokerAddress) -> None:
        super().__init__(address, timeout_s=LIMIT_S)
        self.published: list[Message] = []

    async def publish_once(
        self, messages: Sequence[Publishable], *, task: object, may_send: Callable[[], bool] = lambda: True
    ) -> list[Publishable]:
        self.published += cast("Sequence[Message]", messages)
        return await super().publish_once(messages, task=task, may_send=may_send)


@dataclass
class Worker:
    """The folding half of one worker process."""

    store: Store
    publisher: Recorder
    journal: StateJournal
    watch: StateWatch
    fold: Fold
    waiting: WaitingEvents

    async def take(self, *events: RawEvent) -> None:
        await self.fold.fold([join(map(encode, events))])

    @property
    def calls(self) -> list[Message]:
        return [message for message in self.publisher.published if message.exchange == CALLS]


@dataclass
class Site:
    """Workers on a Redis of their own, and the events that were folded."""

    servers: Servers
    redis: Server
    events: list[RawEvent] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.redis.port}/0"

    @asynccontextmanager
    async def worker(self, name: str) -> AsyncIterator[Worker]:
        address = BrokerAddress((self.servers.stack.amqp_url,), topology(RETRY_S), name)
        publisher, store = Recorder(address), Store(self.url, is_guarded=True)
        journal = StateJournal(address, publisher, store.positions, store.clock.now)
        watch = StateWatch(store, journal)

        def fold(other: Store) -> Fold:
            return Fold(publisher, other, LiveSources.load(None), POLICY, holder=f"{name}/{id(other)}", journal=journal)

        worker = Worker(store, publisher, journal, watch, fold(store), WaitingEvents(store, fold))
        try:
            async with background(publisher.run(), journal.run(), watch.run(), worker.waiting.run()):
                yield worker
        finally:
            await store.aclose()

    async def rebuild(self, worker: Worker) -> None:
        """Replay what was folded, and conclude nothing, as the rebuilder does. Published calls are marked."""
        generations = await worker.store.rebuilding()
        rebuilder = worker.store.for_rebuild(generations)
        replay = Fold(Replay(), rebuilder, LiveSources.load(None), POLICY, holder="replay")  # type: ignore[arg-type]
        await replay.fold([join(encode(event) for event in self.events if partition(_key(event)) in generations)])
        for number, generation in generations.items():
            assert await worker.store.finish_rebuild(number, generation)


class Replay:
    """Takes what a replay publishes, which was published before."""

    async def publish_until_confirmed(self, messages: Sequence[Message]) -> None:
        list(messages)

    async def publish_once(self, messages: Sequence[Message], **_: object) -> list[Message]:
        del messages
        return []


def _key(event: RawEvent) -> CallKey:
    assert isinstance(event, CallbackEvent)
    return CallKey(SOURCE, CallRef(event.query.partition("RequestID=")[2].partition("&")[0]))


def _events(call: int, *, days_ago: int = 0) -> list[CallbackEvent]:
    at = rfc3339(datetime.now(UTC) - timedelta(days=days_ago))
    return [CallbackEvent(SOURCE, at, line) for line in lines_of(call)]


@pytest_asyncio.fixture
async def site(servers: Servers, tmp_path: Path) -> AsyncIterator[Site]:
    async with redis_server(tmp_path / "redis") as redis:
        await begin_generation(f"redis://127.0.0.1:{redis.port}/0", servers.stack.amqp_url)
        yield Site(servers, redis)


async def _empty(site: Site) -> None:
    async with Redis(port=site.redis.port) as redis:
        await redis.flushall()


async def _ready(worker: Worker) -> None:
    async def is_ready() -> bool:
        return worker.store.partitions.is_verified and not worker.store.positions.not_ready()

    await eventually(is_ready)


def _outcomes(*workers: Worker) -> list[tuple[int, str]]:
    rows = []
    for message in (message for worker in workers for message in worker.calls):
        record = orjson.loads(message.body)["data"]
        rows.append((record["request_id"], record["outcome"]))
    return sorted(rows)


async def test_a_call_that_was_half_folded_when_redis_was_emptied_is_published_once_and_right(site: Site) -> None:
    async with site.worker("one") as worker:
        await _ready(worker)
        events = _events(513)
        await worker.take(*events[:2])
        site.events += events[:2]
        await _empty(site)
        await asyncio.wait_for(worker.take(*events[2:]), LIMIT_S)
        assert worker.calls == []
        assert worker.store.positions.state(partition(_key(events[0]))) is PartitionState.REBUILDING
        await site.rebuild(worker)
        await _ready(worker)
        await eventually(lambda: _has_published(worker, 1))
        assert _outcomes(worker) == [(513, "answered")]


async def test_partitions_are_drained_side_by_side_by_several_workers(site: Site) -> None:
    """One worker could not keep up with what arrives for all."""
    calls = [next(call for call in range(513, 9999) if partition(_key(_events(call)[0])) == number) for number in range(4)]
    async with site.worker("one") as worker:
        await _ready(worker)
        await _empty(site)
        assert await worker.store.locks.acquire("drain/0", "another worker", lease_s=LIMIT_S)
        for call in calls:
            await asyncio.wait_for(worker.take(*_events(call)), LIMIT_S)
        await site.rebuild(worker)
        await eventually(lambda: _has_published(worker, 3))
        assert [call for call, _ in _outcomes(worker)] == sorted(calls[1:])
        assert worker.store.positions.state(0) is PartitionState.DRAINING
        await worker.store.locks.release("drain/0", "another worker")
        await eventually(lambda: _has_published(worker, 4))
        await _ready(worker)


async def test_a_worker_that_wrote_nothing_sees_that_redis_went_back(site: Site, tmp_path: Path) -> None:
    """Only the other worker wrote, and it is gone: the stream alone says that a fact is missing."""
    events = _events(513)
    snapshot = tmp_path / "redis" / "dump.rdb"
    async with site.worker("two") as two:
        await _ready(two)
        await two.take(*_events(600)[:1])
        async with site.worker("one") as one:
            await _ready(one)
            await one.take(events[0])
            async with Redis(port=site.redis.port) as redis:
                await redis.save()
            old = snapshot.read_bytes()
            await one.take(events[1])
        site.events += events[:2]
        await _restart(site, snapshot, old)
        await asyncio.wait_for(two.take(*events[2:]), LIMIT_S)
        assert two.calls == []
        await site.rebuild(two)
        await eventually(lambda: _has_published(two, 1))
        assert _outcomes(one, two) == [(513, "answered")]


async def test_a_restart_of_all_workers_does_not_forget_what_redis_had(site: Site) -> None:
    events = _events(513)
    async with site.worker("one") as worker:
        await _ready(worker)
        await worker.take(*events[:2])
        site.events += events[:2]
    await _empty(site)
    async with site.worker("two") as worker:
        await asyncio.wait_for(worker.take(*events[2:]), LIMIT_S)
        assert worker.calls == []
        await site.rebuild(worker)
        await eventually(lambda: _has_published(worker, 1))
        assert _outcomes(worker) == [(513, "answered")]


async def test_a_stream_that_is_replaced_while_a_worker_starts_is_read_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    find_end, ends = state_journal._end, [10**9]

    async def end(consumer: Consumer) -> int | None:
        found = await find_end(consumer)
        return ends.pop() if ends else found

    monkeypatch.setattr(state_journal, "_end", end)
    monkeypatch.setattr(state_journal, "_SILENCE_S", 2 * PACE)
    monkeypatch.setattr(state_journal, "_SYNC_S", 3 * PACE)
    async with site.worker("late") as worker:
        await _ready(worker)
    assert not ends


async def test_evicted_keys_are_lost_state(site: Site) -> None:
    async with site.worker("one") as worker, Redis(port=site.redis.port) as redis:
        await _ready(worker)
        worker.watch._looked_at = math.inf  # the merge must see it
        await worker.take(*_events(513)[:2])
        await redis.set("other", bytes(100_000), ex=1000)
        await redis.config_set("maxmemory-policy", "volatile-lru")
        await redis.config_set("maxmemory", 1)
        await redis.get("other")
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.config_set("maxmemory", 0)
        assert (await redis.info("stats"))["evicted_keys"]
        await asyncio.wait_for(worker.take(*_events(514)), LIMIT_S)
        assert worker.calls == []
        assert len(await worker.store.rebuilding()) == PARTITIONS


async def test_what_was_written_is_published_ahead_of_the_outbox(site: Site) -> None:
    async with site.worker("one") as worker:
        await _ready(worker)
        await worker.take(*_events(513))
        assert worker.publisher.published[0].routing_key == "state.journal"
        assert worker.calls
        assert not worker.store.positions.is_owing()


async def test_events_wait_for_a_later_use_whose_partition_is_rebuilt(site: Site) -> None:
    """The RequestID is used again a day later. The partition of the second use alone is lost."""
    first = _events(513, days_ago=2)
    second = [replace(event, query=event.query.replace("CallID=5", "CallID=9")) for event in _events(513)]
    number = partition(CallKey(SOURCE, CallRef("513.2")))
    async with site.worker("one") as worker, Redis(port=site.redis.port) as redis:
        await _ready(worker)
        await worker.take(*first)
        await worker.take(second[0])
        await redis.delete(PLAIN_KEYS.position(number))
        await asyncio.wait_for(worker.take(*second[1:]), LIMIT_S)
        assert [record["request_id"] for record in map(_record, worker.calls)] == [513]
        assert await redis.llen(PLAIN_KEYS.waiting(number)) == len(second[1:])


def _record(message: Message) -> dict[str, object]:
    record: dict[str, object] = orjson.loads(message.body)["data"]
    return record


async def _has_published(worker: Worker, calls: int) -> bool:
    return len(worker.calls) >= calls


async def _restart(site: Site, snapshot: Path, content: bytes) -> None:
    await site.redis.kill()
    snapshot.write_bytes(content)
    await site.redis.start()
