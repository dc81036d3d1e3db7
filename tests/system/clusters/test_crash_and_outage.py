"""Workers die, servers go away: every call is still published, under one id, with one body."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from itertools import count, takewhile

import aio_pika
import aiohttp
import orjson
import pytest
from redis.asyncio import Redis

from console.local.ports import free_port
from console.local.processes import Fleet
from shared.clock import utc_now
from shared.domain.facts import CLOCK
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, TimerEvent, encode, join
from shared.state.store import Store
from shared.state.stored_call import Publication, RestoredPublication, WakeUp
from tests.helpers.downstream import DOWNSTREAM, downstream
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import VENDOR_LINES, Servers, call_back, eventually, exit_code, lines_of, settled
from tests.helpers.volume import sizes


@pytest.mark.parametrize(
    "point", ["fold.merged", "fold.claimed", "fold.published", "fold.marked", "fold.before_ack", "fold.acked"]
)
async def test_a_worker_killed_at_any_point_leaves_a_call_that_is_published_with_one_id(servers: Servers, point: str) -> None:
    port = free_port()
    async with downstream(servers), servers.fleet() as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        victim = fleet.add("victim", "worker", {"CALLFOLD_CRASH_AT": point})
        await fleet.start_all()
        # All four in one go: the batch that completes the call is the one the worker dies in.
        async with asyncio.TaskGroup() as group:
            for line in VENDOR_LINES:
                group.create_task(call_back(port, [line]))
        assert await exit_code(victim) == -signal.SIGKILL
        fleet.processes.remove(victim)
        await fleet.add("heir", "worker", {}).start()

        published: list[aio_pika.abc.AbstractIncomingMessage] = []

        async def there() -> bool:
            published.extend(await servers.take_all(DOWNSTREAM))
            return bool(published)

        await eventually(there)
        # A call after it is folded after it: whatever the redelivery still publishes is there by then.
        await call_back(port, lines_of(9001))
        await eventually(lambda: _published(servers, 9001, published))
    ours = [message for message in published if b'"request_id":513' in message.body]
    assert {message.message_id for message in ours} == {"default/513/1"}
    assert len({message.body for message in ours}) == 1


async def _published(servers: Servers, request_id: int, published: list[aio_pika.abc.AbstractIncomingMessage]) -> bool:
    published.extend(await servers.take_all(DOWNSTREAM))
    return any(message.message_id == f"default/{request_id}/1" for message in published)


async def _load(ports: list[int], numbers: Iterable[int], answered: set[int], calls_per_s: int) -> set[int]:
    """Send the four lines of each call, so many calls a second; one counts as answered when all four got 200. Returns the calls."""
    sent = set()
    connector = aiohttp.TCPConnector(limit=40)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number: int) -> None:
            statuses = []
            for index, line in enumerate(lines_of(number)):
                url = f"http://127.0.0.1:{ports[(number + index) % len(ports)]}/callbacks/default?{line}"
                async with session.get(url) as response:
                    statuses.append(response.status)
            if statuses == [200] * 4:
                answered.add(number)

        for number in numbers:
            sent.add(number)
            await asyncio.gather(one(number), asyncio.sleep(1 / calls_per_s))
    return sent


async def _all_published(servers: Servers, wanted: set[int], seen: dict[str, set[bytes]]) -> bool:
    for message in await servers.take_all(DOWNSTREAM):
        seen.setdefault(str(message.message_id), set()).add(message.body)
    return {f"default/{number}/1" for number in wanted} <= set(seen)


@asynccontextmanager
async def _system(servers: Servers) -> AsyncIterator[tuple[Fleet, list[int]]]:
    ports = [free_port(), free_port()]
    async with downstream(servers), servers.fleet() as fleet:
        for number, port in enumerate(ports):
            fleet.add(f"ingress-{number}", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
            fleet.add(f"worker-{number}", "worker", {})
        await fleet.start_all()
        yield fleet, ports


@pytest.mark.parametrize("load", sizes((8, 4), (20, 10)))
async def test_rabbitmq_killed_under_load_costs_no_call(servers: Servers, load: tuple[int, int]) -> None:
    """It is away for some seconds. The load lasts longer: some calls are answered before, some meanwhile, some after."""
    calls_per_s, outage_s = load
    answered: set[int] = set()
    over = asyncio.Event()
    async with _system(servers) as (fleet, ports):
        numbers = takewhile(lambda _: not over.is_set(), count(1000))
        sending = asyncio.ensure_future(_load(ports, numbers, answered, calls_per_s))
        await eventually(lambda: _size_is(answered, 2 * calls_per_s))
        await servers.stack.rabbitmq.kill()
        killed, taken = time.monotonic(), len(answered)

        async def was_away() -> bool:
            return time.monotonic() - killed >= outage_s and len(answered) >= taken + calls_per_s * outage_s // 2

        try:
            await eventually(was_away)
        finally:
            await servers.stack.rabbitmq.start()
        taken = len(answered)
        await eventually(lambda: _size_is(answered, taken + 2 * calls_per_s))
        assert not sending.done()
        over.set()
        sent = await asyncio.wait_for(sending, LIMIT_S)
        assert answered == sent
        await _all_came_through(servers, fleet, answered)


async def _all_came_through(servers: Servers, fleet: Fleet, answered: set[int]) -> None:
    seen: dict[str, set[bytes]] = {}
    await eventually(lambda: _all_published(servers, answered, seen))
    assert all(len(bodies) == 1 for bodies in seen.values())
    assert await _nothing_dead(servers)
    assert all(process.is_running for process in fleet.processes)


async def _size_is(some: set[int], size: int) -> bool:
    return len(some) >= size


async def _nothing_dead(servers: Servers) -> bool:
    return await servers.take_all("callbacks.dead") == []


@pytest.mark.parametrize("calls", sizes(60, 150))
async def test_redis_killed_under_load_holds_calls_up_and_loses_none(servers: Servers, calls: int) -> None:
    answered: set[int] = set()
    numbers = range(2000, 2000 + calls)
    async with _system(servers) as (fleet, ports):
        load = asyncio.ensure_future(_load(ports, numbers, answered, 20))
        await eventually(lambda: _size_is(answered, calls // 6))
        await servers.stack.redis.kill()
        await eventually(lambda: _size_is(answered, 2 * calls // 3))
        await servers.stack.redis.start()
        await asyncio.wait_for(load, LIMIT_S)
        assert answered == set(numbers)
        await _all_came_through(servers, fleet, answered)


async def test_what_cannot_be_understood_is_a_dead_letter_and_holds_up_nothing_else(servers: Servers) -> None:
    good = {"v": 1, "kind": "callback", "source": "default", "received_at": "2026-11-23T07:44:00.000000Z"}
    batch = [
        {**good, "query": VENDOR_LINES[0]},
        {**good, "query": "CallType=Fax&Event=pickup&CallID=1"},
        {**good, "source": "nobody", "query": VENDOR_LINES[0]},
        {**good, "v": 99, "query": VENDOR_LINES[0]},
        {**good, "received_at": "yesterday", "query": VENDOR_LINES[0]},
        {**good, "kind": "x" * 200_000},
        {**good, "kind": "y" * 200_000},
        "not an event",
        *({**good, "query": line} for line in VENDOR_LINES[1:]),
    ]
    async with downstream(servers), servers.fleet() as fleet:
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
            exchange = await (await connection.channel()).get_exchange("callbacks")
            for body in (b"\xff not json", b"{}", b"[]", orjson.dumps(batch)):
                await exchange.publish(aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), "")
        seen: dict[str, set[bytes]] = {}
        await eventually(lambda: _all_published(servers, {513}, seen))
        letters: Letters = {}
        await eventually(lambda: _are_dead(servers, letters, 10))
    assert sorted(str(letter.headers["reason"]) for letter in letters.values()) == (
        ["invalid_callback"] * 1 + ["undecodable"] * 8 + ["unknown_source"]
    )
    assert all(letter.headers["detail"] for letter in letters.values())


Letters = dict[bytes, aio_pika.abc.AbstractIncomingMessage]


async def _are_dead(servers: Servers, letters: Letters, count: int) -> bool:
    """Gather dead letters by their bodies, and tell whether there are so many: one can be told twice."""
    letters |= {letter.body: letter for letter in await servers.take_all("callbacks.dead")}
    return len(letters) >= count


async def test_a_redelivered_completion_after_publication_publishes_nothing_more(servers: Servers) -> None:
    port, key = free_port(), CallKey(SourceName("default"), CallRef("513"))
    # What is confirmed late would be published twice.
    async with downstream(servers), servers.fleet(CALLFOLD_PUBLISH_TIMEOUT_SECONDS=f"{LIMIT_S:g}") as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        seen: list[aio_pika.abc.AbstractIncomingMessage] = []
        for _ in range(3):
            await call_back(port, VENDOR_LINES)
        await call_back(port, lines_of(9001))
        await eventually(lambda: _published(servers, 9001, seen))
        await settled(servers, key)  # calls of one batch are published side by side: this one may be closed after the other
        seen += await servers.take_all(DOWNSTREAM)
    assert [message.message_id for message in seen].count("default/513/1") == 1
    async with aclosing(Store(servers.stack.redis_url)) as store:
        facts = (await store.read_facts([key]))[key]
    # A callback that was merged while the call was published causes a look at it, which sets the clock.
    assert len(facts.keys() - {CLOCK}) == 8


async def test_a_claim_that_redis_lost_is_made_anew(servers: Servers) -> None:
    """A Redis that fails over to a replica that lags forgets its last commands."""
    number = 9_517_000  # no other test publishes it: what is in `calls.journal` counts as published after a rebuild
    key = CallKey(SourceName("default"), CallRef(str(number)))
    at = utc_now()
    body = join(encode(CallbackEvent(key.source, at, line)) for line in lines_of(number))
    async with (
        aclosing(Store(servers.stack.redis_url, claim_lease_s=10 * LIMIT_S)) as store,
        downstream(servers),
        servers.fleet() as fleet,
    ):
        await store.merge({key: [[("leg:API:1:pickup", at)]]})
        await store.claim({key: Publication(key, 1, b"[]", "", "1")}, holder="another")
        await fleet.add("worker", "worker", {}).start()
        async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
            exchange = await (await connection.channel()).get_exchange("callbacks")
            await exchange.publish(aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), "")

        async def merged() -> bool:
            return len((await store.read_facts([key]))[key]) > 1

        await eventually(merged)
        async with Redis.from_url(servers.stack.redis_url) as redis:
            await redis.flushall()
        seen: dict[str, set[bytes]] = {}
        await eventually(lambda: _all_published(servers, {number}, seen))
    assert len(seen[f"default/{number}/1"]) == 1


async def test_a_call_that_cannot_be_folded_is_a_dead_letter_and_holds_up_no_other(servers: Servers) -> None:
    """Facts that a later release wrote, say: what an older one cannot read must not stop it."""
    key = CallKey(SourceName("default"), CallRef("514"))
    store = Store(servers.stack.redis_url)
    await store.merge({key: [[("leg:Fax:1:pickup", "2026-11-23T07:44:00.000000Z")]]})
    lines = [*VENDOR_LINES, lines_of(514)[0].replace("5140000878", "1")]
    body = join(encode(CallbackEvent(key.source, "2026-11-23T07:44:00.000000Z", line)) for line in lines)
    async with downstream(servers), servers.fleet() as fleet:
        await fleet.add("worker", "worker", {}).start()
        async with servers.queue("callbacks.fold") as queue:
            await queue.channel.default_exchange.publish(aio_pika.Message(body), queue.name)
        seen: dict[str, set[bytes]] = {}
        await eventually(lambda: _all_published(servers, {513}, seen))
        letters: Letters = {}
        await eventually(lambda: _are_dead(servers, letters, 1))
    (letter,) = letters.values()
    assert letter.headers["reason"] == "fold_failed"
    assert "RequestID=514" in orjson.loads(letter.body)[0]["query"]
    await store.aclose()


async def test_an_element_that_nothing_can_write_again_is_a_dead_letter_and_its_neighbours_are_folded(servers: Servers) -> None:
    good = [encode(CallbackEvent(SourceName("default"), "2026-11-23T07:44:00.000000Z", line)) for line in VENDOR_LINES]
    bad = good[0].replace(b'"v":1', b'"v":' + b"[" * 900 + b"]" * 900)
    async with downstream(servers), servers.fleet() as fleet:
        await fleet.add("worker", "worker", {}).start()
        async with servers.queue("callbacks.fold") as queue:
            await queue.channel.default_exchange.publish(aio_pika.Message(join([good[0], bad, *good[1:]])), queue.name)
        seen: dict[str, set[bytes]] = {}
        await eventually(lambda: _all_published(servers, {513}, seen))
        letters: Letters = {}
        await eventually(lambda: _are_dead(servers, letters, 1))
    (letter,) = letters.values()
    assert (letter.headers["reason"], letter.body) == ("undecodable", join([bad]))


async def test_a_timer_of_a_call_that_nothing_is_known_of_makes_no_call(servers: Servers) -> None:
    key = CallKey(SourceName("default"), CallRef("515"))
    store = Store(servers.stack.redis_url)
    async with downstream(servers), servers.fleet() as fleet:
        await fleet.add("worker", "worker", {}).start()
        lines = [encode(CallbackEvent(key.source, "2026-11-23T07:44:00.000000Z", line)) for line in VENDOR_LINES]
        async with servers.queue("callbacks.fold") as queue:
            timer = encode(TimerEvent(key.source, "2026-11-23T07:44:00.000000Z", key.call))
            await queue.channel.default_exchange.publish(aio_pika.Message(join([timer, *lines])), queue.name)
        await eventually(lambda: _all_published(servers, {513}, {}))
    assert (await store.open_calls(), await store.read_facts([key])) == ({}, {key: {}})
    assert await _nothing_dead(servers)
    await store.aclose()


async def test_facts_that_redis_loses_between_merge_and_claim_leave_no_call_that_is_looked_at_for_ever(servers: Servers) -> None:
    """What an older release, or a failover at the wrong moment, may have left: published, open, and without facts."""
    key = CallKey(SourceName("default"), CallRef("516"))
    store = Store(servers.stack.redis_url)
    await store.restore_publications({key: RestoredPublication(1, "{}", WakeUp(0, ""))})
    assert key in await store.open_calls()
    async with servers.fleet(CALLFOLD_TIMER_HOLD_OFF_SECONDS="0") as fleet:
        await fleet.add("worker", "worker", {}).start()

        async def closed() -> bool:
            return await store.open_calls() == {}

        await eventually(closed)
    assert await _nothing_dead(servers)
    await store.aclose()
