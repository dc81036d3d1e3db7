"""Subscriptions of the Python client on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import aio_pika
import orjson
import pytest
import pytest_asyncio

from callfold_client import (
    MemorySeenIds,
    QueueConflictError,
    RefusedError,
    SqliteSeenIds,
    SubscriptionError,
    TransportLostError,
    subscribe,
    subscribe_sync,
)
from console.local.ports import free_port
from shared.runtime.process import background
from tests.helpers.forwarder import Forwarder
from tests.helpers.history import call_event
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually, eventually_as_many
from tests.helpers.subscribers import Events, events_at
from tests.helpers.volume import sizes

# A replay reads what other tests published too.
pytestmark = pytest.mark.foreign_events


class BodyError(Exception):
    """What a test's own work raises."""


@pytest_asyncio.fixture
async def events(rabbitmq_only: Servers) -> AsyncIterator[Events]:
    async with events_at(rabbitmq_only.stack.amqp_url) as made, asyncio.timeout(LIMIT_S):
        yield made


async def _length(of: list[str]) -> int:
    return len(of)


async def _all(events: Events, url: str | None = None, **options: object) -> list[str]:
    """Take all that is published so far, through one subscription."""
    count = options.pop("limit", None) or len(events.ids)
    subscription = subscribe(url or events.url, queue=events.queue, filter=events.pattern, limit=count, **options)  # type: ignore[arg-type]
    async with subscription as subscribed:
        return [event.id async for event in subscribed]


@pytest.mark.parametrize("count", sizes(400, 40_000))
async def test_a_newcomer_gets_the_past_and_the_present_without_gap_or_double(events: Events, count: int) -> None:
    both, total = count + 50, 2 * count + 50
    got: list[str] = []
    await events.publish(*range(1, count + 1))

    is_begun = asyncio.Event()

    async def publish_on() -> None:
        await is_begun.wait()
        for number in range(both + 1, total + 1, 20):
            await events.publish(*range(number, number + 20))

    async with subscribe(events.url, queue=events.queue, filter=events.pattern, replay_since="first", limit=total) as subscribed:
        await events.publish(*range(count + 1, both + 1))  # these are in the journal and in the queue
        publishing = asyncio.create_task(publish_on())
        async for event in subscribed:
            is_begun.set()
            got.append(event.id)
        await publishing
    assert got == list(dict.fromkeys(got)), "an event came twice"
    assert sorted(got) == sorted(events.ids)
    assert await events.count(events.queue) == 0, "what was replayed is still in the queue"


@pytest.mark.parametrize("losses", sizes(3, 60))
async def test_connections_that_are_lost_cost_no_event_and_repeat_none(events: Events, losses: int) -> None:
    port = urlsplit(events.url).port
    assert port
    count = 40
    got: list[str] = []
    async with Forwarder(port) as forwarder:
        await forwarder.open()
        urls = f"amqp://guest:guest@127.0.0.1:{free_port()}/,{forwarder.amqp_url}"  # nobody listens at the first
        await events.publish(*range(1, count + 1))
        async with subscribe(urls, queue=events.queue, filter=events.pattern, replay_since=timedelta(hours=1)) as subscribed:
            async for event in subscribed:
                got.append(event.id)
                if len(got) % count == 5:
                    if len(events.ids) < count * losses:
                        await events.publish(*range(len(events.ids) + 1, len(events.ids) + count + 1))
                    await forwarder.close()  # while this event is not acked and others are on their way
                    await forwarder.open()
                if len(got) == count * losses:
                    break
    assert got == list(dict.fromkeys(got)), "an event came twice"
    assert sorted(got) == sorted(events.ids)


async def test_an_event_is_acked_after_its_body_and_given_back_if_that_fails(events: Events) -> None:
    assert await _all(events, limit=0) == []
    async with subscribe(events.url, queue=events.queue, filter=events.pattern):
        await events.publish(1, 2, 3)
    with suppress(BodyError):
        async with subscribe(events.url, queue=events.queue, filter=events.pattern) as subscribed:
            async for event in subscribed:
                if event.data.request_id == 2:
                    raise BodyError
    async with subscribe(events.url, queue=events.queue, filter=events.pattern) as subscribed:
        async for event in subscribed:  # the first was acked when the second began
            assert event.id == events.ids[1]
            break
    assert await _all(events, limit=1) == [events.ids[2]], "a clean end acks"


async def test_a_cancelled_body_gives_its_event_back(events: Events) -> None:
    began = asyncio.Event()

    async def consume() -> None:
        async with subscribe(events.url, queue=events.queue, filter=events.pattern) as subscribed:
            async for _ in subscribed:
                began.set()
                await asyncio.Event().wait()

    consuming = asyncio.create_task(consume())
    await asyncio.sleep(0)
    async with subscribe(events.url, queue=events.queue, filter=events.pattern):
        await events.publish(1)
    await began.wait()
    consuming.cancel()
    with suppress(asyncio.CancelledError):
        await consuming
    assert await _all(events) == events.ids


@pytest.mark.parametrize("prefetch", [1, 50])
async def test_an_event_that_always_fails_is_a_dead_letter_and_its_neighbours_are_not(events: Events, prefetch: int) -> None:
    options = {"queue": events.queue, "filter": events.pattern, "delivery_limit": 3, "prefetch": prefetch}
    async with subscribe(events.url, **options):  # type: ignore[arg-type]
        await events.publish(*range(1, 31))
    handled: list[str] = []
    failures = 0

    async def consume_for_ever() -> None:
        nonlocal failures
        while True:
            with suppress(BodyError):
                async with subscribe(events.url, **options) as subscribed:  # type: ignore[arg-type]
                    async for event in subscribed:
                        if event.id == events.ids[4]:
                            failures += 1
                            raise BodyError
                        handled.append(event.id)

    async with background(consume_for_ever()):
        dead = await eventually(lambda: events.take(events.dead))
        await eventually_as_many(29, lambda: _length(handled))
    assert failures == 4 if prefetch == 1 else 1 <= failures <= 4, "to be prefetched counts as well"
    assert sorted(handled) == sorted(each for each in events.ids if each != events.ids[4])
    assert orjson.loads(dead.body)["id"] == events.ids[4]
    assert await events.take(events.dead) is None


async def test_many_short_subscriptions_make_no_dead_letter(events: Events) -> None:
    await _all(events, limit=0, delivery_limit=2)
    await events.publish(*range(1, 9))
    assert [(await _all(events, limit=1, delivery_limit=2))[0] for _ in events.ids] == events.ids
    assert await events.take(events.dead) is None


async def test_what_is_no_event_is_a_dead_letter_with_its_reason(events: Events) -> None:
    async with subscribe(events.url, queue=events.queue, filter=events.pattern, limit=1) as subscribed:
        await events.send(b"\xff", {"kept": "yes"})
        await events.send(orjson.dumps(call_event(7, source=events.source) | {"type": "com.example.other"}))
        await events.publish(1)
        assert [event.id async for event in subscribed] == events.ids
    dead = [await eventually(lambda: events.take(events.dead)) for _ in range(2)]
    reasons = sorted(str(message.headers["callfold-reason"]) for message in dead)
    assert reasons[0].startswith("The message is no JSON")
    assert reasons[1].startswith("The message is no event of a call or recording: {'id': ")
    assert {message.headers.get("kept") for message in dead} == {"yes", None}
    assert await events.count(events.queue) == 0


async def test_messages_that_are_no_events_cost_no_connection_without_dead_letters(
    events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """Each lost connection would count as a delivery of all that was prefetched."""
    caplog.set_level(logging.INFO, "callfold_client")
    queue = await events.channel.declare_queue(events.queue, durable=True, arguments={"x-queue-type": "quorum"})
    await queue.bind("calls", events.pattern)
    for number in (1, 2, 3):
        await events.publish(number)
        await events.send(b"\xff")
    await events.publish(4)
    assert await _all(events, declare=False) == events.ids
    assert caplog.text.count("Connected to RabbitMQ") == 1
    assert await events.count(events.queue) == 0


async def test_what_is_put_into_the_queue_by_its_name_is_delivered(events: Events) -> None:
    """A shovel or a person redrives dead letters so. Their routing key is the name of the queue."""
    async with subscribe(events.url, queue=events.queue, filter=events.pattern, limit=1) as subscribed:
        body = orjson.dumps(call_event(1, source=events.source))
        await events.channel.default_exchange.publish(aio_pika.Message(body), events.queue, timeout=LIMIT_S)
        assert [event.subject async for event in subscribed] == ["1"]


class _HeldIds(MemorySeenIds):
    """Holds the first call of one method until it is released."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self._method = method
        self.is_called = threading.Event()
        self.is_called_at_once = threading.Event()
        self.release = threading.Event()

    def _hold(self, method: str) -> None:
        if self.is_called.is_set() and not self.release.is_set():
            self.is_called_at_once.set()
        elif method == self._method and not self.is_called.is_set():
            self.is_called.set()
            self.release.wait(LIMIT_S)

    def has(self, event_id: str, /) -> bool:
        self._hold("has")
        return super().has(event_id)

    def add(self, event_id: str, call: str, revision: int, /) -> None:
        self._hold("add")
        super().add(event_id, call, revision)


class _ThreadedIds:
    """Calls a memory of ids in a thread, as the client does with any but its own one."""

    def __init__(self, ids: MemorySeenIds) -> None:
        self.has, self.revision, self.add = ids.has, ids.revision, ids.add


@pytest.mark.parametrize("method", ["has", "add"])
@pytest.mark.parametrize("replay_since", [None, "first"])
async def test_a_wait_that_is_cancelled_loses_no_event(
    events: Events, method: str, replay_since: Literal["first"] | None
) -> None:
    ids = _HeldIds(method)
    options = {"filter": events.pattern, "replay_since": replay_since, "prefetch": 1, "seen": _ThreadedIds(ids)}
    got: list[str] = []
    async with subscribe(events.url, queue=events.queue, limit=3, **options) as subscribed:  # type: ignore[arg-type]
        await events.publish(1, 2, 3)

        async def consume() -> None:
            while (event := await anext(subscribed, None)) is not None:
                got.append(event.id)

        consuming = asyncio.create_task(consume())
        await asyncio.to_thread(ids.is_called.wait, LIMIT_S)
        consuming.cancel()
        with suppress(asyncio.CancelledError):
            await consuming
        consuming = asyncio.create_task(consume())
        at_once = await asyncio.to_thread(ids.is_called_at_once.wait, 0.1)
        ids.release.set()
        async with asyncio.timeout(LIMIT_S):
            await consuming
    assert got == events.ids
    assert not at_once, "the memory is used by two threads at once"


async def test_a_full_queue_drops_its_oldest_events_to_the_dead_letters_and_refuses_no_publish(events: Events) -> None:
    async with subscribe(events.url, queue=events.queue, filter=events.pattern, max_bytes=20_000):
        pass
    await events.publish(*range(1, 36))  # each is confirmed; so many that the dead letters find room
    dropped: set[str] = set()

    async def all_are_there() -> bool:
        while (message := await events.take(events.dead)) is not None:
            dropped.add(orjson.loads(message.body)["id"])
        return len(dropped) + kept == len(events.ids)

    kept = await events.count(events.queue)
    assert 5 < kept < 35
    await eventually(all_are_there)
    assert dropped == {*events.ids[:-kept]}


async def test_filters_by_pattern_content_and_revision(events: Events) -> None:
    patterns = [f"call.completed.{events.source}.answered", f"call.completed.{events.source}.missed"]
    async with subscribe(
        events.url, queue=events.queue, filter=patterns, where="talk_seconds > 60", only_newer=True, limit=3
    ) as subscribed:
        for number, (talk, revision) in enumerate([(61, 1), (60, 1), (None, 1), (90, 2), (99, 1), (70, 3)]):
            event = call_event(number if number in {0, 1, 2} else 3, source=events.source, revision=revision, talk_seconds=talk)
            await events.send(orjson.dumps(event), outcome="missed" if number == 5 else "answered")
        await events.send(b"not for this queue", outcome="unknown")
        got = [(event.subject, event.revision) async for event in subscribed]
    assert got == [("0", 1), ("3", 2), ("3", 3)]
    async with subscribe(events.url, queue=events.queue, filter=patterns[0], limit=1) as subscribed:
        await events.send(orjson.dumps(call_event(8, source=events.source)), outcome="missed")  # its binding is still there
        await events.send(orjson.dumps(call_event(9, source=events.source)))
        assert [event.subject async for event in subscribed] == ["9"]


async def test_ids_on_disk_let_a_replay_repeat_nothing(events: Events, tmp_path: Path) -> None:
    await events.publish(1, 2, 3)
    with SqliteSeenIds(tmp_path / "seen.sqlite") as seen:
        assert await _all(events, replay_since="first", seen=seen) == events.ids
    await events.publish(4)
    with SqliteSeenIds(tmp_path / "seen.sqlite") as seen:
        assert await _all(events, replay_since="first", seen=seen, limit=1) == [events.ids[3]]


async def test_a_repeated_event_is_acked_and_not_delivered(events: Events) -> None:
    seen = MemorySeenIds()
    async with subscribe(events.url, queue=events.queue, filter=events.pattern, seen=seen, limit=2) as subscribed:
        await events.publish(1)
        await events.publish(1)
        await events.publish(2)
        assert [event.id async for event in subscribed] == [events.ids[0], events.ids[2]]
    assert await events.count(events.queue) == 0


async def test_without_asyncio_it_is_the_same(events: Events) -> None:
    def consume() -> list[str]:
        got = []
        with subscribe_sync(events.url, queue=events.queue, filter=events.pattern) as subscribed:
            for event in subscribed:
                got.append(event.id)
                if len(got) == 3:
                    subscribed.stop()
        subscribed.stop()  # as a late signal does
        return got

    def fail() -> None:
        with subscribe_sync(events.url, queue=events.queue, filter=events.pattern) as subscribed:
            for _ in subscribed:
                raise BodyError

    async with subscribe(events.url, queue=events.queue, filter=events.pattern):
        await events.publish(1, 2, 3)
    with pytest.raises(BodyError):
        await asyncio.to_thread(fail)
    assert await asyncio.to_thread(consume) == events.ids
    assert await events.count(events.queue) == 0


async def test_stop_ends_a_subscription_that_waits(events: Events) -> None:
    async with subscribe(events.url, queue=events.queue, filter=events.pattern) as subscribed:
        asyncio.get_running_loop().call_later(0.05, subscribed.stop)
        assert [event.id async for event in subscribed] == []


async def test_a_queue_with_other_arguments_is_an_error_that_says_what_to_do(events: Events) -> None:
    await events.channel.declare_queue(events.queue, durable=True)
    for options, expected in (
        ({}, QueueConflictError),
        ({"queue": f"{events.source}.none", "declare": False}, SubscriptionError),
    ):
        with pytest.raises(expected) as raised:
            async with subscribe(events.url, **{"queue": events.queue, "filter": events.pattern} | options):  # type: ignore[arg-type]
                pass
        assert "declare=" in str(raised.value)
    await (await events.channel.get_queue(events.queue)).bind("calls", events.pattern)
    await events.publish(1)
    assert await _all(events, declare=False) == events.ids


async def test_no_error_or_log_shows_a_password(events: Events, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    address = events.url.rpartition("@")[2]
    with pytest.raises(RefusedError) as refused:
        await _all(events, f"amqp://guest:open-sesame@{address}")
    with pytest.raises(TransportLostError) as lost:
        await _all(events, f"amqp://guest:open-sesame@127.0.0.1:{free_port()}/", connect_within_s=0.2)
    subscription = subscribe(f"amqp://guest:open-sesame@{address}", queue="q")
    shown = [str(refused.value), repr(refused.value), str(lost.value), repr(subscription), repr(vars(subscription)), caplog.text]
    assert not [text for text in shown if "sesame" in text]
    assert "user or password" in str(refused.value)
