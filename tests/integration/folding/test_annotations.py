"""Annotations through fold and Redis: any order, bounds, tombstones, later uses, and what they must not touch."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from console.annotations.annotate import AnnotationAnswer, Annotations
from console.annotations.bodies import NewAnnotation
from shared.amqp.publisher import Message
from shared.config.live_sources import LiveSources
from shared.domain.annotation import MAX_BODY_BYTES, AnnotationType, annotation_id, body_text
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, RawEvent, TimerEvent, decode, encode, join
from shared.domain.times import milliseconds, rfc3339
from shared.errors import BrokerUnavailableError
from shared.state.bounds import MAX_ANNOTATION_BYTES, MAX_ANNOTATIONS
from shared.state.keys import PLAIN_KEYS, partition
from shared.state.store import Store
from tests.helpers.pace import PACE
from tests.helpers.servers import POLICY, Servers
from worker.folding.fold import Fold

SOURCE = SourceName("default")
KEY = CallKey(SOURCE, CallRef("513"))
T0 = datetime.now(UTC) - timedelta(days=40)


def at(seconds: float) -> str:
    return rfc3339(T0 + timedelta(seconds=seconds))


def pair(begun_s: float = 0, first_call_id: int = 1) -> list[RawEvent]:
    rows = ((0, "API", 0, "pickup"), (3, "Outgoing", 1, "pickup"), (33, "Outgoing", 1, "hangup"), (34, "API", 0, "hangup"))
    return [
        CallbackEvent(SOURCE, at(begun_s + second), f"CallType={kind}&CallID={first_call_id + leg}&Event={event}&RequestID=513")
        for second, kind, leg, event in rows
    ]


def note(seconds: float, key: str, text: str, call: str = "513") -> AnnotationEvent:
    name = annotation_id(SOURCE, call, key)
    return AnnotationEvent(SOURCE, at(seconds), CallRef(call), name, AnnotationType.NOTE, "kasper", body_text({"text": text}))


def _annotations_in(message: Message) -> list[AnnotationEvent]:
    return [event for event in decode(message.body) if isinstance(event, AnnotationEvent)]


class _Site:
    """A worker on Redis, with a RabbitMQ that confirms everything, and consoles that annotate."""

    def __init__(self, store: Store, redis: Redis) -> None:
        self.store, self.redis = store, redis
        self.messages: list[Message] = []
        self.is_broker_up = True
        self.sources = LiveSources.load(None)
        self._fold = Fold(self, store, self.sources, POLICY, holder="a")  # type: ignore[arg-type]

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        self.messages += messages

    async def publish_once(self, messages: Sequence[Message], **_: object) -> list[Message]:
        await self.publish_until_confirmed(messages)
        return []

    async def publish(self, message: Message) -> None:
        if not self.is_broker_up:
            raise BrokerUnavailableError("not connected")
        self.messages.append(message)

    async def fold(self, *events: RawEvent) -> None:
        await self._fold.fold([join(map(encode, events))])

    async def annotate(self, new: NewAnnotation, key: str = "", *, call: str = "513", is_past: bool = False) -> AnnotationAnswer:
        """Annotate a call at a console that was just started."""

        async def past(_: CallKey) -> bool:
            return is_past

        console = Annotations(self.store, self, self.sources, past)  # type: ignore[arg-type]
        return await console.add(CallKey(SOURCE, CallRef(call)), new, "key-1", key)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(message.body) for message in self.messages if message.exchange == "calls"]

    @property
    def sent(self) -> list[Message]:
        return [message for message in self.messages if message.exchange == "callbacks"]

    @property
    def dead(self) -> list[tuple[str, int]]:
        return [
            (str(message.headers["reason"]), len(orjson.loads(message.body)))
            for message in self.messages
            if message.routing_key == "callbacks.dead"
        ]

    def texts(self) -> list[str]:
        """Return the texts of the annotations in the last record."""
        return [each["body"]["text"] for each in self.events[-1]["data"]["annotations"]]

    async def publication(self, call: str, *names: str) -> list[bytes | str | None]:
        key = CallKey(SOURCE, CallRef(call))
        return await self.redis.hmget(PLAIN_KEYS.publication(partition(key), key), list(names))

    async def expire(self, call: str, merged_s: float = 100_000) -> None:
        """Expire the facts of a published call, which changed last at some time."""
        key = CallKey(SOURCE, CallRef(call))
        await self.redis.delete(PLAIN_KEYS.facts(partition(key), key))
        await self.changed_last(call, merged_s)

    async def changed_last(self, call: str, merged_s: float) -> None:
        key = CallKey(SOURCE, CallRef(call))
        await self.redis.hset(PLAIN_KEYS.publication(partition(key), key), "merged_ms", milliseconds(at(merged_s)))


@pytest.fixture
async def site(redis_only: Servers) -> AsyncIterator[_Site]:
    store = Store(redis_only.stack.redis_url)
    async with Redis.from_url(redis_only.stack.redis_url) as redis:
        yield _Site(store, redis)
    await store.aclose()


async def test_in_any_order_and_any_split_the_last_record_is_the_same(site: _Site) -> None:
    records = []
    parts: list[list[RawEvent]] = [pair()[2:], [note(50, "a", "one")], [note(40, "b", "two"), note(70, "a", "one")]]
    for order in itertools.permutations(parts):
        await site.redis.flushdb()
        await site.fold(*pair()[:2])
        for part in order:
            await site.fold(*part)
        data = site.events[-1]["data"]
        records.append(data | {"revision": 0, "annotations": [each | {"at": ""} for each in data["annotations"]]})
        count = len(site.events)
        await site.fold(*pair(), *itertools.chain.from_iterable(order))
        assert len(site.events) == count, "a redelivery publishes nothing"
    assert all(record == records[0] for record in records)
    assert site.texts() == ["two", "one"]
    assert site.dead == []


async def test_a_body_is_not_among_the_facts_and_an_annotation_is_no_sign_of_life(site: _Site) -> None:
    await site.fold(*pair()[:3])
    wake_up = await site.store.open_calls()
    await site.fold(note(39, "0", "x" * 100_000))
    assert await site.store.open_calls() == wake_up
    state = await site.store.read(KEY)
    assert state is not None
    assert sum(map(len, state.facts.values())) < 2000
    await site.changed_last("513", 33)
    before = await site.publication("513", "merged_ms", "legs")
    await site.fold(note(40, "a", "one"))
    assert await site.publication("513", "merged_ms", "legs") == before, "silence goes on, and no leg has come"
    assert site.events == [], "the call is open"
    await site.fold(TimerEvent(SOURCE, rfc3339(datetime.now(UTC)), KEY.call))
    assert [(event["type"], event["data"]["close_reason"]) for event in site.events] == [
        ("callfold.call.completed.v1", "timeout")
    ]
    await site.fold(note(50, "b", "two"))
    assert [event["data"]["close_reason"] for event in site.events] == ["timeout", "timeout"], "it is not open again"
    assert await site.store.open_calls() == {}


async def test_what_a_call_has_no_room_for_is_a_dead_letter_and_callbacks_keep_their_room(site: _Site) -> None:
    await site.fold(*pair()[:2])
    large = [note(number, f"large {number}", "x" * (250 << 10)) for number in range(16)]
    for event in large:
        await site.fold(event)
    assert site.dead == [("too_many_annotations", 1)] * 12
    await site.fold(*large[:4])
    assert len(site.dead) == 12, "a repeat is never refused"
    await site.fold(*(note(number, f"small {number}", "x") for number in range(MAX_ANNOTATIONS)))
    assert site.dead[12:] == [("too_many_annotations", 4)]
    await site.fold(*pair()[2:])
    (published,) = site.events
    assert (published["data"]["outcome"], len(published["data"]["annotations"])) == ("answered", MAX_ANNOTATIONS)
    assert len(orjson.dumps(published)) > 1000 << 10
    bodies, size = await site.publication("513", "bodies", "body_bytes")
    assert (int(bodies or 0), int(size or 0) <= MAX_ANNOTATION_BYTES) == (MAX_ANNOTATIONS, True)


@pytest.mark.volume
async def test_sixteen_annotations_of_256_kib_delay_no_other_call_by_a_second(site: _Site) -> None:
    await site.redis.config_set("slowlog-log-slower-than", 100_000)
    await site.redis.slowlog_reset()
    await site.fold(*pair())
    slowest_s = 0.0
    for number in range(16):
        began = time.monotonic()
        large = note(100 + number, f"large {number}", "x" * (MAX_BODY_BYTES - 20))
        other = [CallbackEvent(SOURCE, at(0), f"CallType=API&CallID=9&Event=missed&RequestID={1000 + number}")]
        await site.fold(large, *other)
        slowest_s = max(slowest_s, time.monotonic() - began)
    assert len([event for event in site.events if event["subject"] != "513"]) == 16
    assert [event["id"] for event in site.events if event["subject"] == "513"] == [f"default/513/{each}" for each in range(1, 6)]
    assert site.dead == [("too_many_annotations", 1)] * 12
    assert slowest_s < PACE
    assert await site.redis.slowlog_get(10) == []


async def test_a_call_with_all_its_legs_is_still_annotated(site: _Site) -> None:
    legs = [CallbackEvent(SOURCE, at(0), f"CallType=API&CallID={leg}&Event=missed&RequestID=513") for leg in range(1, 70)]
    await site.fold(*legs)
    await site.fold(note(50, "a", "one"))
    assert (site.texts(), site.dead) == (["one"], [("too_many_legs", 5)])


async def test_an_annotation_of_an_expired_call_is_a_dead_letter_and_never_begins_a_new_call(site: _Site) -> None:
    await site.fold(*pair())
    await site.fold(*pair(7200, 71))
    assert [event["id"] for event in site.events] == ["default/513/1", "default/513.2/1"]
    for call in ("513", "513.2"):
        await site.fold(note(100_000, "a", call, call))
        assert site.events[-1]["id"] == f"default/{call}/2"
        assert site.texts() == [call]
    await site.expire("513.2")
    await site.fold(note(100_001, "b", "late", "513.2"))
    assert site.dead == [("expired_call", 1)], "the first use has its facts"
    await site.expire("513")
    late = [note(200_000, "c", "late", "513"), note(200_000, "c", "late", "513.2")]
    await site.fold(*late)
    await site.fold(*late, *pair(300_000, 91))
    assert site.dead[1:] == [("expired_call", 1)] * 4
    assert [event["id"] for event in site.events[4:]] == ["default/513.3/1"]
    assert site.texts() == []


async def test_calls_without_request_id_are_annotated_by_their_call_id_and_its_later_use(site: _Site) -> None:
    for seconds, call in ((0.0, "call-77"), (20_000.0, "call-77.2")):
        events = [
            CallbackEvent(SOURCE, at(seconds + second), f"CallType=Incoming&CallID=77&Event={event}")
            for second, event in ((0, "pickup"), (30, "hangup"))
        ]
        await site.fold(*events)
        await site.fold(note(seconds + 40, "a", call, call), *events)
        assert (site.events[-1]["id"], site.texts()) == (f"default/{call}/2", [call])
    assert (len(site.events), site.dead) == (4, [])


async def test_an_annotation_that_arrives_before_its_call_waits_for_it(site: _Site) -> None:
    await site.fold(note(40, "a", "one"), note(41, "b", "two", "513.2"))
    await site.fold(TimerEvent(SOURCE, rfc3339(datetime.now(UTC)), KEY.call))
    assert site.events == []
    await site.fold(*pair())
    await site.fold(*pair(7200, 71))
    first, second = site.events
    assert [each["body"]["text"] for each in first["data"]["annotations"]] == ["one"]
    assert [each["body"]["text"] for each in second["data"]["annotations"]] == ["two"]


async def test_a_repeat_on_another_console_and_after_a_restart_is_the_same_annotation(site: _Site) -> None:
    await site.fold(*pair())
    new = NewAnnotation(AnnotationType.NOTE, {"text": "one"})
    first, second = await site.annotate(new, "key"), await site.annotate(new, "key")
    assert (first.status, first.annotation) == (202, second.annotation)
    assert first.annotation
    assert first.annotation["id"] == annotation_id(SOURCE, "513", "key")
    await site.redis.delete(f"callfold:note:annotation/{first.annotation['id']}")
    third = await site.annotate(new, "key")
    assert third.annotation
    assert third.annotation["id"] == first.annotation["id"]
    for message in site.sent:
        await site.fold(*_annotations_in(message))
    assert site.events[-1]["data"]["annotations"] == [
        {"id": first.annotation["id"], "type": "note", "at": first.annotation["at"], "by": "key-1", "body": {"text": "one"}}
    ]
    count = len(site.sent)
    assert (await site.annotate(new, "key")).annotation == first.annotation
    assert len(site.sent) == count, "the fold has it, so nothing is published"
    other = replace(new, body={"text": "two"})
    assert (await site.annotate(other, "key")).status == 422
    assert (await site.annotate(other, "key 2")).status == 202
    assert (await site.annotate(other, "key 2", call="514")).status == 404
    assert (await site.annotate(new, "key 2")).status == 422, "not folded yet"
    one, two = await site.annotate(new), await site.annotate(new)
    assert one.annotation
    assert two.annotation
    assert one.annotation["id"] != two.annotation["id"], "without a key"


async def test_a_console_says_why_a_call_takes_no_annotation(site: _Site) -> None:
    new = NewAnnotation(AnnotationType.NOTE, {"text": "one"}, "kasper")
    assert (await site.annotate(new)).status == 404
    past = await site.annotate(new, is_past=True)
    assert (past.status, "expired from Redis" in past.title) == (410, True)
    await site.fold(*pair())
    large = NewAnnotation(AnnotationType.TRANSCRIPT, {"text": "x" * MAX_BODY_BYTES})
    too_large = await site.annotate(large)
    assert (too_large.status, "256 KiB" in too_large.title) == (413, True)
    site.is_broker_up = False
    with pytest.raises(BrokerUnavailableError):
        await site.annotate(new, "key")
    site.is_broker_up = True
    assert (await site.annotate(new, "key")).status == 202
    await site.fold(*(note(number, f"{number}", "x") for number in range(MAX_ANNOTATIONS)))
    full = await site.annotate(new)
    assert (full.status, "32 annotations" in full.title) == (409, True)
    await site.expire("513")
    with suppress(BrokerUnavailableError):
        assert (await site.annotate(new)).status == 410
