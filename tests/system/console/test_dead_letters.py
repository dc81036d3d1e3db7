"""`callfold dead-letters`, on real queues: seen without loss, redriven only with a confirm, dropped only when told."""

from __future__ import annotations

import asyncio
import json

import aio_pika
import pytest
from aio_pika.abc import HeadersType

from console.dead_letters import turns
from console.dead_letters.listing import LookRequest, find
from console.dead_letters.queue import DeadLetterQueue, Filter
from console.dead_letters.redrive_or_drop import SettleRequest, settle
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.runtime.audit import Action
from shared.state.store import Store
from shared.state.stored_call import RestoredPublication, WakeUp
from tests.helpers.dead_letters import AT, bury, left
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import VENDOR_LINES, Servers, callfold, eventually, lines_of, next_events, taken_from
from tests.helpers.settings import settings_here


@pytest.fixture
def settings(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return settings_here(monkeypatch, servers.environment())


async def _callfold(servers: Servers, *arguments: str) -> tuple[int | None, str, str]:
    return await callfold("dead-letters", *arguments, **servers.environment())


async def test_letters_are_listed_by_filter_and_stay(servers: Servers) -> None:
    await bury(servers, "acme", "a=1", "invalid_callback", first_seen=utc_now())
    await bury(servers, "acme", "sectok=hunter2", "unknown_source")
    await bury(servers, "other", "a=3", "invalid_callback", first_seen="2020-01-01T00:00:00.000000Z")
    for _ in range(21):  # oftener than a quorum queue delivers by default
        code, out, _ = await _callfold(servers, "list", "--json", "--source", "acme")
        assert code == 0
        assert {json.loads(line)["reason"] for line in out.splitlines()} == {"invalid_callback", "unknown_source"}
    code, out, _ = await _callfold(servers, "list", "--json", "--reason", "invalid_callback", "--since", "7d")
    assert [json.loads(line)["sources"] for line in out.splitlines()] == [["acme"]]
    code, out, _ = await _callfold(servers, "show", "acme-unknown")
    assert (code, "hunter2" in out, "unknown_source" in out) == (0, False, True)
    code, _, _ = await _callfold(servers, "show", "nothing")
    assert code == 1

    async def all_back() -> bool:
        return await left(servers) == 3

    await eventually(all_back)


async def test_a_redriven_letter_is_folded_and_gone_and_the_others_stay(servers: Servers) -> None:
    for line in VENDOR_LINES:
        await bury(servers, "default", line, "invalid_callback")
    await bury(servers, "acme", "a=1", "unknown_source")
    code, out, _ = await _callfold(servers, "redrive", "--source", "default", "--dry-run")
    assert (code, out) == (0, "4 would be redriven\n")
    code, out, _ = await _callfold(servers, "redrive", "--source", "default", "--dry-run", "--json")
    assert (code, json.loads(out)) == (0, {"redriven": 4, "dry_run": True})
    assert await servers.take_all("callbacks.fold") == []
    async with servers.subscribed("call.#") as events, servers.fleet() as fleet:
        await fleet.add("worker", "worker", {}).start()
        code, out, _ = await _callfold(servers, "redrive", "--source", "default")
        assert (code, out) == (0, "4 redriven\n")
        (event,) = await next_events(events, 1)
        assert event.message_id == "default/513/1"
        await bury(servers, "default", VENDOR_LINES[0].replace("CallID", "No"), "invalid_callback")
        await bury(servers, "default", lines_of(514)[0], "invalid_callback")
        code, _, err = await _callfold(servers, "redrive", "--dry-run")
        assert (code, "2 of 3 cannot be understood" in err) == (0, True)
        code, _, err = await callfold("show", "acme/1", **servers.environment())
        assert (code, "Unknown source acme" in err) == (2, True)
        code, out, err = await _callfold(servers, "redrive", "--json")
        told = json.loads(out)
        assert (code, told["redriven"], told["came_back"], told["not_folded"]) == (0, 3, 2, 0)
        assert sorted(reason.partition(":")[0] for reason in told["reasons"]) == ["invalid_callback", "unknown_source"]
        assert "2 of 3 cannot be understood as they are, and would be dead letters again. 1 " in err
        assert "2 came back: 1 " in err
    assert sorted(str(left.headers["reason"]) for left in await servers.take_all("callbacks.dead")) == [
        "invalid_callback",
        "unknown_source",
    ]


async def test_a_call_whose_callbacks_are_all_dead_letters_is_shown_as_such(servers: Servers) -> None:
    for line in VENDOR_LINES[:2]:
        await bury(servers, "default", line.replace("CallID", "No"), "invalid_callback")
    await bury(servers, "gone", "CallType=API&Event=pickup&CallID=77", "unknown_source")
    for arguments in (["default", "513"], ["default/513"], ["default/513/1"], ["gone/call-77"]):
        code, out, err = await callfold("show", *arguments, **servers.environment())
        assert (code, out, "callfold dead-letters redrive" in err) == (1, "", True), err
        assert ("1 dead letter holds its callbacks: unknown_source: parameter e is" in err) == (arguments == ["gone/call-77"])
    for arguments in (["default/514"], ["default", "call-77"]):
        code, _, err = await callfold("show", *arguments, **servers.environment())
        assert (code, "Unknown call" in err) == (1, True), err
    code, out, _ = await callfold("doctor", "--json", **servers.environment())
    (found,) = [told for told in map(json.loads, out.splitlines()) if told["check"] == "dead letters"]
    assert (found["warning"], found["detail"].startswith("3 messages in callbacks.dead.")) == (True, True)


async def test_a_drop_asks_first(servers: Servers) -> None:
    await bury(servers, "acme", "a=1", "unknown_source")
    code, _, err = await _callfold(servers, "drop", "--reason", "unknown_source")
    assert (code, "Delete 1 dead letter of callbacks.dead permanently? It exists nowhere else." in err) == (1, True)
    assert (await _callfold(servers, "drop", "--reason", "invalid_callback"))[:2] == (0, "0 dropped\n")
    code, out, _ = await _callfold(servers, "list", "--source", "acme")
    assert "  acme          unknown_source  " in out
    code, out, _ = await _callfold(servers, "drop", "acme", "--yes")
    assert (code, out) == (0, "1 dropped\n")
    code, out, _ = await _callfold(servers, "drop", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"dropped": 0, "dry_run": False})
    assert await servers.take_all("callbacks.dead") == []


async def test_a_message_the_broker_gave_up_tells_so(servers: Servers) -> None:
    """A message that no worker survives is dead-lettered by the broker after 20 deliveries."""
    async with servers.queue("callbacks.fold") as queue:
        await queue.channel.default_exchange.publish(
            aio_pika.Message(b"[]", message_id="poison-012345", delivery_mode=2), queue.name
        )
        given = 0
        while (message := await taken_from(queue, no_ack=False)) is not None or given <= 20:
            if message is not None:
                await message.reject(requeue=True)  # RabbitMQ 4.3 does not count a nack
                given += 1

    async def dead() -> bool:
        return await left(servers) == 1

    await eventually(dead)
    code, out, _ = await _callfold(servers, "list", "--json")
    letter = json.loads(out)
    assert (code, letter["id"], letter["reason"]) == (0, "poison-01234", "delivery_limit")
    assert letter["first_seen"].startswith("20")


async def test_a_redrive_of_many_tells_how_far_it_is_and_misses_none_that_have_just_come(servers: Servers) -> None:
    """The broker's counts of a queue are some seconds old."""
    body = json.dumps([{"v": 1, "kind": "callback", "source": "acme", "received_at": AT, "query": "a=1"}]).encode()
    async with servers.queue("callbacks.dead") as queue:
        for number in range(1001):
            headers: HeadersType = {"reason": "unknown_source", "detail": "x", "first_seen": utc_now()}
            message = aio_pika.Message(body, headers=headers, message_id=f"{number:012}", delivery_mode=2)
            await queue.channel.default_exchange.publish(message, queue.name)
    code, out, err = await _callfold(servers, "redrive")
    assert (code, out) == (0, "1001 redriven\n")
    assert [line for line in err.splitlines() if "redriven" in line] == ["500 redriven", "1000 redriven"]
    assert len(await servers.take_all("callbacks.fold")) == 1001


async def test_what_comes_for_a_call_that_has_left_redis_is_a_letter_that_is_never_redriven(servers: Servers) -> None:
    key = CallKey(SourceName("default"), CallRef("513"))
    store = Store(servers.stack.redis_url)
    await store.restore_publications({key: RestoredPublication(1, "", WakeUp(None, "0"))})
    await store.aclose()
    async with servers.subscribed("call.#") as events, servers.fleet() as fleet:
        await fleet.add("worker", "worker", {}).start()
        async with servers.queue("callbacks.fold") as queue:
            lines = [*VENDOR_LINES, *lines_of(514)]
            body = join(encode(CallbackEvent(key.source, utc_now(), line)) for line in lines)
            await queue.channel.default_exchange.publish(aio_pika.Message(body, delivery_mode=2), queue.name)
        (event,) = await next_events(events, 1)
        assert event.message_id == "default/514/1"

        async def buried() -> bool:
            return await left(servers) == 4

        await eventually(buried)
    code, out, _ = await _callfold(servers, "list", "--json", "--reason", "expired_call")
    assert (code, len(out.splitlines())) == (0, 4)
    (letter, *_) = map(json.loads, out.splitlines())
    code, out, err = await _callfold(servers, "redrive")
    assert (code, out) == (0, "0 redriven\n")
    assert "4 matching dead letters not redriven: Redis may no longer have their calls" in err
    code, _, err = await _callfold(servers, "redrive", letter["id"], "--force")
    assert code == 1
    assert "1 matching dead letter not redriven" in err
    code, out, _ = await _callfold(servers, "drop", "--reason", "expired_call", "--yes")
    assert (code, out) == (0, "4 dropped\n")


async def test_whoever_looks_sees_every_letter_while_others_look_and_redrive(
    servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_LOCK_TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr(turns, "_PATIENCE_S", LIMIT_S)  # on a slow machine a redrive takes longer to end its turn
    wanted = 150
    await asyncio.gather(*(bury(servers, "acme", f"a={number}", "unknown_source") for number in range(wanted)))
    for number in range(3):
        await bury(servers, "other", f"a={number}", "unknown_source")
    dry, real = (SettleRequest(Action.REDRIVE, "tests", is_dry) for is_dry in (True, False))
    acme, other = Filter(source="acme"), Filter(source="other")
    looks = [find(settings, DeadLetterQueue.CALLBACKS, LookRequest(Filter(), 10)) for _ in range(4)]
    counts = [settle(settings, DeadLetterQueue.CALLBACKS, acme, dry) for _ in range(2)]
    assert [listing.count for listing in await asyncio.gather(*looks)] == [wanted + 3] * 4
    assert await asyncio.gather(*counts) == [(wanted, 0, True)] * 2
    looking = asyncio.gather(*(find(settings, DeadLetterQueue.CALLBACKS, LookRequest(other, 10)) for _ in range(4)))
    redriving = asyncio.gather(*(settle(settings, DeadLetterQueue.CALLBACKS, acme, real) for _ in range(2)))
    listed = await _callfold(servers, "list", "--json", "--source", "other")
    while listed[0] or "At least" in listed[2]:  # its turn did not come in time: it ends, or shows what the redrive leaves it
        assert "reading these dead letters" in listed[2] or not listed[0]
        listed = await _callfold(servers, "list", "--json", "--source", "other")
    assert [(listing.count, listing.is_complete) for listing in await looking] == [(3, True)] * 4
    assert len(listed[1].splitlines()) == 3
    assert sorted(await redriving) == [(0, 0, True), (wanted, 0, True)]
    assert len(await servers.take_all("callbacks.fold")) == wanted


async def test_a_letter_nested_deeper_than_it_can_be_written_is_listed(servers: Servers) -> None:
    async with servers.queue("callbacks.dead") as queue:
        body = b'[{"source":' + b"[" * 900 + b"]" * 900 + b"}]"
        message = aio_pika.Message(body, headers={"reason": "undecodable"}, message_id="deep-0123456", delivery_mode=2)
        await queue.channel.default_exchange.publish(message, queue.name)
    code, out, _ = await _callfold(servers, "list", "--json")
    assert (code, json.loads(out)["id"], json.loads(out)["sources"]) == (0, "deep-0123456", [])
