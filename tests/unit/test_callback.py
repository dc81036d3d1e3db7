from __future__ import annotations

import pytest

from shared.domain.adapter_link import SAMPLE_LINK, make_link, parse_link
from shared.domain.callback import parse_callback
from shared.domain.leg_event import CallType, LegEvent
from shared.errors import InvalidCallbackError

SAMPLE = parse_link(SAMPLE_LINK)
GOOD = {
    "CallType": "API",
    "Event": "hangup",
    "CallID": "1000000087849",
    "RequestID": "513",
    "EventCode": "1",
    "IsCallRecorded": "1",
    "Guid": "BFA2DBC8-ab8a-34c8-f243-c2aad8c446ff",
}


def _query(**changed: str) -> str:
    return "&".join(f"{name}={value}" for name, value in (GOOD | changed).items())


def test_a_callback_is_understood() -> None:
    callback = parse_callback(SAMPLE, _query())
    assert (callback.call_type, callback.event, callback.call_id) == (CallType.API, LegEvent.HANGUP, "1000000087849")
    assert (callback.request_id, callback.recorded) == (513, True)
    assert callback.guid == "bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("CallType", ""),
        ("CallType", "Fax"),
        ("Event", "exploded"),
        ("CallID", ""),
        ("CallID", "12a"),
        ("CallID", "-5"),
        ("CallID", "9" * 19),
        ("CallID", "%D9%A3"),  # an Arabic digit is no digit of theirs
    ],
)
def test_what_cannot_be_folded_names_its_parameter(parameter: str, value: str) -> None:
    with pytest.raises(InvalidCallbackError) as refused:
        parse_callback(SAMPLE, _query(EventCode="", **{parameter: value}))
    assert refused.value.parameter == parameter
    assert not value or value not in str(refused.value)


@pytest.mark.parametrize(
    ("parameter", "value", "shown"),
    [
        ("Event", "answered", "answered"),
        ("Event", "PickedUp", "PickedUp"),
        ("CallType", "%7B%7BCallTypeName%7D%7D", "{{CallTypeName}}"),
        ("CallType", "out%0Abound%E2%80%AE", "out?bound?"),
        ("Event", "x" * 200, "x" * 20 + "..."),
        ("Event", "%2B4512345678", "+4***"),  # a number in the wrong place
        ("CallID", "hunter2hunter2", "hun***"),
    ],
)
def test_only_a_wrong_name_is_shown_and_only_its_beginning(parameter: str, value: str, shown: str) -> None:
    with pytest.raises(InvalidCallbackError) as refused:
        parse_callback(SAMPLE, _query(EventCode="", **{parameter: value}))
    assert refused.value.shown_value == shown


def test_a_wrong_code_is_shown() -> None:
    by_code = parse_link("https://h/?t={{CallTypeCode}}&e={{DialApiEventCode}}&c={{CallID}}")
    with pytest.raises(InvalidCallbackError) as refused:
        parse_callback(by_code, "t=9&e=3&c=7")
    assert (refused.value.parameter, refused.value.shown_value) == ("t", "9")


def test_codes_serve_where_names_are_not_sent_and_names_count_where_both_are() -> None:
    by_code = parse_link("https://h/?t={{CallTypeCode}}&e={{DialApiEventCode}}&c={{CallID}}")
    callback = parse_callback(by_code, "t=2&e=3&c=007")
    assert (callback.call_type, callback.event, callback.call_id) == (CallType.OUTGOING, LegEvent.MISSED, "7")
    assert parse_callback(SAMPLE, _query(EventCode="3")).event is LegEvent.HANGUP
    with pytest.raises(InvalidCallbackError) as refused:
        parse_callback(by_code, "t=9&e=3&c=7")
    assert refused.value.parameter == "t"


@pytest.mark.parametrize(("code", "event"), [("0", "start"), ("1", "hangup"), ("2", "pickup"), ("3", "missed")])
def test_event_codes_are_those_of_the_vendor(code: str, event: str) -> None:
    by_code = parse_link("https://h/?t={{CallTypeCode}}&e={{DialApiEventCode}}&c={{CallID}}")
    assert parse_callback(by_code, f"t=5&e={code}&c=7").event == event
    assert parse_callback(by_code, f"t=5&e={code}&c=7").call_type is CallType.API


def test_every_other_value_is_kept_by_its_placeholder() -> None:
    adapter = parse_link(make_link("https://h", "acme", None))
    callback = parse_callback(adapter, "CallType=API&Event=start&CallID=1&CallerID=%2B45&LastQueueName=K%C3%B8+1&DID=")
    assert callback.extras == {"CallerID": "+45", "LastQueueName": "Kø 1"}


def test_zero_is_no_request_id() -> None:
    assert parse_callback(SAMPLE, _query(RequestID="0")).request_id is None
