"""Flushes of a replay overlap. Each call still gets its events in the order of the journal, and its RequestID has one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.settings import load_settings
from shared.domain.facts import Fact
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.rebuild import replay
from shared.rebuild.call_search import FoundCalls
from shared.rebuild.kept_bytes import KeptBytes, KeptMessages
from shared.rebuild.published_index import PublishedIndex
from shared.rebuild.replay import Replay
from shared.rebuild.scope import EVERYTHING, first_key
from shared.state.stored_call import Merged, PublicationState, StoredCall

SOURCE = SourceName("default")
_KEPT_EVENTS, _BATCH_EVENTS = 8, 3


class SlowStore:
    """Merges in memory. How often others have their turn during a merge is given."""

    def __init__(self, turns: Sequence[int]) -> None:
        self._turns = turns
        self._merges = 0
        self._under_way: set[CallKey] = set()
        self.most_at_once = 0
        self.received: dict[CallKey, list[str]] = {}
        self.facts: dict[CallKey, dict[str, str]] = {}

    async def merge(self, events: Mapping[CallKey, Sequence[Sequence[Fact]]], *, begins: object = None) -> Merged:  # noqa: ARG002
        own = set(map(first_key, events))
        assert not own & self._under_way
        self._under_way |= own
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        self._merges += 1
        for _ in range(self._turns[self._merges % len(self._turns)]):
            await asyncio.sleep(0)
        self._under_way -= own
        for key, of_call in events.items():
            for event in of_call:
                (_, received_at), *_ = event
                self.received.setdefault(key, []).append(received_at)
                self.facts.setdefault(key, {}).update(event)
        return Merged({key: StoredCall(self.facts.get(key, {}), 0, PublicationState.NONE, "", "", None) for key in events})

    async def restore_publications(self, publications: object) -> None: ...
    async def schedule(self, wake_ups: object) -> None: ...
    async def remember_uses(self, uses: object) -> None: ...
    async def count_uses(self, keys: Iterable[CallKey]) -> dict[CallKey, int]:
        return dict.fromkeys(keys, 1)

    async def read_facts(self, keys: Iterable[CallKey]) -> dict[CallKey, dict[str, str]]:
        return {key: self.facts.get(key, {}) for key in keys}

    async def read_some_facts(self, names: Mapping[CallKey, object]) -> dict[CallKey, dict[str, str]]:
        return {key: {} for key in names}


async def _replay(calls: Sequence[int], store: SlowStore) -> None:
    """Replay one event of each of these calls, in messages of two."""
    callfold = load_settings()
    times = [f"2026-11-23T07:{number // 60:02}:{number % 60:02}.000000Z" for number in range(len(calls))]
    events = [
        CallbackEvent(SOURCE, at, f"CallType=API&Event=pickup&CallID={call}&RequestID={call}")
        for call, at in zip(calls, times, strict=True)
    ]
    with ExitStack() as resources:
        published = PublishedIndex(resources.enter_context(KeptBytes()))
        messages = resources.enter_context(KeptMessages())
        for first in range(0, len(events), 2):
            messages.add(join(map(encode, events[first : first + 2])))
        found = FoundCalls({_key(call) for call in calls}, published, [messages])
        done = await Replay(callfold, cast("Any", store), callfold.load_sources(), EVERYTHING, found).run()
    assert done.events == len(calls)
    assert store.received == {_key(call): [at for each, at in zip(calls, times, strict=True) if each == call] for call in calls}


def _key(call: int) -> CallKey:
    return CallKey(SOURCE, CallRef(str(call)))


@pytest.fixture(autouse=True, scope="module")
def _small_flushes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "_KEPT_EVENTS", _KEPT_EVENTS)
        patch.setattr(replay, "BATCH_EVENTS", _BATCH_EVENTS)
        yield


@given(st.lists(st.integers(1, 4), min_size=40, max_size=60), st.lists(st.integers(0, 40), min_size=1, max_size=5))
def test_a_call_gets_its_events_in_the_order_of_the_journal(calls: list[int], turns: list[int]) -> None:
    asyncio.run(_replay(calls, SlowStore(turns)))


async def test_flushes_of_different_calls_overlap() -> None:
    store = SlowStore([50])
    await _replay(range(1, 60), store)
    assert store.most_at_once > _BATCH_EVENTS
