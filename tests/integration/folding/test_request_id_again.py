"""A RequestID that is used again after a reset of the PBX is a new call, in any order of arrival and also after the old one has expired."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from redis.asyncio import Redis

from shared.amqp.publisher import Message
from shared.config.live_sources import LiveSources
from shared.config.sources import load_sources
from shared.domain.call import derive
from shared.domain.call_event import call_record
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef, SourceName, later_use
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent, TimerEvent, encode, join
from shared.domain.times import rfc3339
from shared.rebuild.later_uses import merge_later_uses, redirect
from shared.state.keys import PLAIN_KEYS, partition
from shared.state.store import Store
from tests.helpers.servers import POLICY, Servers
from worker.folding.fold import Fold

SOURCE = SourceName("default")
HOUR, DAY = 3600.0, 86_400.0
GUID = "00000009-0000-0000-0000-000000000077"
T0 = datetime.now(UTC) - timedelta(days=40)
PAIR = ((0, "API", 1, "pickup"), (3, "Outgoing", 2, "pickup"), (33, "Outgoing", 2, "hangup"), (34, "API", 1, "hangup"))


def at(seconds: float) -> str:
    return rfc3339(T0 + timedelta(seconds=seconds))


def pair(begun_s: float, first_call_id: int, request_id: int = 513) -> list[RawEvent]:
    """Return the callbacks of a call that both answered."""
    return [
        CallbackEvent(
            SOURCE, at(begun_s + second), f"CallType={kind}&CallID={first_call_id + leg}&Event={event}&RequestID={request_id}"
        )
        for second, kind, leg, event in PAIR
    ]


def reset_pair(begun_s: float, use: int, request_id: int = 513) -> list[CallbackEvent]:
    """Return the callbacks of a call with the CallIDs 11 and 12, and with GUIDs of its own."""
    guids = {number: f"&Guid={use:08x}-0000-0000-0000-{number:012x}" for number in (11, 12)}
    events = [event for event in pair(begun_s, 10, request_id) if isinstance(event, CallbackEvent)]
    return [replace(event, query=event.query + guids[11 if "CallID=11" in event.query else 12]) for event in events]


class _Site:
    """Folds of several workers on one Redis, with a RabbitMQ that confirms everything."""

    def __init__(self, store: Store, redis: Redis) -> None:
        self.store, self.redis = store, redis
        self.messages: list[Message] = []
        self._folds = [Fold(self, store, LiveSources.load(None), POLICY, holder=name) for name in "ab"]  # type: ignore[arg-type]

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        self.messages += messages

    async def publish_once(self, messages: Sequence[Message], **_: object) -> list[Message]:
        await self.publish_until_confirmed(messages)
        return []

    async def fold(self, events: Sequence[RawEvent], worker: int = 0) -> None:
        await self._folds[worker].fold([join(map(encode, events))])

    @property
    def ids(self) -> list[str]:
        return [message.message_id for message in self.messages if message.exchange == "calls"]

    @property
    def dead(self) -> list[str]:
        return [str(message.headers["reason"]) for message in self.messages if message.routing_key == "callbacks.dead"]

    def calls(self) -> dict[str, dict[str, object]]:
        """Return the last record of each call, without its revision."""
        records = {}
        for message in self.messages:
            if message.exchange == "calls":
                event = orjson.loads(message.body)
                records[event["subject"]] = event["data"] | {"revision": None}
        return records

    async def derived(self, request_id: int) -> dict[str, dict[str, object]]:
        """Derive the calls of a RequestID from their facts in Redis."""
        keys = [CallKey(SOURCE, later_use(str(request_id), number)) for number in range(1, 5)]
        facts = await self.store.read_facts(keys)
        return {
            key.call.replace(str(request_id), "513"): {**call_record(derive(key, facts[key], POLICY), 0), "request_id": 513}
            for key in keys
            if facts[key]
        }

    async def expire(self, call: str, *, published_s: float) -> None:
        """Expire the facts of a published call, whose tombstone was made at some time."""
        key = CallKey(SOURCE, CallRef(call))
        await self.redis.delete(PLAIN_KEYS.facts(partition(key), key))
        merged_ms = round((T0.timestamp() + published_s) * 1000)
        await self.redis.hset(PLAIN_KEYS.publication(partition(key), key), "merged_ms", merged_ms)


@pytest.fixture
async def site(redis_only: Servers) -> AsyncIterator[_Site]:
    store = Store(redis_only.stack.redis_url)
    async with Redis.from_url(redis_only.stack.redis_url) as redis:
        yield _Site(store, redis)
    await store.aclose()


def _legs(record: dict[str, object]) -> list[str]:
    legs = [record["agent"], record["dialed"], *record["other_legs"]]  # type: ignore[misc]
    return [leg["call_id"] for leg in legs if isinstance(leg, dict)]


@pytest.mark.parametrize("later_s", [2 * HOUR, 9 * HOUR, 3 * DAY])
async def test_a_request_id_used_again_is_a_new_call_and_not_further_legs_of_the_old_one(site: _Site, later_s: float) -> None:
    await site.fold(pair(0, 10))
    for event in pair(later_s, 70):
        await site.fold([event])
    assert site.ids == ["default/513/1", "default/513.2/1"]
    first, second = site.calls().values()
    assert (_legs(first), _legs(second)) == (["11", "12"], ["71", "72"])
    assert (second["request_id"], second["talk_seconds"], second["started_at"]) == (513, 30, at(later_s))
    await site.fold(pair(2 * later_s, 90))
    assert site.ids[2:] == ["default/513.3/1"]
    await site.fold([*pair(0, 10), *pair(later_s, 70)])
    assert (site.ids[3:], site.dead) == ([], []), "repeats change nothing"


async def test_a_dial_begins_the_next_use_and_each_call_has_its_own(site: _Site) -> None:
    for begun_s, reference in ((0.0, "z-first"), (DAY, "a-second")):
        await site.fold([DialEvent(SOURCE, at(begun_s - 1), 513, {"reference": reference}), *pair(begun_s, 10 + int(begun_s))])
    assert site.ids == ["default/513/1", "default/513.2/1"]
    assert [call["reference"] for call in site.calls().values()] == ["z-first", "a-second"]


async def test_a_dial_alone_waits_as_a_call_of_its_own_and_its_timer_closes_it(site: _Site) -> None:
    await site.fold(pair(0, 10))
    await site.fold([DialEvent(SOURCE, at(DAY), 513, {"reference": "r"})])
    key = CallKey(SOURCE, CallRef("513.2"))
    assert key in await site.store.open_calls()
    await site.fold([TimerEvent(SOURCE, rfc3339(datetime.now(UTC)), key.call)])
    assert key in await site.store.open_calls(), "silence counts from the merge"
    facts = (await site.store.read_facts([key]))[key]
    assert ">clock" in facts


@pytest.mark.parametrize(
    "events",
    [
        [*pair(0, 10)[:2], CallbackEvent(SOURCE, at(6 * HOUR), "CallType=API&CallID=11&Event=hangup&RequestID=513")],
        [*pair(0, 10)[:3], CallbackEvent(SOURCE, at(3 * HOUR), "CallType=Outgoing&CallID=13&Event=pickup&RequestID=513")],
        [*pair(0, 10), *pair(1800, 20)],
    ],
)
async def test_a_long_call_a_late_transfer_and_late_callbacks_are_not_split(site: _Site, events: list[RawEvent]) -> None:
    for event in events:
        await site.fold([event])
    key = CallKey(SOURCE, CallRef("513.2"))
    assert await site.store.read(key) is None
    assert {id_.split("/")[1] for id_ in site.ids} <= {"513"}


async def test_any_order_and_any_split_over_workers_gives_the_same_calls(site: _Site) -> None:
    rng = random.Random(4)  # noqa: S311 - repeatable on purpose
    late = CallbackEvent(SOURCE, at(9.5 * HOUR), "CallType=API&CallID=11&Event=missed&RequestID=513")
    expected: dict[str, dict[str, object]] = {}
    for round_ in range(12):
        request_id = 600 + round_
        events = [
            DialEvent(SOURCE, at(-1), request_id, {"reference": "b"}),
            *pair(0, 10, request_id),
            DialEvent(SOURCE, at(9 * HOUR - 1), request_id, {"reference": "a"}),
            *pair(9 * HOUR, 70, request_id),
            *pair(3 * DAY, 90, request_id),
            CallbackEvent(SOURCE, late.received_at, late.query.replace("513", str(request_id))),
        ]
        order = events if round_ == 0 else rng.sample([*events, *rng.sample(events, 5)], len(events) + 5)
        while order:
            size = rng.randrange(1, 6)
            await site.fold(order[:size], worker=rng.randrange(2))
            order = order[size:]
        calls = await site.derived(request_id)
        expected = expected or calls
        assert sorted(calls) == ["513", "513.2", "513.3"]
        assert calls == expected
        published = {name for name, call in site.calls().items() if call["request_id"] == request_id}
        assert published == {name.replace("513", str(request_id)) for name in calls}
    assert site.dead == []


async def test_after_the_old_call_has_expired_a_new_leg_is_a_new_call_and_a_late_callback_of_an_old_leg_is_not(
    site: _Site,
) -> None:
    await site.fold(pair(0, 10))
    await site.expire("513", published_s=40)
    late = CallbackEvent(SOURCE, at(9 * DAY), "CallType=API&CallID=11&Event=missed&RequestID=513")
    await site.fold([late])
    assert (site.ids, site.dead) == (["default/513/1"], ["expired_call"])
    events = pair(9 * DAY, 70)
    await site.fold(events[:1])
    await site.fold(events)
    assert (site.ids[1:], site.dead[1:]) == (["default/513.2/1"], [])
    assert _legs(site.calls()["513.2"]) == ["71", "72"]
    await site.fold(pair(10 * DAY, 90), worker=1)
    assert site.ids[2:] == ["default/513.3/1"], "while the second has facts, they tell the third apart"
    for number in ("513.2", "513.3"):
        await site.expire(number, published_s=10 * DAY)
    await site.fold([*pair(30 * DAY, 110), late, *pair(9 * DAY, 70)[2:]])
    assert (site.ids[3:], site.dead[1:]) == (["default/513.4/1"], ["expired_call"] * 3)
    key = CallKey(SOURCE, CallRef("513"))
    assert await site.redis.hget(PLAIN_KEYS.publication(partition(key), key), "uses") == b"4"


async def test_a_call_id_used_again_is_a_new_call_and_a_repeated_callback_is_not(site: _Site) -> None:
    lines = [f"CallType=Incoming&CallID=77&Event={event}&CallerID=%2B45{{}}" for event in ("start", "pickup", "hangup")]
    for begun_s, caller in ((0.0, "9"), (3 * DAY, "1"), (4 * DAY, "5")):
        for second, line in enumerate(lines):
            event = CallbackEvent(SOURCE, at(begun_s + second), line.format(caller))
            await site.fold([event], worker=second % 2)
            await site.fold([event, replace(event, received_at=at(begun_s + second + HOUR))])
    assert site.ids == ["default/call-77/1", "default/call-77.2/1", "default/call-77.3/1"]
    callers = [call["fields"]["CallerID"] for call in site.calls().values()]  # type: ignore[index]
    assert (callers, site.dead) == (["+459", "+451", "+455"], [])
    backlog = [CallbackEvent(SOURCE, at(day * DAY), lines[0].format(day).replace("77", "79")) for day in (0, 5, 9)]
    backlog += [replace(event, query=event.query.replace("start", "hangup")) for event in backlog]
    await site.fold(backlog)
    assert {key for key in await site.store.open_calls() if "79" in key.call} == {
        CallKey(SOURCE, CallRef(f"call-79{use}")) for use in ("", ".2", ".3")
    }, "also in one batch"
    long = [CallbackEvent(SOURCE, at(hours * HOUR), lines[number].replace("77", "78")) for number, hours in ((1, 0), (2, 9))]
    for event in long:
        await site.fold([event])
    assert site.ids[3:] == ["default/call-78/1"], "it lasted nine hours"


async def test_behind_a_tombstone_a_backlog_of_two_uses_takes_no_late_callback_of_the_old_one(site: _Site) -> None:
    old = reset_pair(0, 1)
    await site.fold(old)
    await site.expire("513", published_s=40)
    late = replace(old[-1], received_at=at(25 * DAY + 60))
    await site.fold([*reset_pair(20 * DAY, 2), *reset_pair(25 * DAY, 3), late])
    assert (site.ids[1:], site.dead) == (["default/513.2/1", "default/513.3/1"], ["expired_call"])
    agents = [call["agent"] for call in site.calls().values()]
    assert [agent["guid"][:8] for agent in agents] == [f"0000000{use}" for use in (1, 2, 3)]  # type: ignore[index]


async def test_behind_a_tombstone_each_use_of_a_call_id_without_guid_is_a_new_call(site: _Site) -> None:
    lines = [f"CallType=Incoming&CallID=77&Event={event}" for event in ("start", "pickup", "hangup")]
    days = (0, 9, 12, 30, 35)
    uses = [[CallbackEvent(SOURCE, at(day * DAY + second), line) for second, line in enumerate(lines)] for day in days]
    await site.fold(uses[0])
    await site.expire("call-77", published_s=40)
    for event in (*uses[1], *uses[2]):
        await site.fold([event])
    assert site.ids[1:] == ["default/call-77.2/1", "default/call-77.3/1"]
    for number, day in (("call-77.2", 9), ("call-77.3", 12)):
        await site.expire(number, published_s=day * DAY)
    await site.fold([*uses[3], *uses[4], replace(uses[0][2], received_at=at(12 * DAY + 60))])
    assert (site.ids[3:], site.dead) == (["default/call-77.4/1", "default/call-77.5/1"], ["expired_call"])
    assert [call["talk_seconds"] for call in site.calls().values()] == [1] * 5


async def test_a_new_leg_soon_after_a_call_that_has_expired_is_late_and_not_new(site: _Site) -> None:
    await site.fold(pair(0, 10))
    await site.expire("513", published_s=40)
    await site.fold([CallbackEvent(SOURCE, at(1800), "CallType=Outgoing&CallID=99&Event=missed&RequestID=513")])
    assert (site.ids, site.dead) == (["default/513/1"], ["expired_call"])


async def test_a_request_id_used_again_with_the_same_call_ids_is_a_new_call_by_its_guids(site: _Site) -> None:
    rng = random.Random(14)  # noqa: S311 - repeatable on purpose
    uses = [reset_pair(2 * DAY * (3 - use), use) for use in (1, 2, 3)][::-1]  # the smallest GUIDs come last
    for events in uses:
        await site.fold(events[:1])
        await site.fold([*events[1:], *events], worker=1)
    assert (site.ids, site.dead) == (["default/513/1", "default/513.2/1", "default/513.3/1"], [])
    calls = site.calls()
    assert [_legs(call) for call in calls.values()] == [["11", "12"]] * 3
    assert [(call["started_at"], call["talk_seconds"]) for call in calls.values()] == [(at(day * DAY), 30) for day in (0, 2, 4)]
    assert [call["agent"]["guid"][:8] for call in calls.values()] == ["00000003", "00000002", "00000001"]  # type: ignore[index]
    repeats = [replace(event, received_at=at(9 * DAY)) for event in pair(0, 10) if isinstance(event, CallbackEvent)]
    await site.fold([*(event for use in uses for event in use), *repeats])
    assert (len(site.ids), site.dead) == (3, []), "repeats change nothing, also those without a GUID"
    for round_ in range(4):
        request_id = 700 + round_
        events = [event for use in uses for event in use]
        events = [replace(each, query=each.query.replace("=513", f"={request_id}")) for each in events]
        await site.fold(events if round_ == 0 else rng.sample(events, len(events)), worker=round_ % 2)
        derived = await site.derived(request_id)
        assert derived == {name: call | {"revision": 0} for name, call in calls.items()}


def without_guid(event: CallbackEvent) -> CallbackEvent:
    return replace(event, query=event.query.partition("&Guid=")[0] + "&Guid=null")


async def test_a_hangup_without_guid_in_a_batch_of_its_own_ends_the_call_of_its_time(site: _Site) -> None:
    await site.fold(reset_pair(0, 1))
    for event in reset_pair(3 * DAY, 2):
        await site.fold([without_guid(event) if "hangup" in event.query else event])
    assert (site.ids, site.dead) == (["default/513/1", "default/513.2/1"], [])
    assert [(call["outcome"], call["talk_seconds"]) for call in site.calls().values()] == [("answered", 30)] * 2


@pytest.mark.parametrize("size", [1, 4, 8])
async def test_a_guid_shows_a_new_call_also_if_the_old_one_had_none(site: _Site, size: int) -> None:
    events = [*pair(0, 10), *reset_pair(3 * DAY, 2)]
    for begin in range(0, len(events), size):
        await site.fold(events[begin : begin + size])
    assert (site.ids, site.dead) == (["default/513/1", "default/513.2/1"], [])
    first, second = site.calls().values()
    assert [call["talk_seconds"] for call in (first, second)] == [30, 30]
    assert (first["agent"]["guid"], second["agent"]["guid"][:8]) == (None, "00000002")  # type: ignore[index]
    long = CallbackEvent(SOURCE, at(9 * HOUR), "CallType=API&CallID=77&Event=pickup&RequestID=514")
    await site.fold([long])
    await site.fold([replace(reset_pair(19 * HOUR, 3, 514)[3], query=long.query.replace("pickup", "hangup") + f"&Guid={GUID}")])
    assert await site.store.read(CallKey(SOURCE, CallRef("514.2"))) is None, "it lasted ten hours"


async def test_the_same_events_in_any_batches_give_the_same_calls_with_and_without_guids(site: _Site) -> None:
    rng = random.Random(21)  # noqa: S311 - repeatable on purpose
    several = 0
    for round_ in range(8):
        expected: dict[str, dict[str, object]] = {}
        events = [event for use in (1, 2, 3) for event in reset_pair(2 * DAY * use, 4 - use, 800)]
        events = [without_guid(event) if rng.random() < 0.5 else event for event in events]
        for split in range(4):
            request_id = 800 + 4 * round_ + split
            order = [replace(event, query=event.query.replace("=800", f"={request_id}")) for event in events]
            while order:
                size = (len(order), 1, 2)[split] if split < 3 else rng.randrange(1, 5)
                await site.fold(order[:size], worker=rng.randrange(2))
                order = order[size:]
            calls = await site.derived(request_id)
            expected = expected or calls
            assert calls == expected, [event.query for event in events]
        several += len(expected) > 1
    assert several >= 4, "the GUIDs that are left mostly show a new use"


async def test_a_rebuild_separates_events_without_guid_in_any_parts(site: _Site) -> None:
    adapter = load_sources(None)[SOURCE].adapter
    key = CallKey(SOURCE, CallRef("513"))
    events = [*reset_pair(0, 1), *(without_guid(each) if "hangup" in each.query else each for each in reset_pair(3 * DAY, 2))]
    for event in events:
        await redirect(site.store, {key: [facts_of(event, adapter)[1]]}, POLICY.max_call_s)
    replayed = (await site.store.merge({key: []})).calls
    await merge_later_uses(site.store, replayed, {}, POLICY.max_call_s)
    assert [call["talk_seconds"] for call in (await site.derived(513)).values()] == [30, 30]


async def test_behind_a_tombstone_a_hangup_without_guid_ends_the_call_of_its_time(site: _Site) -> None:
    await site.fold(reset_pair(0, 1))
    await site.expire("513", published_s=40)
    for use, day in ((2, 9), (3, 12)):
        for event in reset_pair(day * DAY, use):
            await site.fold([without_guid(event) if "hangup" in event.query else event])
    assert (site.ids[1:], site.dead) == (["default/513.2/1", "default/513.3/1"], [])
    await site.expire("513.2", published_s=9 * DAY)
    await site.expire("513.3", published_s=12 * DAY)
    for event in reset_pair(20 * DAY, 4):
        await site.fold([without_guid(event) if "hangup" in event.query else event])
    assert (site.ids[3:], site.dead) == (["default/513.4/1"], [])
    assert [call["talk_seconds"] for call in site.calls().values()] == [30] * 4


async def test_a_rebuild_separates_uses_with_the_same_call_ids(site: _Site) -> None:
    adapter = load_sources(None)[SOURCE].adapter
    key = CallKey(SOURCE, CallRef("513"))
    events = [facts_of(event, adapter)[1] for use in (1, 2) for event in reset_pair(use * DAY, use)]
    for part in (events[:6], events[6:]):
        await redirect(site.store, {key: part}, POLICY.max_call_s)
    replayed = (await site.store.merge({key: []})).calls
    later = await merge_later_uses(site.store, replayed, {}, POLICY.max_call_s)
    assert ([each.call for each in later.calls], later.moved) == (["513.2"], {})
    calls = await site.derived(513)
    assert [(_legs(call), call["started_at"], call["talk_seconds"]) for call in calls.values()] == [
        (["11", "12"], at(use * DAY), 30) for use in (1, 2)
    ]


async def test_behind_a_tombstone_other_guids_show_that_the_same_call_ids_are_a_new_call(site: _Site) -> None:
    old, new = reset_pair(0, 1), reset_pair(9 * DAY, 2)
    await site.fold(old)
    await site.expire("513", published_s=40)
    for event in new:
        await site.fold([event])
    assert (site.ids[1:], site.dead) == (["default/513.2/1"], [])
    assert _legs(site.calls()["513.2"]) == ["11", "12"]
    await site.fold([replace(old[-1], received_at=at(9 * DAY))])
    assert (site.ids[2:], site.dead) == ([], ["expired_call"]), "a late callback of the old call"
    for event in [*new, *reset_pair(12 * DAY, 3), *reset_pair(12 * DAY, 3)]:
        await site.fold([event])
    assert (site.ids[2:], site.dead[1:]) == (["default/513.3/1"], [])
    assert site.calls()["513.3"]["agent"]["guid"][:8] == "00000003"  # type: ignore[index]


async def test_what_an_earlier_release_merged_into_the_first_use_reaches_the_later_one_with_its_timer(site: _Site) -> None:
    events = pair(DAY, 70)
    await site.fold(pair(0, 10))
    await site.fold(events[:2])
    first, second = (CallKey(SOURCE, later_use("513", number)) for number in (1, 2))
    adapter = load_sources(None)[SOURCE].adapter
    await site.store.merge({first: [facts_of(event, adapter)[1] for event in events[2:]]})
    await site.fold([TimerEvent(SOURCE, rfc3339(datetime.now(UTC)), second.call)])
    assert (site.ids, site.dead) == (["default/513/1", "default/513.2/1"], [])
    assert (site.calls()["513.2"]["outcome"], _legs(site.calls()["513.2"])) == ("answered", ["71", "72"])
