"""Typed events."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from callfold_client import CallRecord, NotAnEventError, Recording, parse_event, strict_json
from callfold_client.envelope import read_ops_event
from tests.helpers.history import call_event, recording_event
from tests.helpers.records import DIAL, SECOND_AGENT, record

AT = datetime(2026, 11, 23, 7, 44, 0, 123456, UTC)


def _event(**changes: Any) -> bytes:  # noqa: ANN401
    return orjson.dumps(call_event(513, **changes))


def test_the_record_of_a_call_is_read_with_its_legs() -> None:
    data = record(*SECOND_AGENT, dial=DIAL)
    event = parse_event(orjson.dumps(call_event(513) | {"data": data}), "call.completed.default.answered")
    assert isinstance(event.data, CallRecord)
    assert event.routing_key == "call.completed.default.answered"
    assert event.data.agent
    assert (event.data.agent.call_id, event.data.agent.state) == (data["agent"]["call_id"], data["agent"]["state"])
    assert event.data.agent.picked_up_at == datetime.fromisoformat(data["agent"]["picked_up_at"])
    assert [leg.call_id for leg in event.data.other_legs] == [leg["call_id"] for leg in data["other_legs"]]
    assert event.data.dial
    assert event.data.dial["number"] == DIAL["number"]
    for name in CallRecord.__dataclass_fields__:  # each field has the name it has in JSON, and the same value
        value = getattr(event.data, name)
        if name in data and not isinstance(value, datetime) and name not in {"agent", "dialed", "other_legs", "ignored"}:
            assert value == data[name], name
    assert set(data) <= set(CallRecord.__dataclass_fields__)
    assert set(data["agent"]) <= set(type(event.data.agent).__dataclass_fields__)


def test_an_event_of_an_older_or_newer_release_is_read() -> None:
    event = parse_event(_event(a_field_of_tomorrow={"x": 1}))
    assert isinstance(event.data, CallRecord)
    assert (event.id, event.time, event.call, event.revision) == ("acme/513/1", AT, ("acme", "513"), 1)
    assert event.data.raw["a_field_of_tomorrow"] == {"x": 1}
    assert (event.data.queue, event.data.ignored, event.data.annotations) == (None, [], [])


def test_the_event_of_a_recording_is_read() -> None:
    event = parse_event(orjson.dumps(recording_event(513, "stored", bytes=4, sha256="ab", seconds=2, flags=["silent"])))
    assert isinstance(event.data, Recording)
    assert (event.data.bytes, event.data.sha256, event.data.seconds, event.data.flags) == (4, "ab", 2.0, ("silent",))
    assert event.revision is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        _event(talk_seconds="1"),
        _event(started_at="2026-13-23T07:44:00.123456Z"),
        _event(dialed={"call_id": 1}),
        _event(dialed={**call_event(1)["data"]["agent"], "extension": 1001}),
        _event(queue=5),
        _event(ring_seconds=True),
        _event(ended_at="yesterday"),
        _event(metadata=[]),
        _event(ignored=["x"]),
        orjson.dumps(call_event(1) | {"time": "yesterday"}),
        orjson.dumps(call_event(1) | {"type": "com.example.other"}),
        orjson.dumps(recording_event(1, "stored", bytes="4")),
    ],
)
def test_what_is_no_event_is_an_error_without_personal_data(body: bytes) -> None:
    with pytest.raises(NotAnEventError) as raised:
        parse_event(body)
    assert "+45" not in str(raised.value)
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize("read", [orjson.loads, strict_json.loads], ids=["orjson", "json"])
@pytest.mark.parametrize(
    ("value", "is_json"),
    [
        (b'"\\ud83d\\ude00"', True),
        ('"\u00e6\\u0000"'.encode(), True),
        (b"1.5e3", True),
        (b'"\\ud800"', False),
        (b'{"\\udfff": 1}', False),
        (b"NaN", False),
        (b"1e400", False),
        (b"-Infinity", False),
        (b'"\xed\xa0\x80"', False),
        ('"x"'.encode("utf-16"), False),
        (b"1" + b"0" * 400, False),
    ],
)
def test_both_readers_of_json_refuse_the_same(read: Callable[[bytes], Any], value: bytes, *, is_json: bool) -> None:
    """A text that no database can store would make a subscriber fail at the same event for ever."""
    if is_json:
        assert read(value) == json.loads(value)
    else:
        with pytest.raises(ValueError):  # noqa: PT011 - each reader has its own text
            read(value)


def test_operator_events_are_read_apart() -> None:
    event = {"id": "1", "subject": "x", "time": "y", "type": "callfold.ops.broker_away.v1", "data": {}}
    assert read_ops_event(orjson.dumps(event)) == event
    for body in (_event(), b"5"):
        with pytest.raises(NotAnEventError):
            read_ops_event(body)
