"""A value that is a credential by its meaning is masked, whatever its parameter is called and whatever it looks like."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import pytest

from console.lookup.detail import _masked_fact
from console.lookup.timeline import _row
from shared.domain.adapter_link import parse_link
from shared.domain.facts import facts_of
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent

ADAPTER = parse_link(
    "https://h/?t={{CallTypeName}}&e={{DialApiEventName}}&c={{CallID}}&r={{RecordingURL}}&x={{SecTok}}&q={{LastQueueName}}"
)
QUERY = "t=API&e=hangup&c=7&%72=https%3A%2F%2Fpbx%2Fhunter2&x=hunter2&q=sectok%3Dhunter2&r=&other=1"
EVENT = CallbackEvent(SourceName("acme"), "2026-11-23T07:44:00.123456Z", QUERY)


def test_in_the_timeline() -> None:
    assert _row(EVENT, ADAPTER)["what"] == "t=API&e=hangup&c=7&%72=***&x=***&q=sectok%3D***&r=&other=1"


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("t=API&e=hangup&c=7&R=https%3A%2F%2Fpbx%2Fhunter2", "t=API&e=hangup&c=7&R=***"),
        ("t=API&amp;e=hangup&amp;c=7&amp;r=https%3A%2F%2Fpbx%2Fhunter2", "t=API&amp;e=hangup&amp;c=7&amp;r=***"),
        ("t=API;e=hangup;c=7;+r=https%3A%2F%2Fpbx%2Fhunter2", "t=API;e=hangup;c=7;+r=***"),
        (quote("t=API&e=hangup&c=7&r=https://pbx/hunter2", safe=""), "t=API&e=hangup&c=7&r=***"),
    ],
)
def test_in_the_timeline_of_a_query_that_is_spelled_oddly(query: str, shown: str) -> None:
    assert _row(replace(EVENT, query=query), ADAPTER)["what"] == shown


def test_among_the_facts() -> None:
    masked = {name: _masked_fact(name, value) for name, value in facts_of(EVENT, ADAPTER)[1]}
    assert masked["leg:API:7:url.hangup"] == "***"
    assert masked["leg:API:7:f.hangup.SecTok"] == "***"
    assert masked["leg:API:7:f.hangup.LastQueueName"] == "sectok=***"
    assert masked["leg:API:7:hangup"] == EVENT.received_at
