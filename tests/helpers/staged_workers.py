"""Workers in this process that do their next step when they are told to: a test chooses the order in which all is done.

A worker is real but for its broker, which is a list: the lock is in Redis, the archive and the downloads on the disk, the PBX a
server. It waits before whatever another worker could see, and does one job at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

from redis.asyncio import Redis

from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLS, RECORDINGS_DEAD
from shared.archive.checksum import Checksums
from shared.archive.local_disk import Confirm
from shared.archive.sidecar import Sidecar
from shared.archive.storage import Archive
from shared.config.live_sources import LiveSources
from shared.config.settings import load_settings
from shared.domain.recording import RecordingJob
from shared.state.locks import Locks
from shared.state.store import Store
from tests.helpers.pace import LIMIT_S
from worker.recordings.consumer import RecordingConsumer


@dataclass(slots=True)
class Broker:
    """Jobs that wait for a worker, or were given to one; and what was told."""

    ready: deque[tuple[bytes, Mapping[str, object]]] = field(default_factory=deque)
    given: dict[int, tuple[Worker, bytes, Mapping[str, object]]] = field(default_factory=dict)
    told: list[Message] = field(default_factory=list)
    dead: list[Message] = field(default_factory=list)
    tags: int = 0

    def give(self, worker: Worker) -> Delivery:
        body, headers = self.ready.popleft()
        self.tags += 1
        self.given[self.tags] = (worker, body, headers)
        return Delivery(body, headers, "recordings", self.tags, cast("Any", _Acks(self, worker)))

    def take_back(self, worker: Worker) -> None:
        """Give out again what a worker has not acked, as where its connection was lost."""
        for tag, (holder, body, headers) in list(self.given.items()):
            if holder is worker:
                del self.given[tag]
                self.ready.append((body, {**headers, "x-delivery-count": Counter(headers)["x-delivery-count"] + 1}))

    def take(self, message: Message) -> None:
        if message.exchange == CALLS:
            self.told.append(message)
        elif message.routing_key == RECORDINGS_DEAD:
            self.dead.append(message)
        else:  # a wait in a retry queue is over at once
            self.ready.append((message.body, message.headers))


@dataclass(slots=True)
class _Acks:
    broker: Broker
    worker: Worker
    write_queue: asyncio.Queue[object] = field(default_factory=asyncio.Queue)

    async def basic_ack(self, tag: int, *, multiple: bool, wait: bool) -> None:
        del wait
        assert not multiple, "each job is acked alone"
        await self.worker.pause()
        self.broker.given.pop(tag, None)


class Worker:
    """Stands before its next step; `is_idle` where that is to take a job."""

    def __init__(self) -> None:
        self.is_idle = False
        self.is_free = False
        self.holders: set[str] = set()  # the names under which it asked for locks
        self._arrived = asyncio.Event()
        self._go = asyncio.Event()

    async def pause(self) -> None:
        if self.is_free:
            return
        self._go.clear()
        self._arrived.set()
        await self._go.wait()

    async def step(self) -> None:
        """Let it do its next step, up to the one after."""
        self._arrived.clear()
        self._go.set()
        await self.arrive()

    async def arrive(self) -> None:
        await asyncio.wait_for(self._arrived.wait(), LIMIT_S)

    def free(self) -> None:
        """Have it wait for nothing more: it is to be cancelled where it stands."""
        self.is_free = True


class _Jobs:
    def __init__(self, worker: Worker, broker: Broker) -> None:
        self._worker, self._broker = worker, broker

    async def get(self) -> Delivery:
        self._worker.is_idle = True
        await self._worker.pause()
        self._worker.is_idle = False
        return self._broker.give(self._worker)


class _Publisher:
    def __init__(self, worker: Worker, broker: Broker) -> None:
        self._worker, self._broker = worker, broker

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        await self._worker.pause()
        for message in messages:
            self._broker.take(message)

    async def publish_once(self, messages: Sequence[Message], **_: object) -> list[Message]:
        await self.publish_until_confirmed(messages)
        return []


class _Store(Store):
    def __init__(self, url: str, worker: Worker) -> None:
        super().__init__(url)
        self.locks = _Locks(self._redis, worker)


class _Locks(Locks):
    def __init__(self, redis: Redis, worker: Worker) -> None:
        super().__init__(redis)
        self._worker = worker

    async def acquire(self, name: str, holder: str, *, lease_s: float) -> bool:
        await self._worker.pause()
        self._worker.holders.add(holder)
        return await super().acquire(name, holder, lease_s=lease_s)

    async def renew(self, name: str, holder: str, *, lease_s: float) -> bool:
        await self._worker.pause()
        return await super().renew(name, holder, lease_s=lease_s)

    async def release(self, name: str, holder: str) -> None:
        await self._worker.pause()
        await super().release(name, holder)


class _Archive(Archive):
    def __init__(self, url: str, worker: Worker) -> None:
        super().__init__(url)
        self._worker = worker

    async def sidecar_of(self, job: RecordingJob) -> tuple[Sidecar | None, str]:
        await self._worker.pause()
        return await super().sidecar_of(job)

    async def sidecar(self, path: str) -> Sidecar | None:
        await self._worker.pause()
        return await super().sidecar(path)

    async def checksums(self, path: str) -> Checksums:
        await self._worker.pause()
        return await super().checksums(path)

    async def size(self, path: str) -> int | None:
        await self._worker.pause()
        return await super().size(path)

    async def put(self, path: str, content: Any, *, confirm: Confirm | None = None, is_new: bool = False) -> str:  # noqa: ANN401
        async def before_the_rename() -> None:
            if confirm is not None:
                await confirm()
            await self._worker.pause()

        return await super().put(path, content, confirm=before_the_rename, is_new=is_new)


@asynccontextmanager
async def staged(broker: Broker, count: int, redis_url: str, archive: Path) -> AsyncIterator[list[Worker]]:
    """Start workers with the settings of this process; each stands before its first job."""
    settings = load_settings()
    sources = LiveSources.load(settings.sources_file)
    workers, stores, tasks = [Worker() for _ in range(count)], [], []
    for worker in workers:
        stores.append(_Store(redis_url, worker))
        publisher, jobs = cast("Publisher", _Publisher(worker, broker)), cast("Consumer", _Jobs(worker, broker))
        recordings = RecordingConsumer(publisher, stores[-1], _Archive(archive.as_uri(), worker), sources, settings)
        tasks.append(asyncio.create_task(_run(recordings, jobs)))
        await worker.arrive()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.free()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for store in stores:
            await store.aclose()


async def _run(recordings: RecordingConsumer, jobs: Consumer) -> NoReturn:
    await recordings.run(jobs)
