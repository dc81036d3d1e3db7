"""Large calls take long: a record masks each value once, and the console handles them while others have their turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from console.call_query import CallQuery
from console.live.monitor import Monitor
from console.lookup import detail
from console.lookup.redis_calls import RedisCalls
from console.lookup.timeline import Timeline
from console.lookup.timeline_reader import Timelines
from shared.archive.storage import Archive
from shared.config.live_sources import LiveSources
from shared.config.sources import DEFAULT_SOURCE, load_sources
from shared.domain import call_event
from shared.domain.call import derive
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef
from shared.domain.raw_event import CallbackEvent
from shared.state.store import Store
from shared.state.stored_call import PublicationState, StoredCall
from tests.helpers.folding import ADAPTER, SOURCE
from tests.helpers.servers import POLICY

_LEGS = 5
_AT = "2026-11-23T07:44:00.123456Z"


def _facts(characters: int) -> tuple[CallKey, dict[str, str]]:
    query = f"CallType=Outgoing&Event=pickup&RequestID=7&CallerID={'1' * characters}&CallID="
    found = [facts_of(CallbackEvent(SOURCE, _AT, f"{query}{leg}"), ADAPTER) for leg in range(_LEGS)]
    return found[0][0], {name: value for _, facts in found for name, value in facts}


class _Mask:
    """Masks nothing, and remembers the names of the values and in which threads it ran."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, name: str, value: str) -> str:
        self.names.append(name)
        self.threads.add(threading.current_thread())
        return value


def test_a_record_masks_each_value_that_it_has_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = _Mask()
    monkeypatch.setattr(call_event, "mask_value", mask)
    key, facts = _facts(100)
    assert call_event.call_record(derive(key, facts, POLICY), 1)["fields"] == {"CallerID": "1" * 100}
    assert mask.names == ["CallerID"]


@pytest.mark.parametrize(("characters", "is_beside"), [(100, False), (8000, True)])
async def test_a_large_call_is_masked_beside_others(monkeypatch: pytest.MonkeyPatch, characters: int, is_beside: bool) -> None:  # noqa: FBT001
    mask = _Mask()
    monkeypatch.setattr(call_event, "mask_value", mask)
    monkeypatch.setattr(detail, "mask_value", mask)
    key, facts = _facts(characters)

    async def read(*_: object) -> Timeline:
        return Timeline([], is_whole=True)

    shown = await detail.detail_of(
        cast("Timelines", SimpleNamespace(read=read)),
        cast("Archive", None),  # not asked for a call that was not published
        load_sources(None)[DEFAULT_SOURCE],
        derive(key, facts, POLICY),
        StoredCall(facts, 0, PublicationState.NONE, "", "1", None),
        {},
    )
    assert len(shown.legs) == _LEGS
    assert (threading.main_thread() not in mask.threads) == is_beside


@contextmanager
def _counting_turns() -> Iterator[list[None]]:
    """Count the turns that others have during the body."""
    turns: list[None] = []

    async def count() -> None:
        while True:
            await asyncio.sleep(0)
            turns.append(None)

    counting = asyncio.create_task(count())
    yield turns
    counting.cancel()


KEYS = [CallKey(SOURCE, CallRef(str(number))) for number in range(9)]


async def test_between_the_open_calls_of_the_live_page_others_have_their_turn() -> None:
    _, facts = _facts(100)

    async def open_starts() -> list[tuple[int, str]]:
        return [(0, str(key)) for key in KEYS]

    async def read_facts(_: object) -> dict[CallKey, dict[str, str]]:
        return dict.fromkeys(KEYS, facts)

    async def waiting() -> dict[int, object]:
        return {}

    store = SimpleNamespace(open_starts=open_starts, read_facts=read_facts, partitions=SimpleNamespace(waiting=waiting))
    here = SimpleNamespace(_store=store, _policy=POLICY)
    with _counting_turns() as turns:
        calls, _ = await Monitor._open_calls(cast("Monitor", here), [])
    assert len(calls) == len(KEYS)
    assert len(turns) >= len(KEYS) - 1


async def test_between_the_large_calls_of_a_search_others_have_their_turn() -> None:
    state = StoredCall(_facts(8000)[1], 0, PublicationState.NONE, "", "1", None)

    async def newest(*_: object) -> tuple[list[tuple[CallKey, int]], bool]:
        return [(key, 0) for key in KEYS], True

    async def read_many(_: object) -> dict[CallKey, StoredCall]:
        return dict.fromkeys(KEYS, state)

    calls = RedisCalls(cast("Store", SimpleNamespace(newest=newest, read_many=read_many)), POLICY, LiveSources({}))
    with _counting_turns() as turns:
        rows = [row async for _, row in calls.newest(CallQuery(), None)]
    assert len(rows) == len(KEYS)
    assert len(turns) >= len(KEYS) - 1
