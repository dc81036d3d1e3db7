"""The shared reader of timelines, on a journal in memory: passes, what is kept of them, and a journal that was replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from console.lookup import timeline_reader
from console.lookup.timeline import Timeline
from console.lookup.timeline_reader import Timelines
from shared.config.settings import Settings
from shared.domain.adapter_link import Adapter
from shared.domain.call import Call, derive
from shared.domain.facts import facts_of
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.times import rfc3339
from shared.errors import CallfoldError
from tests.helpers.folding import PLACEHOLDERS, SOURCE
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import POLICY

ADAPTER = Adapter(PLACEHOLDERS)
_BEGAN = datetime.now(UTC) - timedelta(minutes=2)


def _event(call: int, name: str, *, after_s: float = 0, request_id: str | None = None) -> CallbackEvent:
    query = f"CallType=API&Event={name}&CallID={call}1&RequestID={request_id or call}"
    return CallbackEvent(SOURCE, rfc3339(_BEGAN + timedelta(seconds=after_s)), query)


def _call(*events: CallbackEvent) -> Call:
    rows = [facts_of(event, ADAPTER) for event in events]
    return derive(rows[0][0], {name: value for _, facts in rows for name, value in facts}, POLICY)


@dataclass(frozen=True, slots=True)
class _Delivery:
    offset: int
    body: bytes


@dataclass(slots=True)
class _Journal:
    """Remembers where each pass began."""

    events: list[CallbackEvent] = field(default_factory=list)
    passes: list[object] = field(default_factory=list)
    problem: str | None = None
    stops_after: int | None = None
    has_stopped: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def until_now(self, _: Settings, since: object, **__: object) -> AsyncIterator[AsyncIterator[_Delivery]]:
        await asyncio.sleep(0)
        self.passes.append(since)
        if self.problem:
            raise ExceptionGroup("a task group's", [CallfoldError(self.problem)])
        yield self._deliveries(since if isinstance(since, int) else 0)

    async def _deliveries(self, first: int) -> AsyncIterator[_Delivery]:
        for offset in range(first, len(self.events)):
            if self.stops_after == offset:
                self.has_stopped.set()
                await asyncio.Event().wait()
            yield _Delivery(offset, join([encode(self.events[offset])]))


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> _Journal:
    made = _Journal()
    monkeypatch.setattr(timeline_reader, "journal_until_now", made.until_now)
    return made


@pytest.fixture
def timelines(monkeypatch: pytest.MonkeyPatch) -> Timelines:
    monkeypatch.setattr(timeline_reader, "_RECENT", timedelta(days=1))  # this module was imported at the begin of the run
    return Timelines(cast("Settings", None))


def _names(timeline: Timeline) -> Sequence[str]:
    assert timeline.is_whole, timeline.problem
    return [row["event"] for row in timeline.rows]


async def test_all_who_wait_share_a_pass(journal: _Journal, timelines: Timelines) -> None:
    pickups = [_event(call, "pickup") for call in range(1, 9)]
    journal.events = [event for pickup in pickups for event in (pickup, _event(int(pickup.query[-1]), "hangup"))]
    calls = [_call(pickup) for pickup in (*pickups, *pickups)]
    found = await asyncio.gather(*(timelines.read(ADAPTER, call) for call in calls))
    assert [_names(timeline) for timeline in found] == [["pickup", "hangup"]] * 16
    assert len(journal.passes) == 2, "the first search began at once, alone"


async def test_the_next_look_up_reads_only_what_came_since_and_shows_it(journal: _Journal, timelines: Timelines) -> None:
    pickup, hangup = _event(513, "pickup"), _event(513, "hangup", after_s=9)
    journal.events = [pickup, _event(514, "pickup")]
    assert _names(await timelines.read(ADAPTER, _call(pickup))) == ["pickup"]
    assert _names(await timelines.read(ADAPTER, _call(pickup))) == ["pickup"]
    journal.events.append(hangup)
    assert _names(await timelines.read(ADAPTER, _call(pickup))) == ["pickup", "hangup"], "it is in the journal, not in Redis yet"
    journal.events.append(_event(514, "hangup"))
    assert _names(await timelines.read(ADAPTER, _call(pickup, hangup))) == ["pickup", "hangup"]
    assert journal.passes[1:] == [1, 1, 2]


async def test_a_journal_that_was_replaced_is_read_from_its_begin(journal: _Journal, timelines: Timelines) -> None:
    pickup, hangup = _event(513, "pickup"), _event(513, "hangup")
    journal.events = [_event(1, "pickup"), _event(2, "pickup"), pickup]
    assert _names(await timelines.read(ADAPTER, _call(pickup))) == ["pickup"]
    for replaced in ([pickup, hangup], [_event(3, "pickup"), pickup, hangup, _event(4, "pickup")]):
        journal.events = replaced
        assert _names(await timelines.read(ADAPTER, _call(pickup))) == ["pickup", "hangup"]
        assert isinstance(journal.passes[-1], datetime)


async def test_another_adapter_or_an_earlier_event_is_a_new_search(journal: _Journal, timelines: Timelines) -> None:
    pickup, earlier = _event(513, "pickup"), _event(513, "start", after_s=-30)
    journal.events = [earlier, pickup]
    await timelines.read(ADAPTER, _call(pickup))
    await timelines.read(Adapter(PLACEHOLDERS | {"More": "CallerName"}), _call(pickup))
    await timelines.read(ADAPTER, _call(pickup))
    await timelines.read(ADAPTER, _call(pickup, earlier))
    assert all(isinstance(since, datetime) for since in journal.passes)
    assert len(journal.passes) == 4


async def test_a_failure_is_reported_to_all_and_nothing_is_kept_of_it(journal: _Journal, timelines: Timelines) -> None:
    pickup = _event(513, "pickup")
    journal.events, journal.problem = [pickup], "RabbitMQ cannot be reached."
    found = await asyncio.gather(*(timelines.read(ADAPTER, _call(pickup)) for _ in range(4)))
    assert {timeline.problem for timeline in found} == {"RabbitMQ cannot be reached."}
    assert len(journal.passes) == 2
    journal.problem = None
    assert _names(await timelines.read(ADAPTER, _call(pickup))) == ["pickup"]


async def test_a_look_up_that_is_cancelled_leaves_the_others_a_pass_from_the_begin(
    journal: _Journal, timelines: Timelines
) -> None:
    pickups = [_event(call, "pickup") for call in (1, 2, 3)]
    journal.events = [*pickups]
    journal.stops_after = 2
    async with timelines._locks[timeline_reader._Lane.RECENT]:
        tasks = [asyncio.create_task(timelines.read(ADAPTER, _call(pickup))) for pickup in (*pickups, pickups[1])]
        async with asyncio.timeout(LIMIT_S):
            while len(timelines._waiting[timeline_reader._Lane.RECENT]) < len(tasks):
                await asyncio.sleep(0)
    first, *others = tasks
    await journal.has_stopped.wait()
    first.cancel()
    journal.stops_after = None
    found = await asyncio.gather(*others)
    assert [_names(timeline) for timeline in found] == [["pickup"]] * 3
    assert len(journal.passes) == 2


async def test_an_event_is_found_however_its_request_id_is_written(journal: _Journal, timelines: Timelines) -> None:
    written = ("513", "%3513", "000513", "5%31%33", "%35%31%33")
    journal.events = [_event(513, "pickup", request_id=each) for each in written]
    assert len(_names(await timelines.read(ADAPTER, _call(_event(513, "pickup"))))) == len(written)


async def test_what_is_kept_has_a_limit(journal: _Journal, timelines: Timelines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_reader, "_MAX_KEPT_CHARACTERS", 1000)
    pickups = [_event(call, "pickup") for call in range(1, 30)]
    journal.events = [*pickups]
    for pickup in pickups:
        await timelines.read(ADAPTER, _call(pickup))
    assert 1 <= len(timelines._kept) <= 12
    assert sum(kept.size for kept in timelines._kept.values()) <= 1000
