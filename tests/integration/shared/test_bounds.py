"""Calls are bounded: too many legs or bytes are refused event by event, and what one call accumulates costs the others nothing."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress

import orjson
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from console.ignored_values import unreplaced_problem
from shared.amqp.publisher import Message
from shared.config.live_sources import LiveSources
from shared.config.sources import load_sources
from shared.domain.facts import Fact
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent, TimerEvent, decode, encode, join
from shared.errors import StoreUnavailableError
from shared.state.bounds import MAX_LEGS
from shared.state.keys import PLAIN_KEYS, partition
from shared.state.pbx_clocks import PbxClockNote
from shared.state.store import Store
from shared.state.stored_call import Claim, Merged, Publication
from tests.helpers.servers import POLICY, Servers
from worker.folding.batch import read_batch
from worker.folding.fold import Fold
from worker.folding.merging import Merging
from worker.folding.pbx_clocks import PbxClocks

SOURCE = SourceName("default")
KEY = CallKey(SOURCE, CallRef("7"))
AT = "2026-11-23T07:44:00.000000Z"


@pytest.fixture
async def store(redis_only: Servers) -> AsyncIterator[Store]:
    store = Store(redis_only.stack.redis_url)
    yield store
    await store.aclose()


@pytest.fixture
async def redis(redis_only: Servers) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_only.stack.redis_url) as redis:
        yield redis


def _event(leg: int, event: str = "pickup", *more: Fact) -> list[Fact]:
    return [(f"leg:Outgoing:{leg}:{event}", AT), *((f"leg:Outgoing:{leg}:{name}", value) for name, value in more)]


async def test_legs_beyond_the_bound_are_refused_as_a_whole_and_known_legs_go_on(store: Store) -> None:
    events = [_event(leg, "pickup", ("guid", f"g{leg}")) for leg in range(MAX_LEGS + 2)]
    merged = await store.merge({KEY: events})
    assert merged.refused == {KEY: [MAX_LEGS, MAX_LEGS + 1]}
    kept = {name for event in events[:MAX_LEGS] for name, _ in event}
    assert set(merged.calls[KEY].facts) == kept
    again = await store.merge({KEY: [events[-1], _event(0, "hangup"), [("dial", AT)], [(">clock", AT)], events[-2], events[3]]})
    assert again.refused == {KEY: [0, 4]}, "a repeat is decided as the first time"
    assert set(again.calls[KEY].facts) == kept | {"leg:Outgoing:0:hangup", "dial", ">clock"}


async def test_a_call_without_room_is_not_returned_if_all_its_events_are_refused(store: Store) -> None:
    other = CallKey(SOURCE, CallRef("8"))
    await store.merge({KEY: [_event(leg) for leg in range(MAX_LEGS)]})
    merged = await store.merge({KEY: [_event(100), _event(101), _event(100, "hangup")], other: [_event(1)]})
    assert (merged.refused, list(merged.calls)) == ({KEY: [0, 1, 2]}, [other])
    assert len((await store.merge({KEY: []})).calls[KEY].facts) == MAX_LEGS


async def test_which_legs_are_kept_is_decided_by_the_order_of_arrival_and_then_stays(store: Store) -> None:
    legs = list(range(3 * MAX_LEGS))
    random.Random(1).shuffle(legs)  # noqa: S311 - repeatable on purpose
    for first in range(0, len(legs), 7):
        await store.merge({KEY: [_event(leg) for leg in legs[first : first + 7]]})
    merged = await store.merge({KEY: [_event(leg, event) for leg in legs for event in ("pickup", "hangup")]})
    assert set(merged.calls[KEY].facts) == {f"leg:Outgoing:{leg}:{e}" for leg in legs[:MAX_LEGS] for e in ("pickup", "hangup")}
    assert len(merged.refused[KEY]) == 4 * MAX_LEGS


async def test_long_values_leave_room_for_fewer_legs_and_known_legs_end_at_a_higher_bound(store: Store) -> None:
    value = "x" * (60 << 10)
    first = await store.merge({KEY: [_event(leg, "start", ("f.start.A", value)) for leg in range(7)]})
    assert first.refused == {KEY: [5, 6]}
    ends = [_event(leg % 5, event, (f"f.{event}.{leg}", value)) for leg in range(25) for event in ("hangup",)]
    second = await store.merge({KEY: ends})
    assert second.refused[KEY][0] in {12, 13}
    repeat = await store.merge({KEY: ends[:5]})
    assert (repeat.refused, len(repeat.calls)) == ({}, 1), "a repeat of what was merged is never refused"
    assert (await store.merge({KEY: [[(">clock", AT)]]})).calls[KEY].facts[">clock"] == AT


async def test_a_call_of_an_earlier_version_is_counted_once_and_a_huge_one_is_not_read(store: Store, redis: Redis) -> None:
    await store.merge({KEY: [_event(leg) for leg in range(MAX_LEGS - 1)]})
    place = PLAIN_KEYS.publication(partition(KEY), KEY)
    await redis.hdel(place, "legs")
    assert (await store.merge({KEY: [_event(100), _event(101)]})).refused == {KEY: [1]}
    assert await redis.hget(place, "legs") == str(MAX_LEGS).encode()
    await redis.hset(PLAIN_KEYS.facts(partition(KEY), KEY), mapping={f"leg:API:{leg}:start": AT for leg in range(70_000)})
    for count in ("64", None):
        if count is None:
            await redis.hdel(place, "legs")
        merged = await store.merge({KEY: [_event(0, "hangup"), [(">clock", AT)]]})
        assert (merged.refused, merged.calls) == ({KEY: [0, 1]}, {})


async def test_a_tombstone_stays_one_whatever_it_counted(store: Store, redis: Redis) -> None:
    await store.merge({KEY: [_event(leg) for leg in range(MAX_LEGS)]})
    await redis.hset(PLAIN_KEYS.publication(partition(KEY), KEY), mapping={"state": "published", "revision": 1})
    await redis.delete(PLAIN_KEYS.facts(partition(KEY), KEY))
    merged = await store.merge({KEY: [_event(200)]})
    assert (merged.refused, merged.calls[KEY].state) == ({}, "tombstone")


class _Confirming:
    """A publisher that RabbitMQ always confirms."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        self.messages += messages

    async def publish_once(self, messages: Sequence[Message], **_: object) -> list[Message]:
        await self.publish_until_confirmed(messages)
        return []


def _callbacks(legs: range, event: str, request_id: int = 7) -> list[RawEvent]:
    return [CallbackEvent(SOURCE, AT, f"CallType=Outgoing&CallID={leg}&Event={event}&RequestID={request_id}") for leg in legs]


async def test_the_fold_dead_letters_each_refused_callback_once_and_publishes_the_others(store: Store) -> None:
    publisher = _Confirming()
    fold = Fold(publisher, store, LiveSources.load(None), POLICY, holder="a")  # type: ignore[arg-type]
    await fold.fold([join(map(encode, _callbacks(range(MAX_LEGS + 700), "start")))])
    dial: list[RawEvent] = [DialEvent(SOURCE, AT, 7, {"reference": "r"}), TimerEvent(SOURCE, AT, KEY.call)]
    good = [
        CallbackEvent(SOURCE, AT, f"CallType={side}&CallID={leg}&Event={event}&RequestID=8")
        for side, leg in (("API", 1), ("Outgoing", 2))
        for event in ("pickup", "hangup")
    ]
    await fold.fold([join(map(encode, [*dial, *_callbacks(range(2), "hangup"), *_callbacks(range(900, 902), "start"), *good]))])
    facts = (await store.read_facts([KEY]))[KEY]
    assert {"dial.reference", ">clock", "leg:Outgoing:1:hangup"} <= set(facts)
    assert [message.message_id for message in publisher.messages if message.exchange == "calls"] == [f"{SOURCE}/8/1"]
    dead = [message for message in publisher.messages if message.routing_key == "callbacks.dead"]
    assert {message.headers["reason"] for message in dead} == {"too_many_legs"}
    assert [len(orjson.loads(message.body)) for message in dead] == [500, 200, 2]
    refused = [event for message in dead for event in decode(message.body)]
    assert refused == [*_callbacks(range(MAX_LEGS, MAX_LEGS + 700), "start"), *_callbacks(range(900, 902), "start")]
    ((call, at),) = [(note.call, note.at) for note in await store.refused_legs.of([SOURCE, SourceName("other")])]
    assert (call, at) == (KEY, AT)


async def test_the_fold_notes_placeholders_that_arrive_unreplaced_and_completes_the_call(store: Store) -> None:
    publisher = _Confirming()
    fold = Fold(publisher, store, LiveSources.load(None), POLICY, holder="a")  # type: ignore[arg-type]
    line = "CallType=API&CallID=1&Event=missed&RequestID=8&Guid={{CallUUID}}&LastQueueName=%7B%7BLastQueueName%7D%7D"
    later = "2026-11-23T08:00:00.000000Z"
    await fold.fold(
        [join([encode(CallbackEvent(SOURCE, AT, line)), encode(CallbackEvent(SOURCE, later, line.replace("=8", "=9")))])]
    )
    calls = [message.message_id for message in publisher.messages if message.exchange == "calls"]
    assert sorted(calls) == [f"{SOURCE}/8/1", f"{SOURCE}/9/1"]
    notes = await store.unreplaced.of([SOURCE, SourceName("other")], AT)
    last = CallKey(SOURCE, CallRef("9"))
    assert [(note.call, note.placeholder, note.at) for note in notes] == [
        (last, "CallUUID", later),
        (last, "LastQueueName", later),
    ]
    assert await store.unreplaced.of([SOURCE], "2026-11-23T08:00:00.000001Z") == []
    (problem,) = await find_unreplaced_since(store, AT)
    assert (
        "{{CallUUID}} (parameter Guid), {{LastQueueName}} arrived unreplaced, last in call default/9 at 2026-11-23T08" in problem
    )
    labels = {"source": SOURCE, "placeholder": "CallUUID"}
    assert (REGISTRY.get_sample_value("callfold_placeholders_unreplaced_total", labels) or 0) >= 2
    assert (REGISTRY.get_sample_value("callfold_ignored_values_total", labels | {"reason": "placeholder"}) or 0) >= 2


async def test_what_several_sources_show_is_noted_in_one_round_trip_each(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [SourceName(name) for name in "abc"]
    source = load_sources(None)[SOURCE]
    publisher = _Confirming()
    fold = Fold(publisher, store, LiveSources(dict.fromkeys(names, source)), POLICY, holder="a", pbx_clocks=PbxClocks())  # type: ignore[arg-type]
    round_trips: list[str] = []
    execute, execute_command = Pipeline.execute, Redis.execute_command

    async def counted(pipe: Pipeline, *options: bool) -> list[object]:
        round_trips.append(str(pipe.command_stack))
        return await execute(pipe, *options)

    async def counted_command(redis: Redis, *args: object, **options: object) -> object:
        round_trips.append(str(args))
        return await execute_command(redis, *args, **options)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Pipeline, "execute", counted)
    monkeypatch.setattr(Redis, "execute_command", counted_command)
    end = "&Guid={{CallUUID}}&EndTimestampUTC=1795419840000"
    lines = [f"CallType=Outgoing&CallID={leg}&Event=missed&RequestID=7{end}" for leg in range(MAX_LEGS + 1)]
    await fold.fold([join([encode(CallbackEvent(name, AT, line)) for line in lines]) for name in names])
    notes = ("callfold:unreplaced", "callfold:pbx_clock:", "callfold:refused_legs")
    assert [sum(note in commands for commands in round_trips) for note in notes] == [1, 1, 1]
    assert {note.call.source for note in await store.unreplaced.of(names, AT)} == set(names)
    assert {note.call.source for note in await store.refused_legs.of(names)} == set(names)
    assert await store.pbx_clocks.of(names) == dict.fromkeys(names, PbxClockNote(0.0, AT))


async def find_unreplaced_since(store: Store, since: str) -> list[str]:
    sources = load_sources(None)
    return [unreplaced_problem(sources[SOURCE], await store.unreplaced.of(sources, since)).detail]


async def test_a_redriven_dead_letter_is_refused_again_and_changes_nothing(store: Store) -> None:
    publisher = _Confirming()
    fold = Fold(publisher, store, LiveSources.load(None), POLICY, holder="a")  # type: ignore[arg-type]
    await fold.fold([join(map(encode, _callbacks(range(MAX_LEGS + 3), "start")))])
    (dead,) = publisher.messages
    before = (await store.merge({KEY: []})).calls[KEY]
    await fold.fold([dead.body])
    assert [message.body for message in publisher.messages] == [dead.body] * 2
    assert (await store.merge({KEY: []})).calls[KEY] == before


class _SlowStore:
    """A Redis that does not answer in time if it is sent more than a few calls at once."""

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self.sizes: list[int] = []

    async def merge(self, events: dict[CallKey, list[list[Fact]]], *, begins: object) -> Merged:
        assert begins is None
        self.sizes.append(len(events))
        if len(events) > self.at_most:
            raise StoreUnavailableError("Redis did not answer in time")
        return Merged({}, {key: [0] for key in events})


async def test_a_merge_that_redis_does_not_answer_in_time_is_sent_again_in_halves() -> None:
    store = _SlowStore(30)
    events = {CallKey(SOURCE, CallRef(str(number))): [_event(1)] for number in range(100)}
    merging = Merging(store, events)  # type: ignore[arg-type]
    merged = None
    while merged is None:
        with suppress(StoreUnavailableError):
            merged = await merging.step()
    assert set(merged.refused) == set(events)
    assert store.sizes == [100, 50, 25, 25, 50, 25, 25]


async def test_large_calls_that_end_together_are_published_a_few_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one source could block the worker for a minute, or fill its memory with outboxes."""
    count, claimed = 12, []
    calls = [CallKey(SOURCE, CallRef(str(call))) for call in range(1, count + 1)]
    legs = [[("leg:API:1:pickup", AT)], _event(1, "pickup", ("field.note", "x" * 400_000))]
    await store.merge(dict.fromkeys(calls, legs))
    claim = store.claim

    async def noted(publications: dict[CallKey, Publication], *, holder: str) -> dict[CallKey, tuple[Claim, bytes]]:
        claimed.append(len(publications))
        return await claim(publications, holder=holder)

    monkeypatch.setattr(store, "claim", noted)
    publisher = _Confirming()
    fold = Fold(publisher, store, LiveSources.load(None), POLICY, holder="a")  # type: ignore[arg-type]
    ends = [
        CallbackEvent(SOURCE, AT, f"CallType={side}&CallID=1&Event={event}&RequestID={key.call}")
        for key in calls
        for side, event in (("API", "hangup"), ("Outgoing", "hangup"))
    ]
    await fold.fold([join(map(encode, ends))])
    assert claimed == [3] * 4
    published = [message.message_id for message in publisher.messages if message.exchange == "calls"]
    assert sorted(published) == sorted(f"{SOURCE}/{key.call}/1" for key in calls)


async def test_a_message_of_very_many_events_is_folded_in_pieces(store: Store) -> None:
    publisher = _Confirming()
    fold = Fold(publisher, store, LiveSources.load(None), POLICY, holder="a")  # type: ignore[arg-type]
    events = [event for call in range(1, 12_001) for event in _callbacks(range(1), "pickup", call)]
    await fold.fold([join(map(encode, events))])
    assert len(await store.open_calls()) == 12_000
    batch = read_batch(events, load_sources(None))
    assert [len(piece) for piece in batch.pieces(5000)] == [5000, 5000, 2000]
