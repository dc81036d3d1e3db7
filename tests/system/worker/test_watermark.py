"""No backlog, outage or stopped worker of ours closes a call: a timer tells no time that callbacks not folded yet come before."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aio_pika
import pytest
from redis.asyncio import Redis

from console.local.child_process import ProcessFailedError
from console.local.ports import free_port
from console.local.processes import ServiceProcess
from ingress.outgoing_message import OutgoingMessage
from ingress.spool import Spool
from shared.amqp.topology import MARKER, MARKER_BODY
from shared.clock import utc_now
from shared.domain.adapter_link import SAMPLE_LINK, parse_link
from shared.domain.barrier import complete_round
from shared.domain.facts import Fact, facts_of
from shared.domain.ids import CallKey, SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.times import milliseconds, rfc3339
from shared.state.store import Store
from shared.state.stored_call import WakeUp
from tests.helpers.broker_faults import memory_alarm
from tests.helpers.pace import LIMIT_S, PACE, paced
from tests.helpers.servers import (
    UNMEASURED,
    Event,
    Servers,
    call_back,
    eventually,
    lines_of,
    metric,
    next_new,
    waiting_events,
    worker_at_work,
)
from tests.helpers.volume import sizes

SOURCE = SourceName("default")
PICKUP, FAR_PICKUP, FAR_HANGUP, HANGUP = range(4)
SHORT_GRACE_S = 3 * PACE
SHORT = {
    "CALLFOLD_SETTLE_SECONDS": paced(1),
    "CALLFOLD_LEG_GRACE_SECONDS": f"{SHORT_GRACE_S:g}",
    "CALLFOLD_MAX_CALL_SECONDS": paced(60),
    "CALLFOLD_TIMER_LEASE_SECONDS": paced(1),
    "CALLFOLD_TIMER_HOLD_OFF_SECONDS": paced(2),
}


def _body(lines: Iterable[str], at: str | None = None) -> bytes:
    return join(encode(CallbackEvent(SOURCE, at or utc_now(), line)) for line in lines)


async def _put(servers: Servers, *bodies: bytes, headers: Mapping[str, str] | None = None) -> None:
    async with servers.queue("callbacks.fold") as queue:
        for body in bodies:
            message = aio_pika.Message(body, message_id=uuid.uuid4().hex, delivery_mode=2, headers=dict(headers or {}))
            await queue.channel.default_exchange.publish(message, queue.name)


async def _open_in_redis(servers: Servers, calls: Iterable[int], at: datetime, wake_at: datetime) -> None:
    """Calls of which three callbacks were folded some time ago, and which are due."""
    adapter = parse_link(SAMPLE_LINK)
    facts: dict[CallKey, list[list[Fact]]] = {}
    for call in calls:
        for line in lines_of(call)[:HANGUP]:
            key, told = facts_of(CallbackEvent(SOURCE, rfc3339(at), line), adapter)
            facts.setdefault(key, []).append(told)
    store = Store(servers.stack.redis_url)
    folded = (await store.merge(facts)).calls
    await store.schedule({key: WakeUp(milliseconds(rfc3339(wake_at)), state.version) for key, state in folded.items()})
    await store.aclose()


def _reasons(events: Iterable[Event], calls: range) -> Counter[tuple[int, str]]:
    """Count the published revisions of some calls by their number and close reason; one that is told twice counts once."""
    records = [event.body["data"] for event in events]
    told = {(record["request_id"], record["revision"], record["close_reason"]) for record in records}
    return Counter((revision, reason) for call, revision, reason in told if call in calls)


async def _until_all(events: aio_pika.abc.AbstractQueue, calls: range) -> Counter[tuple[int, str]]:
    found: list[Event] = []

    async def there() -> bool:
        found.extend(await waiting_events(events))
        return sum(_reasons(found, calls).values()) >= len(calls)

    await eventually(there)
    found.extend(await waiting_events(events))
    return _reasons(found, calls)


@pytest.mark.parametrize("wakes", [True, pytest.param(False, marks=pytest.mark.volume)])
async def test_what_a_stopped_worker_has_been_given_closes_no_call_early(servers: Servers, *, wakes: bool) -> None:
    """SIGSTOP: its connection stays open until the broker misses its heartbeats; some of the hangups lie in its socket.

    A worker that wakes before has not read them yet, and takes a moment: the messages are large.
    """
    filler = f"CallType=Incoming&Event=start&CallID=1&RequestID=&x={'x' * (700_000 if wakes else 1)}"
    calls = range(9_010_000, 9_010_060)
    async with servers.subscribed("call.#") as events, servers.fleet(**SHORT) as fleet:
        # It is to wake before the broker misses its heartbeats, however slow the machine is.
        patient = {"CALLFOLD_AMQP_URL": f"{servers.stack.amqp_url}?heartbeat={round(15 * PACE)}"}
        stopped = fleet.add("stopped", "worker", patient if wakes else {})
        others = [fleet.add(f"other-{number}", "worker", {}) for number in range(3)]
        await fleet.start_all()
        for worker in (stopped, *others):
            await eventually(partial(_has_timers, worker))
        _signal([stopped], signal.SIGSTOP)  # from now on no round is complete, so no call is due before its hangup is there
        try:
            began = datetime.now(UTC)
            await _open_in_redis(servers, calls, began, began + timedelta(seconds=SHORT_GRACE_S))
            await _put(servers, *(_body([filler, lines_of(call)[HANGUP]]) for call in calls))
            if wakes:
                await eventually(lambda: _lags(others[0], SHORT_GRACE_S + 2, knows=False))
                _signal([stopped], signal.SIGCONT)
            assert await _until_all(events, calls) == {(1, "hangup"): len(calls)}
        finally:
            _signal([stopped], signal.SIGCONT)


async def _has_timers(worker: ServiceProcess) -> bool:
    """Whether it is past its hold-off and knows what is folded."""
    return await metric(worker, "callfold_fold_lag_seconds") > 0 and await metric(worker, "callfold_timers_held") == 0


@pytest.mark.parametrize("age_s", sizes(3600, 0))
async def test_a_spool_that_drains_for_longer_than_the_hold_off_closes_no_call_early(servers: Servers, age_s: float) -> None:
    """The broker was away, for a moment or an hour; of open calls the hangups are spooled, behind more than is drained in time."""
    calls = range(9_020_000, 9_020_020)
    settings = SHORT | {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": paced(8)}
    async with servers.fleet(**settings) as fleet:
        ingress = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(free_port())})
        worker = fleet.add("worker", "worker", {})
        await fleet.start_all()
        await worker_at_work(servers)
        await servers.stack.rabbitmq.stop()
        then = datetime.now(UTC) - timedelta(seconds=age_s)
        try:
            await _open_in_redis(servers, calls, then, then + timedelta(seconds=SHORT_GRACE_S))
            async with _spool(servers) as spool:
                await _fill(spool, calls, rfc3339(then))
        finally:
            await servers.stack.rabbitmq.start()
        async with _spool(servers) as spool:
            try:
                await _stop_while_draining(ingress, spool)
                async with servers.subscribed("call.#") as events:  # the hangups are the last row, so no call was published yet
                    await eventually(lambda: _lags(worker, age_s + SHORT_GRACE_S))
                    ingress.send_signal(signal.SIGCONT)
                    assert await _until_all(events, calls) == {(1, "hangup"): len(calls)}
            finally:
                ingress.send_signal(signal.SIGCONT)


ROWS = 60


def _spool(servers: Servers) -> Spool:
    return Spool(Path(servers.environment()["CALLFOLD_SPOOL_DIR"]), max_bytes=1 << 30)


async def _fill(spool: Spool, calls: range, at: str) -> None:
    """Messages so large that no two go out together, and last the hangups; all received at one time."""
    rows = [
        OutgoingMessage(
            "callbacks", "", {}, _body([f"CallType=Incoming&Event=pickup&CallID={number}&RequestID=&x={'x' * 700_000}"], at)
        )
        for number in range(ROWS)
    ]
    rows.append(OutgoingMessage("callbacks", "", {}, _body((lines_of(call)[HANGUP] for call in calls), at)))
    await spool.add(rows)


async def test_an_alarm_closes_no_call_early_whose_hangup_was_spooled(servers: Servers) -> None:
    """Workers may be quicker than ingress when it ends: ingress is stopped until a round that was opened later is complete."""
    calls, port = range(9_025_000, 9_025_010), free_port()
    # Longer than it takes until a round of after the alarm is complete: in the alarm, the pause between two rounds has grown.
    settings = SHORT | {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": paced(16)}
    store = Store(servers.stack.redis_url)
    async with servers.subscribed("call.#") as events, servers.fleet(**settings) as fleet:
        ingress = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        worker = fleet.add("worker", "worker", {})
        await fleet.start_all()
        await eventually(partial(_has_timers, worker))
        try:
            async with memory_alarm(servers):
                began = datetime.now(UTC)
                await _open_in_redis(servers, calls, began, began + timedelta(seconds=SHORT_GRACE_S))
                assert set(await call_back(port, [lines_of(call)[HANGUP] for call in calls])) == {200}

                async def are_due() -> bool:
                    return await store.now() > began + timedelta(seconds=SHORT_GRACE_S + 3)

                await eventually(are_due)
                ingress.send_signal(signal.SIGSTOP)
                ended_ms = milliseconds(rfc3339(await store.now()))

            async def round_is_complete() -> bool:
                reports = await store.watermarks.reports()
                complete = complete_round(reports.rounds, reports.members)
                return complete is not None and complete.opened_ms > ended_ms

            await eventually(round_is_complete)
            await eventually(partial(_has_looked_for_timers, worker))
        finally:
            ingress.send_signal(signal.SIGCONT)
            await store.aclose()
        assert await _until_all(events, calls) == {(1, "hangup"): len(calls)}


async def _has_looked_for_timers(worker: ServiceProcess) -> bool:
    """Whether it is held, or has fired timers with the time of a new round."""
    lag_s = await metric(worker, "callfold_fold_lag_seconds")
    return await metric(worker, "callfold_timers_held") == 1 or lag_s < SHORT_GRACE_S


async def _lags(worker: ServiceProcess, seconds: float, *, knows: bool = True) -> bool:
    """Whether a worker has looked for timers, and held that callbacks of so long ago may still wait.

    `knows`: it knows until when all is folded. It does not if a worker has changed its prefetch since the last complete round,
    because that is a new member of the next one.
    """
    lag_s = await metric(worker, "callfold_fold_lag_seconds")
    return lag_s > seconds and (not knows or await metric(worker, "callfold_timers_held") == 0)


async def _stop_while_draining(ingress: ServiceProcess, spool: Spool) -> None:
    """Stop ingress with a part of the spool drained. It runs for a moment at a time: a quick machine has soon drained all of it."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            ingress.send_signal(signal.SIGSTOP)
            if (count := await spool.count()) <= ROWS - 5:
                break
            ingress.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.05)
    assert count > 0, "all was drained in one moment"


async def test_timers_wait_for_what_lies_in_a_spool_and_go_on_once_it_is_empty(servers: Servers) -> None:
    calls = range(9_030_000, 9_030_005)
    async with servers.subscribed("call.#") as events, servers.fleet(**SHORT) as fleet:
        worker = fleet.add("worker", "worker", {})
        await worker.start()
        news = {"spool": "a", "spool_oldest": utc_now(), "spool_seen": utc_now()}
        await _put(servers, *(_body(lines_of(call)[:HANGUP]) for call in calls), headers=news)
        await eventually(lambda: _lags(worker, SHORT_GRACE_S))
        assert _reasons(await waiting_events(events), calls) == {}
        empty = {"spool": "a", "spool_oldest": "", "spool_seen": utc_now()}
        await _put(servers, MARKER_BODY, headers=empty | {MARKER: "0"})  # as a spool reports that lost its last rows
        await _put(servers, _body([lines_of(calls[0])[0]]), headers=news)  # older news, folded later: it does not count
        assert await _until_all(events, calls) == {(1, "timeout"): len(calls)}


async def test_redis_away_while_calls_are_due_closes_none_early(servers: Servers) -> None:
    calls = range(9_040_000, 9_040_040)
    quick = SHORT | {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0"}
    async with servers.subscribed("call.#") as events, servers.fleet(**quick) as fleet:
        workers = [fleet.add(f"worker-{number}", "worker", {}) for number in range(2)]
        await fleet.start_all()
        for worker in workers:
            await eventually(partial(_has_timers, worker))
        _signal(workers, signal.SIGSTOP)
        try:
            began = datetime.now(UTC)
            await _open_in_redis(servers, calls, began, began + timedelta(seconds=SHORT_GRACE_S))
            await servers.stack.redis.kill()
        finally:
            _signal(workers, signal.SIGCONT)
        try:
            await _put(servers, *(_body(lines_of(call)[HANGUP:]) for call in calls))
            for worker in workers:
                await eventually(partial(_misses_redis, worker))
        finally:
            await servers.stack.redis.start()
        assert await _until_all(events, calls) == {(1, "hangup"): len(calls)}


@pytest.mark.parametrize("large", sizes(5, 60))
async def test_an_hour_without_redis_closes_no_call_early(servers: Servers, large: int) -> None:
    """The calls are due when Redis comes back, and have been for an hour; their hangups wait, in the hands of two workers.

    The workers are stopped while the calls are put there, as they were left an hour ago: else these would be closed at once.
    """
    calls, other = range(9_050_000, 9_050_040), iter(range(9_060_000, 9_160_000))
    then = datetime.now(UTC) - timedelta(hours=1)
    at = rfc3339(then + timedelta(seconds=1))
    bodies = []
    for call in calls:
        # One worker gets the large messages, and is not done for a while when the other has nothing left.
        filler = [line for _ in range(large * (call % 2)) for line in lines_of(next(other))]
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
        assert await _until_all(events, calls) == {(1, "hangup"): len(calls)}


def _signal(workers: Iterable[ServiceProcess], number: signal.Signals) -> None:
    for worker in workers:
        os.kill(worker.pid, number)


async def _misses_redis(worker: ServiceProcess) -> bool:
    """Whether its timers wait because Redis is away."""
    return "timers_paused" in worker.log_path.read_text("utf-8")


@pytest.mark.parametrize("crash", ["", "timer.due", "timer.leased"])
async def test_a_call_is_closed_late_by_no_more_than_the_lease_and_a_moment(servers: Servers, crash: str) -> None:
    """Also where the worker that would have closed it dies with the lease, or just before."""
    lease_s, settle_s, port = 5 * PACE, 1, free_port()
    settings = {"CALLFOLD_TIMER_LEASE_SECONDS": f"{lease_s:g}", "CALLFOLD_SETTLE_SECONDS": str(settle_s)}
    settings |= {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0"}
    async with servers.subscribed("call.#") as events, servers.fleet(**settings) as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        if not crash:
            fleet.add("worker", "worker", {})
        await fleet.start_all()
        victim = None
        if crash:
            victim = fleet.add("victim", "worker", {"CALLFOLD_CRASH_AT": crash, "CALLFOLD_TIMER_HOLD_OFF_SECONDS": paced(2)})
            with suppress(ProcessFailedError):  # on a slow machine it may die before it is seen to be ready
                await victim.start()
        await call_back(port, [lines_of(513)[PICKUP], lines_of(513)[HANGUP]])
        due = time.time() + settle_s
        if victim is not None:
            await asyncio.wait_for(victim.wait(), LIMIT_S)
            fleet.processes.remove(victim)
            await fleet.add("heir", "worker", {}).start()
            due = max(due, time.time())  # before that, no worker could close it
        (event,) = await next_new(events, 1)
        late_s = time.time() - due
    assert event.routing_key.endswith("agent_hung_up")
    assert late_s < lease_s + LIMIT_S / 4


async def test_a_worker_that_redis_has_forgotten_registers_again(servers: Servers) -> None:
    async with servers.fleet(**SHORT) as fleet:
        worker = fleet.add("worker", "worker", {})
        await worker.start()
        await eventually(lambda: _has_timers(worker))
        async with Redis.from_url(servers.stack.redis_url) as redis:
            await redis.flushall()
            began = round(time.time())

            async def goes_on() -> bool:
                lag_s = await metric(worker, "callfold_fold_lag_seconds")
                return bool(await redis.hlen("callfold:{watermark}:members")) and time.time() - lag_s > began

            await eventually(goes_on)


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
        assert await _until_all(events, calls) == {(1, "hangup"): len(calls)}
