"""The callbacks on the first screen of the README give the event that stands below them, if sent to `make up`."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import orjson
import pytest

from shared.config.settings import Settings
from shared.config.sources import load_sources
from shared.domain.call import derive
from shared.domain.call_event import call_event, call_record
from shared.domain.facts import facts_of
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent
from tests.helpers.settings import settings_here

_README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
_FIRST_SCREEN = _README.partition("Callbacks go in")[2].partition("## What it promises")[0]
_CALLBACKS = re.findall(r"curl 'http://([\d.]+):(\d+)/callbacks/(\w+)\?(\S+)'", _FIRST_SCREEN)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    return settings_here(monkeypatch, {})


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))])
def test_the_callbacks_give_the_event(settings: Settings, order: tuple[int, ...]) -> None:
    facts: dict[str, str] = {}
    keys = set()
    for number, (host, port, name, query) in enumerate(_CALLBACKS[place] for place in order):
        assert (host, int(port)) == (settings.ingress_host, settings.ingress_port)
        source = load_sources(None)[SourceName(name)]
        assert source.secret is None
        key, found = facts_of(CallbackEvent(source.name, f"2026-11-23T07:44:0{number}.000000Z", query), source.adapter)
        keys.add(key)
        for field, value in found:
            facts[field] = min(value, facts.get(field, value))
    (key,) = keys
    call = derive(key, facts, settings.policy)
    topic, event_id, body = call_event(call, call_record(call, 1))
    assert f"`{topic}`" in _FIRST_SCREEN
    printed = _FIRST_SCREEN[_FIRST_SCREEN.index('{"id"') :].replace("{...}", "null").replace(", ...}", "}")
    shown, event = orjson.loads(printed), orjson.loads(body)
    assert (event["id"], shown["id"]) == (event_id, event_id)
    assert event["type"] == shown["type"]
    assert event["data"] | shown["data"] | {side: event["data"][side] for side in ("agent", "dialed")} == event["data"]
    assert event["data"]["agent"]
    assert event["data"]["dialed"]


def test_the_one_callback_to_try_is_a_whole_call_with_the_outcome_that_is_named(settings: Settings) -> None:
    tried = _README.partition("## Try it")[2].partition("\n## ")[0]
    ((source_name, query),) = re.findall(r"curl '[^']+/callbacks/(\w+)\?(\S+)'", tried)
    ((name, call, outcome),) = re.findall(r"`callfold show (\w+) (\d+)` shows its outcome, (\w+)", tried)
    source = load_sources(None)[SourceName(source_name)]
    key, found = facts_of(CallbackEvent(source.name, "2026-11-23T07:44:00.000000Z", query), source.adapter)
    record = call_record(derive(key, dict(found), settings.policy), 1)
    assert (key.source, key.call, record["outcome"], record["complete"]) == (name, call, outcome, True)
