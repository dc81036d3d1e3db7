"""Large calls take long: a record masks each value once, and the console handles them while others have their turn."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import cast

import pytest

from console.live.monitor import Monitor
from console.lookup import detail
from console.lookup.timeline import Timeline
from console.lookup.timeline_reader import Timelines
from shared.archive.storage import Archive
from shared.config.sources import DEFAULT_SOURCE, load_sources
from shared.domain import call_event
from shared.domain.call import derive
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef
from shared.domain.raw_event import CallbackEvent
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
    )
    assert len(shown.legs) == _LEGS
    assert (threading.main_thread() not in mask.threads) == is_beside


async def test_between_the_open_calls_of_the_live_page_others_have_their_turn() -> None:
    _, facts = _facts(100)
    keys = [CallKey(SOURCE, CallRef(str(number))) for number in range(9)]

    async def open_starts() -> list[tuple[int, str]]:
        return [(0, str(each)) for each in keys]

    async def read_facts(_: object) -> dict[CallKey, dict[str, str]]:
        return dict.fromkeys(keys, facts)

    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    here = SimpleNamespace(_store=SimpleNamespace(open_starts=open_starts, read_facts=read_facts), _policy=POLICY)
    calls, _ = await Monitor._open_calls(cast("Monitor", here), [])
    counting.cancel()
    assert len(calls) == len(keys)
    assert turns >= len(keys) - 1
