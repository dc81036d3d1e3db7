"""Redis is emptied under load, and workers rebuild it by themselves; one of them dies at any point of that."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import aio_pika
import pytest
from redis.asyncio import Redis

from shared.clock import utc_now
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.state.store import Store
from tests.helpers.pace import LIMIT_S, paced
from tests.helpers.servers import Event, Servers, eventually, exit_code, lines_of, waiting_events
from tests.helpers.shared_machine import NEVER_CONSUMED
from tests.helpers.volume import sizes

pytestmark = pytest.mark.usefixtures("fresh_stack")

SOURCE = SourceName("default")
POINTS = ("rebuild.fenced", "rebuild.published_read", "rebuild.replayed", "rebuild.decided", "rebuild.finished")
QUICK = {
    "CALLFOLD_SETTLE_SECONDS": "1",
    "CALLFOLD_LEG_GRACE_SECONDS": "2",
    "CALLFOLD_TIMER_LEASE_SECONDS": "1",
    "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0",
    NEVER_CONSUMED: paced(10),
    "CALLFOLD_RECORDING_CONCURRENCY": "1",
}


class _Load:
    """Sends calls and collects what is published."""

    def __init__(self, servers: Servers, channel: aio_pika.abc.AbstractChannel, events: aio_pika.abc.AbstractQueue) -> None:
        self._servers, self._channel, self._events = servers, channel, events
        self.bodies: dict[str, object] = {}
        self.outcomes: dict[str, str] = {}
        self.sent: dict[str, str] = {}

    async def send(self, request_id: int, lines: Sequence[str], outcome: str = "") -> None:
        exchange = await self._channel.get_exchange("callbacks", ensure=False)
        body = join(
            encode(CallbackEvent(SOURCE, utc_now(), line.replace("IsCallRecorded=1", "IsCallRecorded="))) for line in lines
        )
        await exchange.publish(aio_pika.Message(body, message_id=uuid.uuid4().hex, delivery_mode=2), "")
        if outcome:
            self.sent[str(request_id)] = outcome

    async def whole(self, first: int, count: int) -> None:
        for request_id in range(first, first + count):
            await self.send(request_id, lines_of(request_id), "answered")

    async def around_a_loss(self, first: int) -> None:
        """Send calls, have Redis emptied, and send more. The call `first + 40` is left half sent and folded."""
        await self.whole(first, 20)
        await self.send(first + 30, lines_of(first + 30)[:3], "incomplete")
        await eventually(self.are_published)
        await self.send(first + 40, lines_of(first + 40)[:2])
        await _is_folded(self._servers, first + 40)
        await _lose(self._servers)
        await self.send(first + 30, lines_of(first + 30)[3:], "answered")
        await self.whole(first + 50, 20)

    async def are_published(self) -> bool:
        for event in await waiting_events(self._events):
            self._take(event)
        return self.sent.items() <= self.outcomes.items()

    def _take(self, event: Event) -> None:
        assert event.message_id is not None
        assert self.bodies.setdefault(event.message_id, event.body) == event.body, event.message_id
        call = event.message_id.split("/")[1]
        self.outcomes[call] = event.body["data"]["outcome"] if event.body["data"]["complete"] else "incomplete"


@pytest.mark.parametrize("points", sizes(POINTS[2:3], POINTS))
async def test_an_emptied_redis_is_rebuilt_whoever_dies(servers: Servers, points: Sequence[str]) -> None:
    connection = await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S)
    async with connection, servers.subscribed("call.#") as events, servers.fleet(**QUICK) as fleet:
        load = _Load(servers, await connection.channel(), events)
        for number, point in enumerate(points):
            first = 880_000_000 + 1000 * number
            doomed = fleet.add(f"doomed-{number}", "worker", {"CALLFOLD_CRASH_AT": point})
            await doomed.start()
            await load.around_a_loss(first)
            assert await exit_code(doomed) == -9
            heir = fleet.add(f"heir-{number}", "worker", {})
            await heir.start()
            await load.send(first + 40, lines_of(first + 40)[2:], "answered")
            await load.whole(first + 80, 5)
            await eventually(load.are_published)
            await eventually(lambda: _is_ready(servers))  # the last event is seen before the rebuild is finished
            await heir.stop()
        assert load.outcomes == load.sent, "nothing else was published"
        assert await _not_ready(servers) == {}


@pytest.mark.volume
@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_that_freezes_with_the_lock_of_a_rebuild_holds_up_nobody(servers: Servers, point: str) -> None:
    first = 890_000_000 + 1000 * POINTS.index(point)  # the journals keep the calls of the other points
    connection = await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S)
    async with connection, servers.subscribed("call.#") as events, servers.fleet(**QUICK) as fleet:
        load = _Load(servers, await connection.channel(), events)
        frozen = fleet.add("frozen", "tests.helpers.freezing_process", {"CALLFOLD_CRASH_AT": point})
        await frozen.start()
        await load.around_a_loss(first)

        async def is_frozen() -> bool:
            assert frozen.is_running, frozen.returncode
            return Path(f"/proc/{frozen.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

        await eventually(is_frozen)
        heir = fleet.add("heir", "worker", {})
        await heir.start()
        await load.send(first + 40, lines_of(first + 40)[2:], "answered")
        await load.whole(first + 80, 5)
        await eventually(load.are_published)
        frozen.resume()
        await load.whole(first + 100, 20)
        await eventually(load.are_published)
        await heir.stop()
        await load.whole(first + 200, 5)
        await eventually(load.are_published)
        assert load.outcomes == load.sent, "nothing else was published"
        assert await _not_ready(servers) == {}


async def _lose(servers: Servers) -> None:
    async with Redis.from_url(servers.stack.redis_url) as redis:
        await redis.flushall()


async def _is_folded(servers: Servers, request_id: int) -> None:
    store = Store(servers.stack.redis_url)
    try:
        await eventually(lambda: _has(store, str(request_id)))
    finally:
        await store.aclose()


async def _has(store: Store, call: str) -> bool:
    return any(key.call == call for key in await store.open_calls())


async def _is_ready(servers: Servers) -> bool:
    return not await _not_ready(servers)


async def _not_ready(servers: Servers) -> dict[int, object]:
    store = Store(servers.stack.redis_url)
    try:
        return dict(await store.partitions.waiting())
    finally:
        await store.aclose()
