"""`callfold rebuild` while callbacks still wait, of calls that are open again, or of which it is shown only the end."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import aio_pika
import pytest
from redis.asyncio import Redis

from console.commands import rebuild
from shared.clock import utc_now
from shared.config.settings import load_settings
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.times import milliseconds
from shared.state.store import Store
from shared.state.stored_call import LeaseLimits, PublicationState, RestoredPublication, WakeUp
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import (
    Event,
    Servers,
    callfold,
    eventually,
    lines_of,
    next_events,
    no_consumer,
    settled,
    waiting_events,
)
from tests.helpers.settings import settings_here

pytestmark = pytest.mark.usefixtures("fresh_stack")

SOURCE = SourceName("default")
PICKUP, FAR_PICKUP, FAR_HANGUP, HANGUP = range(4)
QUICK = {
    "CALLFOLD_SETTLE_SECONDS": "1",
    "CALLFOLD_LEG_GRACE_SECONDS": "2",
    "CALLFOLD_MAX_CALL_SECONDS": "30",
    "CALLFOLD_TIMER_LEASE_SECONDS": "1",
    "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0",
}
# What is open stays so for as long as a test may take.
PATIENT = QUICK | {"CALLFOLD_LEG_GRACE_SECONDS": f"{10 * LIMIT_S:g}", "CALLFOLD_MAX_CALL_SECONDS": f"{20 * LIMIT_S:g}"}


async def _tell(servers: Servers, lines: Sequence[str]) -> None:
    """Publish callbacks as ingress does: to be folded, and into the journal."""
    body = join(encode(CallbackEvent(SOURCE, utc_now(), line)) for line in lines)
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        exchange = await (await connection.channel()).get_exchange("callbacks")
        await exchange.publish(aio_pika.Message(body, message_id=uuid.uuid4().hex, delivery_mode=2), "")


async def _forget(servers: Servers) -> None:
    async with Redis.from_url(servers.stack.redis_url) as redis:
        await redis.flushall()


async def _rebuild(servers: Servers, since: str, *more: str, **settings: str) -> str:
    await no_consumer(servers)
    code, out, err = await callfold("rebuild", "--since", since, *more, **servers.environment(**settings))
    assert code == 0, err
    return out


async def _settled(servers: Servers, events: aio_pika.abc.AbstractQueue, request_id: int) -> list[Event]:
    """What is published of a call until there is nothing more to publish."""
    await settled(servers, _key(request_id))
    return [event for event in await waiting_events(events) if event.message_id and f"/{request_id}/" in event.message_id]


def _key(request_id: int) -> CallKey:
    return CallKey(SOURCE, CallRef(str(request_id)))


async def test_what_still_waits_to_be_folded_is_published_after_a_rebuild(servers: Servers) -> None:
    """Workers stopped, Redis lost, ingress goes on: the queue holds a whole call."""
    call = 730_000_000
    async with servers.subscribed("call.#") as events:
        await _tell(servers, lines_of(call))
        await _rebuild(servers, "10m", **QUICK)
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()
            (event,) = await _settled(servers, events, call)
    assert event.message_id == f"default/{call}/1"


async def test_an_amendment_that_waits_to_be_folded_is_published_after_a_rebuild(servers: Servers) -> None:
    call = 731_000_000
    lines = lines_of(call)
    async with servers.subscribed("call.#") as events:
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()
            await _tell(servers, lines[:HANGUP])
            (first,) = await next_events(events, 1)
            assert first.body["data"]["complete"] is False
        await _tell(servers, lines[HANGUP:])
        await _forget(servers)
        await servers.take_all("recordings")
        await _rebuild(servers, "10m", "--publish", **QUICK)
        async with servers.fleet(**QUICK, CALLFOLD_RECORDING_RETRY_SECONDS="60") as fleet:
            await fleet.add("worker", "worker", {}).start()
            (second,) = await _settled(servers, events, call)
    assert (second.message_id, second.body["data"]["complete"]) == (f"default/{call}/2", True)
    assert second.body["data"]["agent"]["recorded"] is True


async def test_an_amendment_that_was_folded_and_not_published_is_published_after_a_rebuild(servers: Servers) -> None:
    """The same, with a queue that has lost it: the journal alone tells."""
    call = 732_000_000
    lines = lines_of(call)
    async with servers.subscribed("call.#") as events:
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()
            await _tell(servers, lines[:HANGUP])
            await next_events(events, 1)
        await _tell(servers, lines[HANGUP:])
        assert await servers.take_all("callbacks.fold")
        await _forget(servers)
        await _rebuild(servers, "10m", **QUICK)
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()
            (second,) = await _settled(servers, events, call)
    assert (second.message_id, second.body["data"]["complete"]) == (f"default/{call}/2", True)


async def test_a_call_that_is_open_again_keeps_its_published_revision(servers: Servers) -> None:
    call = 733_000_000
    lines = lines_of(call)
    async with servers.subscribed("call.#") as events:
        async with servers.fleet(**PATIENT) as fleet:
            await fleet.add("worker", "worker", {}).start()
            await _tell(servers, [lines[PICKUP], lines[HANGUP]])
            (first,) = await next_events(events, 1)
            assert first.routing_key.endswith("agent_hung_up")
            await _tell(servers, [lines[FAR_PICKUP]])
            await eventually(lambda: _is_open(servers, call))
        await _forget(servers)
        await _rebuild(servers, "10m", **PATIENT)
        async with servers.fleet(**PATIENT) as fleet:
            await fleet.add("worker", "worker", {}).start()
            await _tell(servers, [lines[FAR_HANGUP]])
            (second,) = await _settled(servers, events, call)
    assert (second.message_id, second.routing_key) == (f"default/{call}/2", "call.amended.default.answered")


async def _is_open(servers: Servers, call: int) -> bool:
    store = Store(servers.stack.redis_url)
    try:
        return _key(call) in await store.open_calls()
    finally:
        await store.aclose()


async def test_a_published_call_that_began_before_the_window_is_replayed_from_its_beginning(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = 734_000_000
    lines = lines_of(call)
    async with servers.subscribed("call.#") as events:
        async with servers.fleet(**PATIENT) as fleet:
            await fleet.add("worker", "worker", {}).start()
            await _tell(servers, lines[:FAR_HANGUP])
            await _next_second()
            begin = datetime.now(UTC)
            await _next_second()
            await _tell(servers, lines[FAR_HANGUP:])
            await next_events(events, 1)
        await _forget(servers)
        await no_consumer(servers)
        # In this process: the window is to begin between the two, however long a command takes to start.
        settings_here(monkeypatch, servers.environment(**QUICK))
        monkeypatch.setattr(rebuild, "ago", lambda _: begin)
        mode = rebuild.Mode(is_dry_run=False, is_publishing=False, is_forced=False, as_json=False)
        assert await rebuild.rebuild(load_settings(), "1h", None, mode) == 0
        store = Store(servers.stack.redis_url)
        facts = (await store.read_facts([_key(call)]))[_key(call)]
        await store.aclose()
        assert sum(name.rpartition(":")[2] in {"pickup", "hangup"} for name in facts) == 4
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()
            assert await _settled(servers, events, call) == []


async def _next_second() -> None:
    """Wait until the clock shows another second: the broker finds what it received by seconds."""
    now = int(time.time())

    async def is_over() -> bool:
        return int(time.time()) > now

    await eventually(is_over)


async def test_a_published_call_outside_the_window_is_known_to_be_over(servers: Servers) -> None:
    """Its id was used: what comes for it late must not begin it anew."""
    call = 735_000_000
    lines = lines_of(call)
    async with servers.subscribed("call.#") as events:
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()
            await _tell(servers, lines)
            await next_events(events, 1)
        await asyncio.sleep(3)  # the clock's time; a slow machine only makes more of it
        await _forget(servers)
        await _rebuild(servers, "1s", **QUICK)
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()
            await _tell(servers, [lines[HANGUP]])
            assert await _settled(servers, events, call) == []


async def test_a_rebuild_into_a_redis_that_is_whole_has_workers_amend_what_differs(servers: Servers) -> None:
    call = 736_000_000
    lines = lines_of(call)
    async with servers.subscribed("call.#") as events:
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()
            await _tell(servers, lines[:HANGUP])
            await next_events(events, 1)
        await _tell(servers, lines[HANGUP:])
        assert await servers.take_all("callbacks.fold")
        await _rebuild(servers, "10m", **QUICK)
        async with servers.fleet(**QUICK) as fleet:
            await fleet.add("worker", "worker", {}).start()
            (second,) = await _settled(servers, events, call)
    assert (second.message_id, second.body["data"]["complete"]) == (f"default/{call}/2", True)


async def test_only_the_source_that_is_asked_for_is_rebuilt(servers: Servers) -> None:
    sources = servers.directory / "sources.toml"
    sources.write_text('[sources.default]\nsecret = "a"\n[sources.other]\nsecret = "b"\n', "utf-8")
    for source in ("default", "other"):
        body = join(
            [encode(CallbackEvent(SourceName(source), utc_now(), "CallType=API&Event=pickup&CallID=7&RequestID=737000000"))]
        )
        async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
            exchange = await (await connection.channel()).get_exchange("callbacks")
            await exchange.publish(aio_pika.Message(body, delivery_mode=2), "")
    await _rebuild(servers, "10m", "--source", "other", CALLFOLD_SOURCES=str(sources))
    keys = [CallKey(SourceName(source), CallRef("737000000")) for source in ("default", "other")]
    store = Store(servers.stack.redis_url)
    loaded = await store.read_facts(keys)
    await store.aclose()
    assert [bool(loaded[key]) for key in keys] == [False, True]


async def test_a_seal_of_one_who_has_not_seen_every_fact_leads_to_a_look(servers: Servers) -> None:
    key = _key(738_000_000)
    store = Store(servers.stack.redis_url)
    first = (await store.merge({key: [[("leg:API:1:missed", utc_now())]]})).calls[key].version
    second = (await store.merge({key: [[("leg:Outgoing:2:pickup", utc_now())]]})).calls[key].version
    await store.restore_publications({key: RestoredPublication(1, "{}", WakeUp(None, first))})
    limits = LeaseLimits(calls=10, calls_of_source=10, interval_ms=1)
    assert (await store.lease(until_ms=milliseconds(utc_now()), lease_s=5, limits=limits)).calls == [key]
    await store.restore_publications({key: RestoredPublication(2, "{}", WakeUp(5000, second))})
    assert await store.open_calls() == {key: 5000}, "a published call can be open again"
    assert (await store.merge({key: []})).calls[key].state is PublicationState.PUBLISHED
    await store.restore_publications({key: RestoredPublication(2, "{}", WakeUp(None, second))})
    assert await store.open_calls() == {key: 5000}, "what Redis knows as published stays"
    await store.aclose()


async def test_a_rebuild_refuses_while_a_worker_runs_unless_forced(servers: Servers) -> None:
    environment = servers.environment(**QUICK)
    async with servers.fleet(**QUICK) as fleet:
        await fleet.add("worker", "worker", {}).start()
        await _tell(servers, lines_of(739_000_000))
        code, out, err = await callfold("rebuild", "--since", "1m", **environment)
        assert (code, out) == (1, "")
        assert "At least one worker is running and would publish calls that are only half replayed. Stop all workers first" in err
        code, out, err = await callfold("rebuild", "--since", "1m", "--force", **environment)
        assert (code, "replayed" in out) == (0, True), err
    await no_consumer(servers)
    code, _, err = await callfold("rebuild", "--since", "1m", **environment)
    assert code == 0, err


async def test_what_cannot_be_understood_does_not_keep_a_rebuild_from_the_rest(servers: Servers) -> None:
    call = 740_000_000
    bad = (
        b'{"v":1,"kind":"callback","source":"default","received_at":"2026-11-23T07:44:00.123456Z","query":'
        + b"[" * 900
        + b"]" * 900
        + b"}"
    )
    good = [encode(CallbackEvent(SOURCE, utc_now(), line)) for line in lines_of(call)]
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        exchange = await (await connection.channel()).get_exchange("callbacks")
        await exchange.publish(aio_pika.Message(join([good[0], bad, *good[1:]]), delivery_mode=2), "")
    await _rebuild(servers, "10m", **QUICK)
    store = Store(servers.stack.redis_url)
    assert len((await store.read_facts([_key(call)]))[_key(call)]) == 8
    await store.aclose()
