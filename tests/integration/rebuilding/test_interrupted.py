"""A rebuild that is cut short, repeated, or overtaken by another loss; and calls that began long before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest

from shared.config.sources import DEFAULT_SOURCE
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent
from shared.domain.times import rfc3339
from shared.errors import BusyError, CallfoldError, StateMovedError, leaf_errors
from shared.rebuild import replay
from shared.retention.recording_lock import Lock
from shared.state.stored_position import PartitionState
from tests.helpers.folding import T0
from tests.helpers.lost_state import World, rebuilt
from worker.rebuilding import progress, rebuilder

DAY = 86_400.0
POINTS = ("rebuild.fenced", "rebuild.published_read", "rebuild.replayed", "rebuild.decided", "rebuild.finished")


def callback(seconds: float, kind: str, call_id: int, event: str, *, request_id: int = 513, guid: int = 1) -> RawEvent:
    at = rfc3339(T0 - timedelta(days=60) + timedelta(seconds=seconds))
    query = f"CallType={kind}&CallID={call_id}&Event={event}&RequestID={request_id}&Guid={guid:08x}-0000-4000-8000-{call_id:012x}"
    return CallbackEvent(DEFAULT_SOURCE, at, query)


def pair(begun_s: float, request_id: int = 513, guid: int = 1) -> list[RawEvent]:
    return [
        callback(begun_s, "API", 11, "pickup", request_id=request_id, guid=guid),
        callback(begun_s + 3, "Outgoing", 12, "pickup", request_id=request_id, guid=guid),
        callback(begun_s + 33, "Outgoing", 12, "hangup", request_id=request_id, guid=guid),
        callback(begun_s + 34, "API", 11, "hangup", request_id=request_id, guid=guid),
    ]


class _Died(Exception):  # noqa: N818 - it stands for `kill -9`
    """The worker was killed."""


def dying_at(point: str) -> Callable[[str], None]:
    def crash_point(name: str) -> None:
        if name == point:
            raise _Died

    return crash_point


@pytest.mark.parametrize("point", POINTS)
async def test_a_rebuild_that_is_cut_short_anywhere_is_repeated(
    worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    world, _ = worlds
    for number in range(4):
        await world.fold(pair(10.0 * number, 600 + number))
    await world.fold(pair(60, 700)[:3])
    before = await world.facts()
    await world.redis.flushdb()
    await world.store.fence()
    await world.fold(pair(60, 700)[3:])
    with monkeypatch.context() as patch:
        for module in (rebuilder, replay):
            patch.setattr(module, "crash_point", dying_at(point))
        with pytest.raises((_Died, ExceptionGroup)) as death:
            await world.rebuild()
    causes = leaf_errors(death.value) if isinstance(death.value, ExceptionGroup) else [death.value]
    assert isinstance(causes[0], _Died)
    await world.rebuild()
    await world.drain()
    assert {name: facts for name, facts in (await world.facts()).items() if "/700" not in name} == {
        name: facts for name, facts in before.items() if "/700" not in name
    }
    await world.close_all()
    assert [event["id"] for event in world.events()] == [f"default/{call}/1" for call in (600, 601, 602, 603, 700)]


async def test_a_rebuild_without_its_lock_does_not_finish(worlds: tuple[World, World]) -> None:
    world, _ = worlds
    await world.fold(pair(0))
    await world.redis.flushdb()
    await world.store.fence()

    async def lose_lock() -> None:
        await world.redis.delete("callfold:lock:rebuild")

    world.journals.on_read = lose_lock
    assert isinstance(await failure(world), BusyError)
    assert set((await world.store.partitions.waiting()).values()) == {PartitionState.REBUILDING}
    world.journals.on_read = None
    await rebuilt(world)
    assert [event["id"] for event in world.events()] == ["default/513/1"]


async def test_what_is_lost_again_just_before_the_end_is_not_ready(
    worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = worlds
    await world.fold(pair(0))
    await world.redis.flushdb()
    await world.store.fence()

    async def lose_again(_: Lock) -> None:
        await world.redis.flushdb()
        await world.store.fence()

    with monkeypatch.context() as patch:
        patch.setattr(Lock, "confirm", lose_again)
        assert isinstance(await failure(world), StateMovedError)
    assert set((await world.store.partitions.waiting()).values()) == {PartitionState.REBUILDING}
    await rebuilt(world)
    await world.fold(pair(0))
    assert [event["id"] for event in world.events()] == ["default/513/1"]


async def test_a_rebuild_of_what_is_lost_again_does_not_read_on(
    worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = worlds
    for number in range(8):
        await world.fold(pair(10.0 * number, 600 + number))
    await world.redis.flushdb()
    await world.store.fence()

    async def lose_again() -> None:
        if world.journals.reads == 1:
            await world.redis.flushdb()
            await world.store.fence()

    world.journals.on_read = lose_again
    with monkeypatch.context() as patch:
        patch.setattr(progress, "_NOTE_S", 0)
        patch.setattr(Lock, "confirm", AsyncMock())
        patch.setattr(replay.Replay, "run", AsyncMock(side_effect=AssertionError("it was read to its end")))
        assert isinstance(await failure(world), StateMovedError)
    world.journals.on_read = None
    await rebuilt(world)
    await world.drain()
    await world.close_all()
    assert [event["id"] for event in world.events()] == [f"default/{600 + number}/1" for number in range(8)]


async def test_one_rebuild_takes_all_partitions_that_a_loss_concerns(worlds: tuple[World, World]) -> None:
    world, _ = worlds
    for number in range(8):
        await world.fold(pair(10.0 * number, 600 + number))
    await world.redis.flushdb()
    await world.store.fence([3])  # as a worker that is in the middle of a fence
    await world.rebuild()
    states = await world.store.partitions.waiting()
    assert PartitionState.REBUILDING not in states.values()
    await world.drain()
    for number in range(8):
        await world.fold(pair(10.0 * number, 600 + number))
    assert len(world.events()) == 8


async def failure(world: World) -> CallfoldError:
    """Return why a rebuild could not be finished."""
    try:
        await world.rebuild()
    except CallfoldError as error:
        return error
    except ExceptionGroup as group:
        cause = leaf_errors(group)[0]
        assert isinstance(cause, CallfoldError)
        return cause
    raise AssertionError("it was finished")


async def test_a_call_that_began_long_before_is_rebuilt_whole(worlds: tuple[World, World]) -> None:
    world, _ = worlds
    agent, dialed, *_ = pair(0)
    await world.fold([agent, dialed])
    for minutes in (50, 100, 150):
        await world.fold([callback(60 * minutes, "Outgoing", 20 + minutes, "pickup")])
        await world.fold([callback(60 * minutes + 1, "Outgoing", 20 + minutes, "hangup")])
    before: dict[str, Any] = await world.facts()
    await world.redis.flushdb()
    await rebuilt(world)
    assert {name: facts for name, facts in (await world.facts()).items() if b">clock" not in facts} == {
        name: {field: value for field, value in facts.items() if field != b">clock"} for name, facts in before.items()
    }


async def test_a_request_id_that_was_used_twice_before_the_window_is_the_third_call(worlds: tuple[World, World]) -> None:
    world, _ = worlds
    for use, begun_s in enumerate((0.0, 3 * DAY), start=1):
        await world.fold(pair(begun_s, guid=use))
    await world.fold(pair(6 * DAY, 600, guid=9))
    await world.redis.flushdb()
    await rebuilt(world)
    at = rfc3339(T0 - timedelta(days=60) + timedelta(seconds=6 * DAY + 99))
    await world.fold([DialEvent(DEFAULT_SOURCE, at, 513, {"reference": "third"})])
    await world.fold(pair(6 * DAY + 100, guid=3))
    assert world.dead == []
    assert [event["id"] for event in world.events()] == [f"default/{call}/1" for call in ("513", "513.2", "600", "513.3")]
    assert world.records()["513.3"]["reference"] == "third"


async def test_a_call_with_the_call_ids_of_an_earlier_one_is_restored_with_its_facts(worlds: tuple[World, World]) -> None:
    world, _ = worlds
    await world.fold([callback(0, "API", 11, "missed", guid=1)])
    await world.fold(pair(3 * DAY, guid=2))
    await world.redis.flushdb()
    await rebuilt(world)
    await world.fold(pair(3 * DAY, guid=2))
    assert ([event["id"] for event in world.events()], world.dead) == (["default/513/1", "default/513.2/1"], [])


async def test_a_journal_that_lost_its_beginning_gives_a_tombstone_and_no_wrong_call(worlds: tuple[World, World]) -> None:
    world, _ = worlds
    for event in pair(0):
        await world.fold([event])
    await world.redis.flushdb()
    world.journals.truncate(T0 - timedelta(days=60) + timedelta(seconds=20))
    await rebuilt(world)
    assert await world.facts() == {}
    await world.close_all()
    await world.fold(pair(0)[3:])
    assert ([event["id"] for event in world.events()], world.dead) == (["default/513/1"], ["expired_call"])


async def test_a_journal_that_cannot_be_read_to_its_end_concludes_nothing(worlds: tuple[World, World]) -> None:
    world, _ = worlds
    await world.fold(pair(0))
    await world.redis.flushdb()
    await world.store.fence()

    async def break_off() -> None:
        if world.journals.reads > 1:
            raise CallfoldError("callbacks.journal could not be read to its end")

    world.journals.on_read = break_off
    with suppress(CallfoldError, ExceptionGroup):
        await world.rebuild()
    assert set((await world.store.partitions.waiting()).values()) == {PartitionState.REBUILDING}
    world.journals.on_read = None
    await rebuilt(world)
    await world.fold(pair(0))
    assert [event["id"] for event in world.events()] == ["default/513/1"]
