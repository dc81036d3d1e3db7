"""What others publish, or a clock that is wrong, ends no process, closes no call early, and holds up no good message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import aio_pika

from console.local.ports import free_port
from shared.clock import utc_now
from shared.domain.adapter_link import SAMPLE_LINK
from shared.domain.ids import CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, TimerEvent, encode, join
from shared.domain.times import rfc3339
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, call_back, callfold, eventually, lines_of, next_new

QUICK = {
    "CALLFOLD_SETTLE_SECONDS": "1",
    "CALLFOLD_LEG_GRACE_SECONDS": "600",
    "CALLFOLD_MAX_CALL_SECONDS": "1200",
    "CALLFOLD_TIMER_LEASE_SECONDS": "1",
    "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0",
}


FUTURE = rfc3339(datetime.now(UTC) + timedelta(hours=12))


def _body(request_id: int) -> bytes:
    return join(encode(CallbackEvent(SourceName("default"), utc_now(), line)) for line in lines_of(request_id))


async def test_poison_among_good_messages_costs_none_of_them(servers: Servers) -> None:
    headers: list[dict[str, object]] = [
        {"spool": "x", "spool_oldest": "2026-11-25", "spool_seen": "2026-11-25"},
        {"spool": "x", "spool_oldest": "1969-12-31T00:00:00.000000Z", "spool_seen": "1969-12-31T00:00:00.000000Z"},
        {"spool": "x"},
        {"x-death": "abc"},
    ]
    junk = [
        b'{"received_at":"2026-11-23T07:44:00.1234567"}',
        b'{"received_at":"' + FUTURE.encode() + b'"}',
        b'{"received_at":"9999-12-31T23:59:59.999999Z"}',
        b"[" * 1000 + b"]" * 1000,
    ]
    async with servers.subscribed("call.#") as events, servers.fleet(**QUICK) as fleet:
        port = free_port()
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        worker = fleet.add("worker", "worker", {})
        await fleet.start_all()
        await call_back(port, lines_of(7)[:2])  # goes on, for longer than the test
        async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
            callbacks = await (await connection.channel()).get_exchange("callbacks")
            for number in range(20):
                for body in junk:
                    await callbacks.publish(aio_pika.Message(body), "")
                for told in headers:
                    await callbacks.publish(aio_pika.Message(_body(1000 + number), headers=told), "")  # type: ignore[arg-type]
        published = await next_new(events, 20)
        assert {event.message_id for event in published} == {f"default/{1000 + number}/1" for number in range(20)}
        # Timers go on, and tell the right time: one call ends by them, the other does not.
        await call_back(port, [lines_of(8)[0], lines_of(8)[3]])
        (ended,) = await next_new(events, 1, published)
        assert ended.message_id == "default/8/1"
        await call_back(port, [lines_of(9)[0], lines_of(9)[3]])
        (ended,) = await next_new(events, 1, [*published, ended])
        assert ended.message_id == "default/9/1"
        assert worker.returncode is None

    async def listed() -> bool:
        code, out, err = await callfold("dead-letters", "list", "--json", **servers.environment())
        return (code, err) == (0, "") and len(out.splitlines()) >= 80  # one can be told twice

    await eventually(listed)


async def test_a_timer_that_tells_a_time_to_come_ends_no_call(servers: Servers) -> None:
    source = SourceName("default")
    begun = [CallbackEvent(source, utc_now(), line) for line in lines_of(7)[:3]]
    ahead = [TimerEvent(source, FUTURE, CallRef(call)) for call in ("7", "8", "9")]
    body = join([*map(encode, begun), *map(encode, ahead), _body(8)[1:-1]])
    async with servers.subscribed("call.#") as events, servers.fleet(**QUICK) as fleet:
        await fleet.add("worker", "worker", {}).start()
        async with servers.queue("callbacks.fold") as queue:
            await queue.channel.default_exchange.publish(aio_pika.Message(body), queue.name)
            (other,) = await next_new(events, 1)
            assert other.message_id == "default/8/1"
            last = join([encode(CallbackEvent(source, utc_now(), lines_of(7)[3]))])
            await queue.channel.default_exchange.publish(aio_pika.Message(last), queue.name)
            (ended,) = await next_new(events, 1, [other])
    assert (ended.message_id, ended.body["data"]["close_reason"]) == ("default/7/1", "hangup")
    assert '"timers": 3' in (servers.directory / "logs" / "worker.log").read_text("utf-8")
    assert await servers.take_all("callbacks.dead") == []


async def test_a_call_with_the_most_legs_and_values_is_published(servers: Servers) -> None:
    # Each job has the record of its call, in JSON six bytes for each of these characters.
    names = [f"Own{number}" for number in range(16)]
    adapter = f"{SAMPLE_LINK}&{'&'.join(f'{name}={{{{{name}}}}}' for name in names)}"
    sources = servers.directory / "sources.toml"
    sources.write_text(f"[sources.default]\nadapter = '{adapter}'")
    lines = [f"CallType=Outgoing&Event=missed&CallID={leg}&RequestID=9" for leg in range(1, 63)]
    lines.append("CallType=API&Event=missed&CallID=5000&RequestID=9&" + "&".join(f"{name}={chr(1) * 4000}" for name in names))
    large = join(encode(CallbackEvent(SourceName("default"), utc_now(), line)) for line in lines)
    async with servers.subscribed("call.#") as events, servers.fleet(**QUICK, CALLFOLD_SOURCES=str(sources)) as fleet:
        await fleet.add("worker", "worker", {}).start()
        async with servers.queue("callbacks.fold") as queue:
            for body in (large, _body(10)):
                await queue.channel.default_exchange.publish(aio_pika.Message(body), queue.name)
        assert {event.message_id for event in await next_new(events, 2)} == {"default/9/1", "default/10/1"}
    assert await servers.take_all("callbacks.dead") == []
