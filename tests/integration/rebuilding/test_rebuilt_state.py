"""Whatever Redis loses, and whatever arrives while it is rebuilt: the calls are as if nothing was lost."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.config.sources import DEFAULT_SOURCE
from shared.domain.annotation import AnnotationType, annotation_id
from shared.domain.ids import CallKey, CallRef
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, DialEvent, RawEvent
from shared.domain.times import rfc3339
from shared.state.keys import PARTITIONS, partition
from tests.helpers.folding import T0
from tests.helpers.lost_state import MAX_CALL_S, Snapshot, World, rebuilt
from tests.helpers.volume import sizes

HOUR, DAY = 3600.0, 86_400.0
PAIR = ((0, "API", 11, "pickup"), (3, "Outgoing", 12, "pickup"), (33, "Outgoing", 12, "hangup"), (34, "API", 11, "hangup"))


def at(seconds: float) -> str:
    return rfc3339(T0 - timedelta(days=60) + timedelta(seconds=seconds))


def call(rng: random.Random, begun_s: float, request_id: int | None, use: int) -> list[tuple[float, RawEvent]]:
    """Return the events of a call, some of them lost, late or sent twice."""
    leg_of = {11: 11 + 10 * use, 12: 12 + 10 * use} if rng.random() < 0.5 else {11: 11, 12: 12}
    rows: list[tuple[float, RawEvent]] = []
    if request_id is not None and rng.random() < 0.3:
        rows.append((begun_s - 1, DialEvent(DEFAULT_SOURCE, at(begun_s - 1), request_id, {"reference": f"r{use}"})))
    for second, kind, number, event in PAIR if request_id is not None else PAIR[:1] + PAIR[3:]:
        if rng.random() < 0.1:
            continue
        of = "" if request_id is None else f"&RequestID={request_id}"
        call_id = leg_of[number] if request_id is not None else number
        query = f"CallType={kind}&CallID={call_id}&Event={event}{of}&Guid={use:08x}-0000-4000-8000-{number:012x}"
        arrives_s = begun_s + second + (rng.choice((0, 0, 0, 200, MAX_CALL_S / 2)) if rng.random() < 0.2 else 0)
        rows += [(arrives_s, CallbackEvent(DEFAULT_SOURCE, at(arrives_s), query))] * (1 + (rng.random() < 0.1))
    return rows


def annotation(seconds: float, call: str, key: int) -> AnnotationEvent:
    """Return one of a few annotations of a call. The same one can arrive several times."""
    name = annotation_id(DEFAULT_SOURCE, call, str(key))
    return AnnotationEvent(DEFAULT_SOURCE, at(seconds), CallRef(call), name, AnnotationType.NOTE, "kasper", f'{{"text":"{key}"}}')


def annotated(rng: random.Random, messages: list[list[RawEvent]]) -> list[list[RawEvent]]:
    """Add annotations of the calls that the callbacks of a message name, a little later than these. RequestIDs begin a first use."""
    seen: dict[str, str] = {}
    with_annotations: list[list[RawEvent]] = []
    for message in messages:
        more: list[RawEvent] = []
        for event in message:
            call = event.query.partition("RequestID=")[2][:3] if isinstance(event, CallbackEvent) else ""
            if call and seen.setdefault(call, event.received_at[:10]) == event.received_at[:10] and rng.random() < 0.3:
                more.append(replace(annotation(0, call, rng.randrange(3)), received_at=event.received_at))
        with_annotations.append([*message, *more])
    return with_annotations


def history(rng: random.Random) -> list[list[RawEvent]]:
    """Return messages of some days, in the order of arrival. RequestIDs and CallIDs are used again."""
    rows: list[tuple[float, RawEvent]] = []
    for number in range(rng.randrange(3, 9)):
        request_id = None if rng.random() < 0.15 else 513 + rng.randrange(6)
        begun_s = rng.choice((0, 2 * DAY, 4 * DAY, 4 * DAY + 600)) + rng.randrange(2000)
        rows += call(rng, begun_s, request_id, number)
    rows.sort(key=lambda row: row[0])
    messages: list[list[RawEvent]] = []
    while rows:
        size = rng.randrange(1, 4)
        messages.append([event for _, event in rows[:size]])
        rows = rows[size:]
    return annotated(random.Random(len(messages)), messages)  # noqa: S311 - the other events stay the same


@pytest.mark.parametrize("has_proofs", [True, False])
async def test_an_emptied_redis_is_rebuilt_with_the_same_facts(worlds: tuple[World, World], has_proofs: bool) -> None:  # noqa: FBT001
    world, _ = worlds
    world.has_proofs = has_proofs
    rng = random.Random(3)  # noqa: S311 - repeatable on purpose
    for number in range(20):
        for _, event in call(rng, 60.0 * number, 600 + number, number):
            await world.fold([event])
    before, summaries, events = await world.facts(), await world.summaries(), len(world.events())
    assert events > 10
    await world.redis.flushdb()
    await rebuilt(world)
    assert (await world.facts(), await world.summaries()) == (before, summaries)
    began, finished = world.rebuilds[-2:]
    assert began == ("began", {"partitions": PARTITIONS})
    assert (finished[0], finished[1]["partitions"], finished[1]["calls"]) == ("finished", PARTITIONS, 20)
    await world.close_all()
    world.assert_one_body_an_id()


@pytest.mark.parametrize("rounds", sizes(5, 400))
async def test_calls_are_as_if_nothing_was_lost(worlds: tuple[World, World], rounds: int) -> None:
    lossy, intact = worlds
    seed = 0
    for seed in range(rounds):
        rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
        for world in worlds:
            await world.redis.flushdb()
            world.reset()
        lossy.has_proofs = seed % 2 == 0  # events of an earlier release have none
        messages = history(rng)
        snapshot_at, lost_at = sorted(rng.randrange(len(messages) + 1) for _ in range(2))
        during, snapshot = rng.randrange(3), Snapshot()
        for number, message in enumerate(messages):
            await intact.fold(message)
            if number == snapshot_at:
                snapshot = await lossy.dump()
            if number == lost_at:
                await lose(lossy, rng, snapshot)
            await lossy.fold(message)
            if number == lost_at + during or (number > lost_at and rng.random() < 0.3):
                await rebuilt(lossy)
        await rebuilt(lossy)
        for world in worlds:
            await world.close_all()
            world.assert_one_body_an_id()
        assert differences(lossy, intact) == {}, f"seed {seed}"
        assert sorted(lossy.dead) == sorted(intact.dead), f"seed {seed}"


async def test_an_old_call_that_was_annotated_lately_is_replayed_from_its_beginning(worlds: tuple[World, World]) -> None:
    world, _ = worlds
    for begun_s, request_id in ((0.0, 513), (3.0 * HOUR, 514), (DAY, 515)):
        for second, kind, number, event in PAIR:
            query = f"CallType={kind}&CallID={request_id}{number}&Event={event}&RequestID={request_id}"
            await world.fold([CallbackEvent(DEFAULT_SOURCE, at(begun_s + second), query)])
    await world.fold([annotation(DAY + 60, "513", 1)])
    before = {key: facts for key, facts in (await world.facts()).items() if "514" not in key}
    await world.redis.flushdb()
    await rebuilt(world)
    assert await world.facts() == before, "514 had no event lately, and is only known as published"
    await world.fold([annotation(DAY + 90, "513", 2), annotation(DAY + 90, "514", 2)])
    assert [each["body"]["text"] for each in world.records()["513"]["annotations"]] == ["1", "2"]
    assert (world.dead, world.records()["514"]["annotations"]) == (["expired_call"], [])
    world.assert_one_body_an_id()


@pytest.mark.parametrize("lost", [("513",), ("513.2",), ("513", "513.2")])
async def test_annotations_of_a_later_use_come_back_with_it(worlds: tuple[World, World], lost: tuple[str, ...]) -> None:
    world, _ = worlds
    for begun_s, first_leg in ((0.0, 10), (2 * HOUR, 70)):
        for second, kind, number, event in PAIR:
            query = f"CallType={kind}&CallID={first_leg + number}&Event={event}&RequestID=513"
            await world.fold([CallbackEvent(DEFAULT_SOURCE, at(begun_s + second), query)])
    for call, text in (("513", 1), ("513.2", 2)):
        await world.fold([annotation(2 * HOUR + 60, call, text)])
    before, summaries = await world.facts(), await world.summaries()
    for call in lost:
        await world.lose_partition(partition(CallKey(DEFAULT_SOURCE, CallRef(call))))
    await rebuilt(world)
    assert (await world.facts(), await world.summaries()) == (before, summaries)
    for call, text in (("513", 3), ("513.2", 4)):
        await world.fold([annotation(2 * HOUR + 90, call, text)])
    texts = {call: [each["body"]["text"] for each in record["annotations"]] for call, record in world.records().items()}
    assert texts == {"513": ["1", "3"], "513.2": ["2", "4"]}
    assert [event["id"] for event in world.events()][-2:] == ["default/513/3", "default/513.2/3"]
    assert world.dead == []


def differences(lossy: World, intact: World) -> dict[str, object]:
    """Return what differs between the last records of each call."""
    rows = {name: (lossy.records().get(name), intact.records().get(name)) for name in {**lossy.records(), **intact.records()}}
    return {
        name: {field: (one[field], other[field]) for field in one if one[field] != other[field]}
        if one and other
        else (one, other)
        for name, (one, other) in rows.items()
        if one != other
    }


async def lose(world: World, rng: random.Random, snapshot: Snapshot) -> None:
    kind = rng.randrange(3)
    if kind == 0:
        await world.redis.flushdb()
    elif kind == 1:
        await world.load(snapshot)
    else:
        for number in rng.sample(range(16), rng.randrange(1, 9)):
            await world.lose_partition(number)


def test_the_calls_of_a_history_are_in_several_partitions() -> None:
    assert len({partition(CallKey(DEFAULT_SOURCE, CallRef(name))) for name in ("513", "513.2", "514", "514.2")}) > 1
