"""What a message body can hold: good events, whatever lies beside them."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, DialEvent, Undecodable, decode, encode, join, receipt_times

AT = "2026-11-23T07:44:00.123456Z"
GOOD = b'{"v":1,"kind":"callback","source":"acme","received_at":"' + AT.encode() + b'","query":"a=[1,{\\"b\\": 2}]"}'


def _dial(**more: object) -> bytes:
    told = {"v": 1, "kind": "dial", "source": "acme", "received_at": AT, "request_id": 5, "fields": {}} | more
    return b"[" + orjson.dumps(told) + b"]"


@pytest.mark.parametrize("depth", [300, 900])
@pytest.mark.parametrize("name", [b"query", b"v", b"kind", b"received_at"])
def test_an_element_nested_too_deep_to_be_written_again_is_undecodable_as_it_is_and_alone(depth: int, name: bytes) -> None:
    bad = GOOD.replace(b'"' + name + b'":', b'"' + name + b'": ' + b"[" * depth + b"]" * depth + b',"was":')
    before, undecodable, after = decode(b"[" + GOOD + b" , " + bad + b",\n" + GOOD + b"]")
    assert isinstance(before, CallbackEvent)
    assert after == before
    assert isinstance(undecodable, Undecodable)
    assert undecodable.body == b"[" + bad + b"]"


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_whatever_cannot_be_read_keeps_its_bytes(value: object) -> None:
    try:
        written = orjson.dumps(value)
    except TypeError:  # a number of more than 64 bits
        return
    (undecodable,) = [event for event in decode(b"[" + GOOD + b"," + written + b"]") if isinstance(event, Undecodable)]
    assert undecodable.body == b"[" + written + b"]"


def test_each_event_has_one_time_of_receipt_whatever_its_text_says() -> None:
    lines = ["a=1", f'b="received_at":"{AT}"', f'"received_at": "{AT}"']
    times = [AT.replace("07:44", f"07:4{minute}") for minute in range(3)]
    body = join(encode(CallbackEvent(SourceName("acme"), at, line)) for at, line in zip(times, lines, strict=True))
    assert receipt_times(body) == times
    assert receipt_times(GOOD.replace(b'received_at":', b'received_at": ')) == [AT]
    assert receipt_times(b'[{"received_at":"yesterday"}, 1]') == []


@pytest.mark.parametrize("request_id", [True, False, 0, -5, 1.5, "5", None])
def test_a_dial_without_a_request_id_is_undecodable(request_id: object) -> None:
    (undecodable,) = decode(_dial(request_id=request_id))
    assert isinstance(undecodable, Undecodable)
    assert "request_id" in undecodable.problem


def test_a_field_of_a_dial_that_is_null_was_not_told() -> None:
    assert decode(_dial(fields={"reference": None, "agent": 1001})) == [DialEvent("acme", AT, 5, {"agent": "1001"})]  # type: ignore[arg-type]
    (undecodable,) = decode(_dial(fields={"agent": [1]}))
    assert isinstance(undecodable, Undecodable)
    assert "fields.agent" in undecodable.problem


@pytest.mark.parametrize(
    "at",
    [
        "2026-W48-1T07:44:00.123456Z",
        "2026-11-23 07:44:00.123456Z",
        "2026-11-23T07:44:00.123456z",
        "2026-11-23T07:44:00,123456Z",
        "2026-11-23T07:44:00.123+00Z",
        "2026-13-23T07:44:00.123456Z",
        "٢026-11-23T07:44:00.123456Z",
    ],
)
def test_a_time_has_one_form(at: str) -> None:
    (undecodable,) = decode(_dial(received_at=at))
    assert isinstance(undecodable, Undecodable)
