"""A worker's fold on a Redis that loses state, with journals in memory: everything but the wire."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from shared.amqp.publisher import Message
from shared.amqp.topology import CALLS, CALLS_JOURNAL
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.config.sources import load_sources
from shared.domain.closing import Policy
from shared.domain.raw_event import RawEvent, TimerEvent, encode, join
from shared.domain.times import rfc3339
from shared.rebuild import call_search, published_calls
from shared.state.redis_clock import RedisClock
from shared.state.store import Store
from worker.folding.fold import Fold
from worker.folding.waiting_events import WaitingEvents
from worker.rebuilding.rebuilder import Rebuilder

MAX_CALL_S = 3600
POLICY = Policy(settle_s=10, leg_grace_s=120, max_call_s=MAX_CALL_S)


Snapshot = dict[Any, tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A message of a journal, as a consumer gets it."""

    offset: int
    at: datetime
    body: bytes
    routing_key: str = ""
    headers: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Journals:
    """Both journals. `on_read` is awaited before each message that is read."""

    callbacks: list[Recorded] = field(default_factory=list)
    calls: list[Recorded] = field(default_factory=list)
    on_read: Callable[[], Awaitable[None]] | None = None
    reads: int = 0

    def add_callbacks(self, at: str, body: bytes) -> None:
        self.callbacks.append(Recorded(len(self.callbacks), datetime.fromisoformat(at), body))

    def truncate(self, before: datetime) -> None:
        self.callbacks = [each for each in self.callbacks if each.at >= before]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (call_search, published_calls):
            monkeypatch.setattr(module, "journal_until_now", self.read)

    @asynccontextmanager
    async def read(
        self, _: Settings, since: object, *, stream: str, before: int | None = None
    ) -> AsyncIterator[AsyncIterator[Recorded]]:
        rows = list(self.calls if stream == CALLS_JOURNAL else self.callbacks)
        if since == "last":
            rows = rows[-1:]
        elif isinstance(since, datetime):
            rows = [row for row in rows if row.at >= since]
        elif isinstance(since, int):
            rows = [row for row in rows if row.offset >= since]

        async def deliveries() -> AsyncIterator[Recorded]:
            for row in rows:
                if before is None or row.offset < before:
                    self.reads += 1
                    if self.on_read:
                        await self.on_read()
                    yield row

        yield deliveries()


class World:
    """One worker with its Redis."""

    def __init__(self, redis: Redis, url: str, journals: Journals, settings: Settings, *, is_guarded: bool) -> None:
        self.redis, self.journals = redis, journals
        self.store = Store(url, is_guarded=is_guarded, first_wake_up_s=MAX_CALL_S)
        self.sources = LiveSources(load_sources(None))
        self.settings = settings
        self.dead: list[str] = []
        self.rebuilds: list[tuple[str, Mapping[str, int | float]]] = []
        self.has_proofs = True
        self.now = datetime(2000, 1, 1, tzinfo=UTC)
        self._hours = 0
        self._fold = self._new_fold(self.store)

    def _new_fold(self, store: Store) -> Fold:
        return Fold(self, store, self.sources, POLICY, holder="fold")  # type: ignore[arg-type]

    def reset(self) -> None:
        """Begin with an empty Redis and empty journals, as a new process."""
        self.store.positions.__init__(uuid.uuid4().hex)  # type: ignore[misc]
        self.journals.callbacks.clear()
        self.journals.calls.clear()
        self.dead.clear()
        self.now = datetime(2000, 1, 1, tzinfo=UTC)
        self.store.clock = RedisClock()
        self._hours = 0

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if message.exchange == CALLS:
                at, headers = self.now, message.headers if self.has_proofs else {}
                self.journals.calls.append(Recorded(len(self.journals.calls), at, message.body, message.routing_key, headers))
            elif message.routing_key == "callbacks.dead":
                self.dead.append(str(message.headers["reason"]))

    async def publish_once(self, messages: Iterable[Message], **_: object) -> list[Message]:
        await self.publish_until_confirmed(messages)
        return []

    async def fold(self, events: Sequence[RawEvent]) -> None:
        """Fold events as one message, which is in the journal first."""
        body = join(map(encode, events))
        latest = max(event.received_at for event in events)
        if datetime.fromisoformat(latest) - self.now > timedelta(seconds=MAX_CALL_S):
            await self.fire_timers()
        self.now = max(self.now, datetime.fromisoformat(latest))
        self.journals.add_callbacks(latest, body)
        await self._fold.fold([body])

    async def rebuild(self) -> None:
        """Rebuild what is lost, then fold what has waited."""
        rebuilder = Rebuilder(
            self.store,
            self.settings,
            self.sources,
            now=lambda: self.now,
            on_begin=lambda figures: self.rebuilds.append(("began", figures)),
            on_finish=lambda figures: self.rebuilds.append(("finished", figures)),
        )
        rebuilder._wait_for_round = _no_round  # type: ignore[method-assign, assignment]
        await rebuilder.rebuild_lost()

    async def drain(self) -> None:
        await self.store.partitions.look()
        await WaitingEvents(self.store, self._new_fold).drain()

    async def close_all(self) -> None:
        """Let the time go on until every call is closed."""
        for _ in range(10):
            if not await self.store.open_calls():
                return
            await self.fire_timers()
        raise AssertionError(f"still open: {await self.store.open_calls()}")

    async def fire_timers(self) -> None:
        """Fold a timer of each open call. Silence is measured by the clock of Redis, so that clock goes ahead each time."""
        self._hours += 2
        self.store.clock = _Ahead(self._hours + 1)
        at = rfc3339(datetime.now(UTC) + timedelta(hours=self._hours))
        calls = sorted(await self.store.open_calls())
        if calls:
            await self._new_fold(self.store).fold([join(encode(TimerEvent(key.source, at, key.call)) for key in calls)])

    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(row.body) for row in self.journals.calls]

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the last record of each call, without its revision."""
        last: dict[str, tuple[int, dict[str, Any]]] = {}
        for event in self.events():
            data = event["data"]
            last[event["subject"]] = max(last.get(event["subject"], (0, {})), (data["revision"], data), key=lambda row: row[0])
        return {subject: data | {"revision": None} for subject, (_, data) in sorted(last.items())}

    def assert_one_body_an_id(self) -> None:
        bodies: dict[str, bytes] = {}
        for row in self.journals.calls:
            event = orjson.loads(row.body)
            assert bodies.setdefault(event["id"], row.body) == row.body, event["id"]

    async def facts(self) -> dict[str, dict[bytes, bytes]]:
        return {str(name): await self.redis.hgetall(name) for name in await self.redis.keys("*:facts:*")}  # type: ignore[misc]

    async def summaries(self) -> dict[str, bytes]:
        """Return the summaries of what was published."""
        names = await self.redis.keys("*:publication:*")
        return {str(name): value for name in names if (value := await self.redis.hget(name, "summary"))}  # type: ignore[misc]

    async def dump(self) -> Snapshot:
        """Return everything in Redis, as a snapshot has it."""
        return {name: (max(0, await self.redis.pttl(name)), await self.redis.dump(name)) for name in await self.redis.keys("*")}

    async def load(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot."""
        await self.redis.flushdb()
        for name, (ttl, value) in snapshot.items():
            await self.redis.restore(name, ttl, value)

    async def lose_partition(self, number: int) -> None:
        for name in await self.redis.keys(f"callfold:{{{number}}}:*"):
            await self.redis.delete(name)


class _Ahead(RedisClock):
    def __init__(self, hours: int) -> None:
        super().__init__()
        self._hours = hours

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=self._hours)


async def _no_round(*_: object) -> None:
    """Stand for the wait for other workers: there are none."""


async def rebuilt(world: World) -> None:
    """Rebuild what is lost, then fold what has waited."""
    await world.store.fence()
    await world.rebuild()
    await world.drain()
    assert await world.store.partitions.waiting() == {}
