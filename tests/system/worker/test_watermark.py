"""No backlog, outage or stopped worker of ours closes a call: a timer tells no time that callbacks not folded yet come before."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aio_pika
import pytest
from redis.asyncio import Redis

from console.fleet import Role, free_port
from ingress.spool import Spool, Spooled
from shared.adapter import SAMPLE_LINK, parse_link
from shared.broker import BrokerAddress, Consumer
from shared.clock import utc_now
from shared.events import CallbackEvent, encode, join
from shared.facts import Fact, facts_of, milliseconds, rfc3339
from shared.ids import CallKey, SourceName
from shared.process import background
from shared.store import Look, Store
from shared.topology import CALLBACKS_FOLD, topology
from shared.watermarks import InHand, SpoolNews
from tests.helpers.servers import (
    RETRY_S,
    UNMEASURED,
    Event,
    Servers,
    call_back,
    eventually,
    lines_of,
    metric,
    next_new,
    waiting_events,
)
from worker.hands import Hands

SOURCE = SourceName("default")
PICKUP, FAR_PICKUP, FAR_HANGUP, HANGUP = range(4)
SHORT_GRACE_S = 3
SHORT = {
    "CALLFOLD_SETTLE_SECONDS": "1",
    "CALLFOLD_LEG_GRACE_SECONDS": str(SHORT_GRACE_S),
    "CALLFOLD_MAX_CALL_SECONDS": "60",
    "CALLFOLD_TIMER_LEASE_SECONDS": "1",
    "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "2",
}


def _body(lines: Iterable[str], at: str | None = None) -> bytes:
    return join(encode(CallbackEvent(SOURCE, at or utc_now(), line)) for line in lines)


async def _put(servers: Servers, *bodies: bytes, headers: Mapping[str, str] | None = None) -> None:
    async with servers.queue("callbacks.fold") as queue:
        for body in bodies:
            message = aio_pika.Message(body, message_id=uuid.uuid4().hex, delivery_mode=2, headers=dict(headers or {}))
            await queue.channel.default_exchange.publish(message, queue.name)


async def _open_in_redis(servers: Servers, calls: Iterable[int], at: datetime, look_at: datetime) -> None:
    """Calls of which three callbacks were folded some time ago, and which are due."""
    adapter = parse_link(SAMPLE_LINK)
    facts: dict[CallKey, list[Fact]] = {}
    for call in calls:
        for line in lines_of(call)[:HANGUP]:
            key, told = facts_of(CallbackEvent(SOURCE, rfc3339(at), line), adapter)
            facts.setdefault(key, []).extend(told)
    store = Store(servers.stack.redis_url)
    folded = await store.merge(facts)
    await store.schedule({key: Look(milliseconds(rfc3339(look_at)), state.version) for key, state in folded.items()})
    await store.aclose()


def _reasons(events: Iterable[Event], calls: range) -> Counter[tuple[int, str]]:
    """Count the published revisions of some calls by their number and close reason; one that is told twice counts once."""
    records = [event.body["data"] for event in events]
    told = {(record["request_id"], record["revision"], record["close_reason"]) for record in records}
    return Counter((revision, reason) for call, revision, reason in told if call in calls)


async def _until_all(events: aio_pika.abc.AbstractQueue, calls: range, *, timeout_s: float) -> Counter[tuple[int, str]]:
    found: list[Event] = []

    async def there() -> bool:
        found.extend(await waiting_events(events))
        return sum(_reasons(found, calls).values()) >= len(calls)

    await eventually(there, timeout_s=timeout_s)
    found.extend(await waiting_events(events))
    return _reasons(found, calls)


@pytest.mark.parametrize("wakes", [False, True])
async def test_what_a_stopped_worker_has_been_given_closes_no_call_early(servers: Servers, *, wakes: bool) -> None:
    """SIGSTOP: its connection stays open until the broker misses its heartbeats; some of the hangups lie in its socket.

    A worker that wakes before has not read them yet, and takes a moment: the messages are large.
    """
    filler = f"CallType=Incoming&Event=start&CallID=1&RequestID=&x={'x' * (700_000 if wakes else 1)}"
    calls = range(9_010_000, 9_010_060)
    async with servers.subscribed("call.#") as events, servers.fleet(**SHORT) as fleet:
        stopped = fleet.add("stopped", "worker", {})
        others = [fleet.add(f"other-{number}", "worker", {}) for number in range(3)]
        await fleet.start_all()
        for worker in (stopped, *others):
            await eventually(partial(_has_timers, worker))
        await _put(servers, *(_body(lines_of(call)[:HANGUP]) for call in calls))
        await eventually(lambda: _are_open(servers, len(calls)))
        _signal([stopped], signal.SIGSTOP)
        try:
            await _put(servers, *(_body([filler, lines_of(call)[HANGUP]]) for call in calls))
            if wakes:
                await eventually(lambda: _lags(others[0], SHORT_GRACE_S + 2))
                _signal([stopped], signal.SIGCONT)
            assert await _until_all(events, calls, timeout_s=60) == {(1, "hangup"): len(calls)}
        finally:
            _signal([stopped], signal.SIGCONT)


async def _has_timers(worker: Role) -> bool:
    """Whether it is past its hold-off and knows what is folded."""
    return await metric(worker, "callfold_fold_lag_seconds") > 0 and await metric(worker, "callfold_timers_held") == 0


async def _are_open(servers: Servers, count: int) -> bool:
    store = Store(servers.stack.redis_url)
    try:
        return len(await store.open_calls()) == count
    finally:
        await store.aclose()


@pytest.mark.parametrize("age_s", [0, 3600])
async def test_a_spool_that_drains_for_longer_than_the_hold_off_closes_no_call_early(servers: Servers, age_s: float) -> None:
    """The broker was away, for a moment or an hour; of open calls the hangups are spooled, behind more than is drained in time."""
    calls, hold_off_s = range(9_020_000, 9_020_020), 8
    settings = SHORT | {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": str(hold_off_s)}
    async with servers.fleet(**settings) as fleet:
        ingress = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(free_port())})
        worker = fleet.add("worker", "worker", {})
        await fleet.start_all()
        await servers.stack.rabbitmq.stop()
        then = datetime.now(UTC) - timedelta(seconds=age_s)
        try:
            await _open_in_redis(servers, calls, then, then + timedelta(seconds=SHORT_GRACE_S))
            async with _spool(servers) as spool:
                await _fill(spool, calls, rfc3339(then))
        finally:
            await servers.stack.rabbitmq.start()
        async with servers.subscribed("call.#") as events, _spool(servers) as spool:
            await eventually(lambda: _is_draining(spool), timeout_s=30)
            assert ingress.process is not None
            ingress.process.send_signal(signal.SIGSTOP)
            try:
                assert await spool.count() > 0
                await eventually(lambda: _lags(worker, age_s + SHORT_GRACE_S))
            finally:
                ingress.process.send_signal(signal.SIGCONT)
            assert await _until_all(events, calls, timeout_s=60) == {(1, "hangup"): len(calls)}


ROWS = 60


def _spool(servers: Servers) -> Spool:
    return Spool(Path(servers.environment()["CALLFOLD_SPOOL_DIR"]), max_bytes=1 << 30)


async def _fill(spool: Spool, calls: range, at: str) -> None:
    """Messages so large that no two go out together, and last the hangups; all received at one time."""
    rows = [
        Spooled("callbacks", "", {}, _body([f"CallType=Incoming&Event=pickup&CallID={number}&RequestID=&x={'x' * 700_000}"], at))
        for number in range(ROWS)
    ]
    rows.append(Spooled("callbacks", "", {}, _body((lines_of(call)[HANGUP] for call in calls), at)))
    await spool.add(rows)


async def _lags(worker: Role, seconds: float) -> bool:
    """Whether a worker has looked for timers, and held that callbacks of so long ago may still wait."""
    lag_s = await metric(worker, "callfold_fold_lag_seconds")
    return lag_s > seconds and await metric(worker, "callfold_timers_held") == 0


async def _is_draining(spool: Spool) -> bool:
    return await spool.count() <= ROWS - 5


async def test_timers_wait_for_what_lies_in_a_spool_and_go_on_once_it_is_empty(servers: Servers) -> None:
    calls = range(9_030_000, 9_030_005)
    async with servers.subscribed("call.#") as events, servers.fleet(**SHORT) as fleet:
        worker = fleet.add("worker", "worker", {})
        await fleet.start(worker)
        news = {"spool": "a", "spool_oldest": utc_now(), "spool_seen": utc_now()}
        await _put(servers, *(_body(lines_of(call)[:HANGUP]) for call in calls), headers=news)
        await eventually(lambda: _lags(worker, SHORT_GRACE_S))
        assert _reasons(await waiting_events(events), calls) == {}
        empty = {"spool": "a", "spool_oldest": "", "spool_seen": utc_now()}
        await _put(servers, _body([lines_of(calls[0])[0]]), headers=empty)
        await _put(servers, _body([lines_of(calls[0])[0]]), headers=news)  # older news, folded later: it does not count
        assert await _until_all(events, calls, timeout_s=20) == {(1, "timeout"): len(calls)}


async def test_redis_away_while_calls_are_due_closes_none_early(servers: Servers) -> None:
    calls = range(9_040_000, 9_040_040)
    quick = SHORT | {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0"}
    async with servers.subscribed("call.#") as events, servers.fleet(**quick) as fleet:
        for number in range(2):
            fleet.add(f"worker-{number}", "worker", {})
        await fleet.start_all()
        await _put(servers, *(_body(lines_of(call)[:HANGUP]) for call in calls))
        await eventually(lambda: _are_open(servers, len(calls)))
        await servers.stack.redis.kill()
        try:
            await _put(servers, *(_body(lines_of(call)[HANGUP:]) for call in calls))
            await asyncio.sleep(5)
        finally:
            await servers.stack.redis.start()
        assert await _until_all(events, calls, timeout_s=30) == {(1, "hangup"): len(calls)}


async def test_an_hour_without_redis_closes_no_call_early(servers: Servers) -> None:
    """The calls are due when Redis comes back, and have been for an hour; their hangups wait, in the hands of two workers.

    The workers are stopped while the calls are put there, as they were left an hour ago: else these would be closed at once.
    """
    calls, other = range(9_050_000, 9_050_040), iter(range(9_060_000, 9_160_000))
    then = datetime.now(UTC) - timedelta(hours=1)
    at = rfc3339(then + timedelta(seconds=1))
    bodies = []
    for call in calls:
        # One worker gets the large messages, and is not done for a while when the other has nothing left.
        filler = [line for _ in range(120 * (call % 2)) for line in lines_of(next(other))]
        bodies.append(_body([*filler, lines_of(call)[HANGUP]], at))
    quick = SHORT | {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0"}
    async with servers.subscribed("call.#") as events, servers.fleet(**quick) as fleet:
        workers = [fleet.add(f"worker-{number}", "worker", {}) for number in range(2)]
        await fleet.start_all()
        for worker in workers:
            await eventually(partial(_has_timers, worker))
        _signal(workers, signal.SIGSTOP)
        try:
            await _open_in_redis(servers, calls, then, then + timedelta(seconds=SHORT_GRACE_S))
            await servers.stack.redis.kill()
            await _put(servers, *bodies)
        finally:
            _signal(workers, signal.SIGCONT)
        try:
            for worker in workers:
                await eventually(partial(_misses_redis, worker))
        finally:
            await servers.stack.redis.start()
        assert await _until_all(events, calls, timeout_s=120) == {(1, "hangup"): len(calls)}


def _signal(workers: Iterable[Role], number: signal.Signals) -> None:
    for worker in workers:
        os.kill(worker.pid, number)


async def _misses_redis(worker: Role) -> bool:
    """Whether its timers wait because Redis is away."""
    return "timers_wait" in worker.log_path.read_text("utf-8")


@pytest.mark.parametrize("crash", ["", "timer.due", "timer.leased"])
async def test_a_call_is_closed_late_by_no_more_than_the_lease_and_two_seconds(servers: Servers, crash: str) -> None:
    """With the default lease; also where the worker that would have closed it dies with the lease, or just before."""
    lease_s, settle_s, port = 5, 1, free_port()
    settings = {"CALLFOLD_SETTLE_SECONDS": str(settle_s), "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0"}
    async with servers.subscribed("call.#") as events, servers.fleet(**settings) as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        if not crash:
            fleet.add("worker", "worker", {})
        await fleet.start_all()
        victim = None
        if crash:
            victim = fleet.add("victim", "worker", {"CALLFOLD_CRASH_AT": crash, "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "2"})
            await fleet.start(victim)
            heir = fleet.add("heir", "worker", {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": "4"})
            await fleet.start(heir)
        await call_back(port, [lines_of(513)[PICKUP], lines_of(513)[HANGUP]])
        due = time.time() + settle_s
        if victim is not None:
            assert victim.process is not None
            await asyncio.wait_for(victim.process.wait(), 20)
            fleet.roles.remove(victim)
        (event,) = await next_new(events, 1)
        late_s = time.time() - due
    assert event.routing_key.endswith("agent_hung_up")
    assert late_s < lease_s + 2


async def _watermark(store: Store, *, consumers: int, waiting: int = 0) -> int | None:
    return await store.watermarks.watermark(consumers=consumers, waiting=waiting)


async def test_the_watermark_is_the_oldest_of_all_hands_and_spools_and_unknown_while_a_consumer_has_not_told(
    servers: Servers,
) -> None:
    store = Store(servers.stack.redis_url)
    try:
        assert await _watermark(store, consumers=1) is None, "nobody has told"
        await store.watermarks.tell_hand("a", InHand())
        now_ms = round(time.time() * 1000)
        assert abs((await _watermark(store, consumers=1) or 0) - now_ms) < 1000
        assert await _watermark(store, consumers=2) is None, "a consumer that has not told yet"
        assert await _watermark(store, consumers=1, waiting=3) is None, "messages on their way to nobody yet"
        await store.watermarks.tell_hand("b", InHand(oldest_ms=now_ms - 5000, age_s=1))
        assert await _watermark(store, consumers=2, waiting=3) == now_ms - 5000
        await store.watermarks.note_spools([SpoolNews("s", now_ms - 9000, 10)])
        assert await _watermark(store, consumers=2) == now_ms - 9000
        await store.watermarks.note_spools([SpoolNews("s", now_ms - 99_000, 9)])
        assert await _watermark(store, consumers=2) == now_ms - 9000, "older news"
        await store.watermarks.note_spools([SpoolNews("s", None, 11)])
        assert await _watermark(store, consumers=2) == now_ms - 5000
        await store.watermarks.tell_hand("b", InHand(oldest_ms=0, age_s=0))
        assert await _watermark(store, consumers=2) is None, "a worker that does not know yet what it has"
    finally:
        await store.aclose()


async def test_a_worker_that_was_stopped_does_not_know_what_it_has_until_it_has_read_what_came_meanwhile(
    servers: Servers,
) -> None:
    address = BrokerAddress((servers.stack.amqp_url,), topology(RETRY_S), "tests")
    raw = Consumer(address, CALLBACKS_FOLD, prefetch=1)
    store = Store(servers.stack.redis_url)

    async def is_known() -> bool:
        return await _watermark(store, consumers=1) is not None

    async def is_unknown() -> bool:
        return not await is_known()

    async with aclosing(store), background(Hands(store, raw, worker="a").run()):
        raw.hand.open()
        await eventually(is_known)
        time.sleep(1)  # noqa: ASYNC251 - nothing runs meanwhile, as when the process is stopped
        await eventually(is_unknown, timeout_s=5)
        await eventually(is_known)


async def test_what_a_dead_worker_had_counts_until_every_other_has_taken_something_new(servers: Servers) -> None:
    store = Store(servers.stack.redis_url)
    now_ms = round(time.time() * 1000)
    try:
        await store.watermarks.tell_hand("dead", InHand(oldest_ms=now_ms - 60_000, age_s=1))
        await asyncio.sleep(1.1)
        await store.watermarks.tell_hand("other", InHand(oldest_ms=now_ms - 5000, age_s=0.5))
        assert await _watermark(store, consumers=2) == now_ms - 60_000, "the broker still has its connection"
        assert await _watermark(store, consumers=1) == now_ms - 60_000, "it went, and what it had may still wait"
        await store.watermarks.tell_hand("other", InHand(oldest_ms=now_ms - 5000, age_s=0.5))
        assert await _watermark(store, consumers=1) == now_ms - 60_000, "the other has only what it had before"
        await store.watermarks.tell_hand("other", InHand(oldest_ms=now_ms - 50_000, age_s=0))
        assert await _watermark(store, consumers=1) == now_ms - 50_000
        assert set(await store.watermarks.hands()) == {"other"}
    finally:
        await store.aclose()


async def test_a_silent_worker_and_a_silent_spool_are_forgotten_in_time(servers: Servers) -> None:
    """Every call must end: what nobody will ever tell of again does not hold it for ever."""
    store = Store(servers.stack.redis_url)
    now_ms = round(time.time() * 1000)
    async with Redis.from_url(servers.stack.redis_url) as redis:
        await redis.hset("callfold:{watermark}:hands", "silent", f"{now_ms - 60_000} {now_ms - 50_000} {now_ms - 31_000}  1")
        await redis.hset("callfold:{watermark}:spools", "silent", f"{now_ms - 60_000} 1 {now_ms - 3_601_000}")
    try:
        await store.watermarks.tell_hand("a", InHand())
        assert await _watermark(store, consumers=2) == now_ms - 60_000, "it counts until it is known to be gone"
        await store.watermarks.tell_hand("a", InHand())
        assert (await _watermark(store, consumers=1) or 0) >= now_ms
    finally:
        await store.aclose()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("messages", "hold_off_s"), [(20, "0"), pytest.param(200, "5", marks=pytest.mark.volume)])
async def test_a_backlog_in_messages_of_500_callbacks_closes_no_open_call_early(
    servers: Servers, messages: int, hold_off_s: str
) -> None:
    """Two workers, and calls that were due before the backlog: their hangups lie in it. It outlasts the hold-off."""
    then = datetime.now(UTC) - timedelta(hours=1)
    calls, other = range(9_000_000, 9_000_000 + messages), iter(range(9_500_000, 9_600_000))
    await _open_in_redis(servers, calls, then, then + timedelta(seconds=120))
    later = rfc3339(then + timedelta(seconds=60))
    bodies = []
    for call in calls:
        told: list[str] = []
        while len(told) < 499:
            told += lines_of(next(other))[:FAR_HANGUP]
        bodies.append(_body([*told[:499], lines_of(call)[HANGUP]], later))
    await _put(servers, *bodies)
    quick = {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": hold_off_s}
    async with servers.subscribed("call.#") as events, servers.fleet(**quick, **UNMEASURED) as fleet:
        for number in range(2):
            fleet.add(f"worker-{number}", "worker", {})
        await fleet.start_all()
        assert await _until_all(events, calls, timeout_s=200) == {(1, "hangup"): len(calls)}
