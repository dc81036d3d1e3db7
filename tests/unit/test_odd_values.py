"""What real systems send: no call is lost to a detail of a callback, and its record lists what was ignored, and why."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.adapter_link import SAMPLE_LINK, Adapter, Placeholder, make_link, parse_link
from shared.domain.call import Call, derive
from shared.domain.call_event import call_event, call_record
from shared.domain.callback import Callback, parse_callback
from shared.domain.closing import Outcome
from shared.domain.event_types import CallRecord
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.ignored import IgnoredValue, Reason
from shared.domain.leg_event import CallType, LegEvent
from shared.domain.raw_event import CallbackEvent, decode, encode, join
from shared.domain.revision_summary import summary
from shared.domain.times import java_time
from shared.errors import InvalidCallbackError
from tests.helpers.checked_events import problems_of_event
from tests.helpers.servers import POLICY

EVERY = parse_link(make_link("https://h", "acme", None))
BY_CODE = parse_link("https://h/?t={{CallTypeCode}}&e={{DialApiEventCode}}&c={{CallID}}")
SAMPLE = parse_link(SAMPLE_LINK)
NEEDED = "CallType=Incoming&Event=missed&CallID=77"
SOURCE = SourceName("acme")
AT = "2026-11-23T07:44:00.000000Z"
NOW_MS = 1795419840000
GUID = "bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"
NAMES = {meaning: name for name, meaning in EVERY.meanings.items()}
_MANDATORY = {"CallTypeName", "CallTypeCode", "DialApiEventName", "DialApiEventCode", "CallID"}
OPTIONAL = sorted(NAMES.keys() - _MANDATORY)


def parsed(more: str, adapter: Adapter = EVERY) -> Callback:
    return parse_callback(adapter, f"{NEEDED}&{more}")


def call_of(*queries: str) -> Call:
    """Derive the call of some callbacks, which went through a message and its facts."""
    facts: dict[str, str] = {}
    keys: set[CallKey] = set()
    for query in queries:
        (event,) = decode(join([encode(CallbackEvent(SOURCE, AT, query))]))
        assert isinstance(event, CallbackEvent)
        key, found = facts_of(event, EVERY)
        keys.add(key)
        for name, value in found:
            facts[name] = min(facts.get(name, value), value)
    (key,) = keys
    return derive(key, facts, POLICY)


def ignored_of(call: Call) -> list[dict[str, str]]:
    rows = call_record(call, 1)["ignored"]
    assert isinstance(rows, list)
    return rows


def noted(callback: Callback) -> list[tuple[str, str, str]]:
    return [(placeholder, value, str(reason)) for placeholder, value, reason in callback.ignored]


@pytest.mark.parametrize(
    ("more", "attribute", "value", "reason"),
    [
        ("RequestID=-1", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=null", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=N%2FA", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=-", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=513.5", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=5.13e2", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=9999999999999999999", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=%D9%A3", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=0", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=000", "request_id", None, Reason.NOT_A_REQUEST_ID),
        ("RequestID=+", "request_id", None, None),
        ("RequestID=", "request_id", None, None),
        ("RequestID=+513%00", "request_id", 513, None),
        ("RequestID=00513.0", "request_id", 513, None),
        ("RequestID=%EF%BB%BF%22513%22", "request_id", 513, None),
        ("RequestID=%7B%7BDialApiRequestID%7D%7D", "request_id", None, Reason.PLACEHOLDER),
        ("Guid=null", "guid", None, Reason.NOT_A_GUID),
        ("Guid=(null)", "guid", None, Reason.NOT_A_GUID),
        ("Guid=none", "guid", None, Reason.NOT_A_GUID),
        ("Guid=undefined", "guid", None, Reason.NOT_A_GUID),
        ("Guid=bfa2dbc8-ab8a", "guid", None, Reason.NOT_A_GUID),
        ("Guid=00000000-0000-0000-0000-000000000000", "guid", None, Reason.NOT_A_GUID),
        ("Guid=ffffffffffffffffffffffffffffffff", "guid", None, Reason.NOT_A_GUID),
        (f"Guid={GUID.upper()}", "guid", GUID, None),
        (f"Guid=%7B{GUID}%7D", "guid", GUID, None),
        (f"Guid={{{GUID.upper()}}}", "guid", GUID, None),
        (f"Guid=%257B{GUID}%257D", "guid", GUID, None),
        (f"Guid={GUID.replace('-', '')}", "guid", GUID, None),
        (f"Guid=urn:uuid:{GUID}", "guid", GUID, None),
        (f"Guid=+{GUID}%0D%0A", "guid", GUID, None),
        (f"Guid=%22{GUID}%22", "guid", GUID, None),
        ("Guid={{CallUUID}}", "guid", None, Reason.PLACEHOLDER),
        ("Guid=%7B%7BCallUUID%7D%7D", "guid", None, Reason.PLACEHOLDER),
        ("Guid=%257B%257bCallUUID%257D%257D", "guid", None, Reason.PLACEHOLDER),
        ("Guid=%25257B%25257bCallUUID%25257D%25257D", "guid", None, Reason.PLACEHOLDER),
        ("Guid={{+CallUUID+}}+", "guid", None, Reason.PLACEHOLDER),
        ("Guid={{CallUU", "guid", None, Reason.PLACEHOLDER),
        ("Guid=CallUUID}}", "guid", None, Reason.PLACEHOLDER),
        ("Guid=%7B%7BCallUUID%7", "guid", None, Reason.PLACEHOLDER),
        ("Guid={CallUUID}", "guid", None, Reason.PLACEHOLDER),
        ("Guid=$%7BCallUUID%7D", "guid", None, Reason.PLACEHOLDER),
        ("Guid={{", "guid", None, Reason.PLACEHOLDER),
        ("IsCallRecorded=true", "recorded", True, None),
        ("IsCallRecorded=YES", "recorded", True, None),
        ("IsCallRecorded=+y+", "recorded", True, None),
        ("IsCallRecorded=On", "recorded", True, None),
        ("IsCallRecorded=T", "recorded", True, None),
        ("IsCallRecorded=False", "recorded", False, None),
        ("IsCallRecorded=no", "recorded", False, None),
        ("IsCallRecorded=off", "recorded", False, None),
        ("IsCallRecorded=2", "recorded", False, Reason.NOT_A_BIT),
        ("IsCallRecorded=maybe", "recorded", False, Reason.NOT_A_BIT),
        ("IsCallRecorded=null", "recorded", False, Reason.NOT_A_BIT),
        ("IsCallRecorded={{IsCallRecorded}}", "recorded", False, Reason.PLACEHOLDER),
    ],
)
def test_an_optional_value_is_read_or_ignored_with_its_reason(
    more: str, attribute: str, value: object, reason: Reason | None
) -> None:
    callback = parsed(more)
    assert getattr(callback, attribute) == value
    assert [each.reason for each in callback.ignored] == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    ("more", "placeholder", "value", "reason"),
    [
        ("IsCallAnswered=maybe", "IsCallAnswered", None, Reason.NOT_A_BIT),
        ("IsCallAnswered=true", "IsCallAnswered", "true", None),
        ("TotalWaitTimeMs=12833.0", "TotalWaitTimeMs", "12833.0", None),
        ("TotalWaitTimeMs=-5", "TotalWaitTimeMs", None, Reason.NOT_MILLISECONDS),
        ("TotalWaitTimeMs=%3F", "TotalWaitTimeMs", None, Reason.NOT_MILLISECONDS),
        ("ResponderAgent=null", "ResponderAgent", None, Reason.NO_VALUE),
        ("ResponderAgent=Null", "ResponderAgent", "Null", None),  # a name that people have
        ("LastQueueName=undefined", "LastQueueName", None, Reason.NO_VALUE),
        ("CallerID=N%2FA", "CallerID", None, Reason.NO_VALUE),
        ("ResponderAgent={{ResponderAgent}}", "ResponderAgent", None, Reason.PLACEHOLDER),
        ("RecordingURL=%7B%7BRecordingURL%7D%7D", "RecordingURL", None, Reason.PLACEHOLDER),
        ("ResponderAgent=J%FCrgen", "ResponderAgent", "Jürgen", Reason.NOT_UTF8),
        ("ResponderAgent=J%C3%BCrgen", "ResponderAgent", "Jürgen", None),
        ("LastQueueName=M%fcller+%80+%93S%94", "LastQueueName", "Müller € “S”", Reason.NOT_UTF8),
        ("LastQueueName=%81%8D", "LastQueueName", "\x81\x8d", Reason.NOT_UTF8),
        ("LastQueueName=Sales%C3", "LastQueueName", "SalesÃ", Reason.NOT_UTF8),
        ("LastQueueName=%7BSales%7D", "LastQueueName", "{Sales}", None),
        ("LastQueueName=$&DID={1}", "LastQueueName", "$", None),
        ("LastQueueName=100%25", "LastQueueName", "100%", None),
        ("LastQueueName=a;b?c#d", "LastQueueName", "a;b?c#d", None),
        ("ResponderAgent=%ED%A0%80", "ResponderAgent", "í\xa0€", Reason.NOT_UTF8),
    ],
)
def test_another_value_is_kept_or_ignored_with_its_reason(
    more: str, placeholder: str, value: str | None, reason: Reason | None
) -> None:
    callback = parsed(more)
    assert callback.extras.get(placeholder) == value
    assert [each.reason for each in callback.ignored] == ([] if reason is None else [reason])


ENDS = [
    "",
    "#",
    "#top",
    "#a=b",
    "##",
    "%23",
    '"',
    "'",
    ">",
    "%3E",
    "%0D%0A",
    "/",
    "?",
    "?x=1",
    ",",
    ";",
    ";x=1",
    ".",
    "!",
    "|",
    ":",
    "]",
    "}",
    ")",
    "%E2%80%9D",
]


@pytest.mark.parametrize("end", ENDS)
def test_what_ends_a_link_splits_no_call_and_costs_no_value(end: str) -> None:
    assert noted(parsed(f"RequestID=513{end}")) == []
    assert parsed(f"RequestID=513{end}").request_id == 513
    assert parsed(f"RequestID=513{end}&LastQueueName=a").request_id == 513
    assert parsed(f"ResponderAgent=Team+#2&RequestID=513{end}")[3:7:3] == (513, {"ResponderAgent": "Team #2"})
    assert parsed(f"Guid={GUID}{end}").guid == GUID
    assert parsed(f"Guid={GUID.replace('-', '')}{end}").guid == GUID
    assert parsed(f"IsCallRecorded=1{end}").recorded
    assert parsed(f"TotalWaitTimeMs=12833{end}").ignored == []
    for query in (f"CallType=Incoming&Event=missed&CallID=77{end}", f"CallType=Incoming&CallID=77&Event=missed{end}"):
        assert parse_callback(EVERY, query)[:3] == (CallType.INCOMING, LegEvent.MISSED, "77")
        assert parse_callback(EVERY, f"LastQueueName=a #1&{query}")[:3] == (CallType.INCOMING, LegEvent.MISSED, "77")


@pytest.mark.parametrize("begin", ["#", "<", "%3C", "=", ":", "%E2%80%9C", "{", "{{", "%7B%7B"])
def test_what_begins_a_value_splits_no_call(begin: str) -> None:
    assert parsed(f"RequestID={begin}513").request_id == 513
    assert parsed(f"Guid={begin}{GUID}").guid == GUID


@pytest.mark.parametrize(
    "number",
    [
        "513,5",
        "513;514",
        "513?514",
        "513...",
        "513%E2%80%A6",
        "(513)",
        "-513#",
        "513-",
        "513%2",
        "513/514",
        ".513",
        "513%23514",
    ],
)
def test_no_other_number_is_guessed(number: str) -> None:
    assert parsed(f"RequestID={number}").request_id is None


def test_parameters_behind_an_id_with_another_separator_are_read() -> None:
    callback = parsed(f"RequestID=513;Guid={GUID};IsCallRecorded=1")
    assert callback[3:6] == (513, GUID, True)
    assert parsed(f"RequestID=513?Guid={GUID}&IsCallRecorded=1")[3:6] == (513, GUID, True)
    assert parsed("RequestID=513;CallID=78").call_id == "77", "what contradicts is ignored"


@pytest.mark.parametrize(
    ("left", "right"), [("{", "}"), ("{{", "}}"), ("{{ ", " }}"), ("%7B%7B", "%7D%7D"), ("${", "}"), ("$%7B", "%7D")]
)
def test_a_value_in_the_braces_of_a_placeholder_is_read(left: str, right: str) -> None:
    bare = GUID.replace("-", "")
    callback = parsed(
        f"Guid={left}{bare}{right}&RequestID={left}513{right}&IsCallRecorded={left}1{right}&TotalWaitTimeMs={left}12{right}"
    )
    assert callback[3:6] == (513, GUID, True)
    assert noted(callback) == []
    needed = f"CallType={left}Incoming{right}&Event={left}missed{right}&CallID={left}77{right}"
    assert parse_callback(EVERY, needed)[:3] == (CallType.INCOMING, LegEvent.MISSED, "77")
    call = call_of(f"{NEEDED}&StartTimestampUTC={left}{NOW_MS}{right}&CallerID={left}4512345678{right}")
    assert ignored_of(call) == []


@pytest.mark.parametrize("placeholder", OPTIONAL)
@pytest.mark.parametrize("spelled", ["{}", "+{}", "${}", "{{{{{}}}}}", "{}%20"])
def test_a_placeholder_is_recognised_whatever_the_other_parameters_are(placeholder: str, spelled: str) -> None:
    sent = f"{NAMES[placeholder]}={spelled.format(placeholder)}"
    expected = [(placeholder, "placeholder")]
    other = "ResponderAgent" if placeholder != "ResponderAgent" else "LastQueueName"
    for more in (sent, f"{sent}&{other}=100%25", f"{other}={{1}}&{sent}", f"{other}=a&{sent}"):
        callback = parsed(more)
        assert [(each.placeholder, str(each.reason)) for each in callback.ignored] == expected
        assert placeholder not in callback.extras


def test_a_needed_placeholder_without_its_braces_is_named() -> None:
    for query in (
        "CallType=CallTypeName&Event=start&CallID=1",
        "CallType=API&Event=DialApiEventName&CallID=1",
        "CallType=API&Event=start&CallID=CallID",
    ):
        with pytest.raises(InvalidCallbackError, match="arrived unreplaced"):
            parse_callback(EVERY, query)


def test_what_is_not_utf8_is_noted_as_it_was_sent() -> None:
    assert noted(parsed("ResponderAgent=J%FCrgen+K")) == [("ResponderAgent", "J%FCrgen+K", "not_utf8")]


@pytest.mark.parametrize(
    "spelled", ["api", "API", "Api", " api ", "+aPi%20", "%EF%BB%BFAPI%00", "5", "05", "%22API%22", "%EF%BC%A1PI"]
)
def test_a_call_type_is_read_in_any_spelling(spelled: str) -> None:
    for name in ("CallType", "CallTypeCode"):
        assert parse_callback(EVERY, f"{name}={spelled}&Event=start&CallID=1").call_type is CallType.API
    assert parse_callback(BY_CODE, f"t={spelled}&e=3&c=1").call_type is CallType.API


@pytest.mark.parametrize(
    ("spelled", "event"),
    [
        ("PickUp", LegEvent.PICKUP),
        ("+pickup+", LegEvent.PICKUP),
        ("P\u0130CKUP", LegEvent.PICKUP),  # in upper case by a Turkish program
        ("2", LegEvent.PICKUP),
        ("0", LegEvent.START),
        ("00", LegEvent.START),
        ("HANGUP%0A", LegEvent.HANGUP),
        ("missed%C2%A0", LegEvent.MISSED),
    ],
)
def test_an_event_is_read_in_any_spelling(spelled: str, event: LegEvent) -> None:
    for name in ("Event", "EventCode"):
        assert parse_callback(EVERY, f"CallType=API&{name}={spelled}&CallID=1").event is event


@given(st.sampled_from(CallType), st.sampled_from(LegEvent), st.text(" \t\0\ufeff\u200b\u00a0", max_size=3), st.randoms())
def test_letter_case_and_blanks_around_change_no_meaning(
    kind: CallType, event: LegEvent, around: str, random: partial[str]
) -> None:
    def spelled(name: str) -> str:
        return quote(around + "".join(random.choice((c.lower(), c.upper())) for c in name) + around)  # type: ignore[attr-defined]

    callback = parse_callback(EVERY, f"CallType={spelled(kind)}&Event={spelled(event)}&CallID={quote(around)}77{quote(around)}")
    assert (callback.call_type, callback.event, callback.call_id, callback.ignored) == (kind, event, "77", [])


@pytest.mark.parametrize(
    ("query", "noted_as"),
    [
        ("CallType=Fax&CallTypeCode=1&Event=missed&CallID=77", [("CallTypeName", "Fax", "not_a_call_type")]),
        ("CallType=Incoming&CallTypeCode=99&Event=missed&CallID=77", [("CallTypeCode", "99", "not_a_call_type")]),
        ("CallType=Incoming&CallTypeCode=+1&Event=missed&EventCode=03&CallID=77", []),
        ("CallType=Incoming&CallTypeCode=5&Event=missed&CallID=77", [("CallTypeCode", "5", "contradicts")]),
        ("CallType=Incoming&Event=missed&EventCode=2&CallID=77", [("DialApiEventCode", "2", "contradicts")]),
        ("CallType=Incoming&Event=exploded&EventCode=3&CallID=77", [("DialApiEventName", "exploded", "not_an_event")]),
        (
            "CallType={{CallTypeName}}&CallTypeCode=1&Event=%7B%7BDialApiEventName%7D%7D&EventCode=3&CallID=77",
            [("CallTypeName", "{{CallTypeName}}", "placeholder"), ("DialApiEventName", "{{DialApiEventName}}", "placeholder")],
        ),
    ],
)
def test_an_unreadable_name_gives_way_to_its_code(query: str, noted_as: list[tuple[str, str, str]]) -> None:
    callback = parse_callback(EVERY, query)
    assert (callback.call_type, callback.event) == (CallType.INCOMING, LegEvent.MISSED)
    assert noted(callback) == noted_as


@pytest.mark.parametrize("spelled", ["77", "+77+", "077", "77.0", "77.000", "%2B77", "%2277%22", "%EF%BB%BF77", "0077%00"])
def test_one_leg_has_one_call_id_however_it_is_spelled(spelled: str) -> None:
    assert parse_callback(EVERY, f"CallType=API&Event=start&CallID={spelled}").call_id == "77"


@pytest.mark.parametrize(
    "wrong", ["77.5", "-77", "7.7e1", "1595496055.123", "7,7", "7+7", "0x77", "{{CallID}}", "null", "%D9%A3", "7" * 19]
)
def test_what_is_no_call_id_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(InvalidCallbackError) as refused:
        parse_callback(EVERY, f"CallType=API&Event=start&CallID={wrong}")
    assert refused.value.parameter == "CallID"
    assert ("unreplaced" in refused.value.problem) == wrong.startswith("{{")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("CallType={{CallTypeName}}&Event=start&CallID=1", "CallType"),
        ("CallType=API&Event=%7B%7BDialApiEventName%7D%7D&CallID=1", "Event"),
    ],
)
def test_a_needed_placeholder_that_arrived_unreplaced_is_named(query: str, parameter: str) -> None:
    with pytest.raises(InvalidCallbackError, match="arrived unreplaced") as refused:
        parse_callback(EVERY, query)
    assert refused.value.parameter == parameter


def test_a_parameter_sent_twice_counts_once_and_the_other_value_is_kept() -> None:
    other = GUID.replace("b", "c")
    assert parsed(f"Guid={GUID}&Guid={other}")[4] == GUID
    assert noted(parsed(f"Guid={GUID}&Guid={other}")) == [("CallUUID", other, "sent_twice")]
    assert parsed("RequestID=513&RequestID=514").request_id == 513
    assert parsed("LastQueueName=Sales&LastQueueName=Support").extras == {"LastQueueName": "Sales"}
    assert noted(parsed("LastQueueName=Sales&LastQueueName=Support")) == [("LastQueueName", "Support", "sent_twice")]
    (row,) = ignored_of(call_of(f"{NEEDED}&LastQueueName=Sales&LastQueueName=Support&LastQueueName=Orders"))
    assert row["value"] == "Support, Orders", "every one of several"


@pytest.mark.parametrize(
    ("more", "attribute", "value", "noted_as"),
    [
        (f"Guid=null&Guid={GUID}", "guid", GUID, [("CallUUID", "null", "sent_twice")]),
        (f"Guid={{{{CallUUID}}}}&Guid={GUID}", "guid", GUID, [("CallUUID", "{{CallUUID}}", "placeholder")]),
        (f"Guid={GUID.upper()}&Guid={GUID}", "guid", GUID, []),
        ("RequestID=&RequestID=513", "request_id", 513, []),
        ("RequestID=abc&RequestID=513", "request_id", 513, [("DialApiRequestID", "abc", "sent_twice")]),
        ("RequestID=0&RequestID=513", "request_id", 513, [("DialApiRequestID", "0", "sent_twice")]),
        ("RequestID=513&RequestID=0513", "request_id", 513, []),
        ("RequestID=513&requestid=514", "request_id", 513, [("DialApiRequestID", "514", "sent_twice")]),
        ("RequestID=+&amp;RequestID=513", "request_id", 513, []),
        ("callid=78", "call_id", "77", []),
        ("LastQueueName=+&LastQueueName=Sales", "extras", {"LastQueueName": "Sales"}, []),
        ("IsCallRecorded=1&IsCallRecorded=true", "recorded", True, []),
        (
            f"EndTimestampUTC=0&EndTimestampUTC=null&EndTimestampUTC={NOW_MS}",
            "extras",
            {"EndTimestampUTC": str(NOW_MS)},
            [("EndTimestampUTC", "0, null", "sent_twice")],
        ),
        ("IsCallRecorded=maybe&IsCallRecorded=1", "recorded", True, [("IsCallRecorded", "maybe", "sent_twice")]),
        ("CallID=077", "call_id", "77", []),
        ("CallID=null", "call_id", "77", [("CallID", "null", "sent_twice")]),
        ("CallID={{CallID}}", "call_id", "77", [("CallID", "{{CallID}}", "placeholder")]),
        ("Event=MISSED", "event", "missed", []),
        ("Event=oops", "event", "missed", [("DialApiEventName", "oops", "sent_twice")]),
    ],
)
def test_of_a_parameter_sent_twice_the_first_usable_value_counts(
    more: str, attribute: str, value: object, noted_as: list[tuple[str, str, str]]
) -> None:
    callback = parsed(more)
    assert getattr(callback, attribute) == value
    assert noted(callback) == noted_as


@pytest.mark.parametrize(("more", "parameter"), [("CallID=78", "CallID"), ("Event=start", "Event"), ("CallType=API", "CallType")])
def test_a_needed_parameter_with_two_meanings_is_refused_by_name(more: str, parameter: str) -> None:
    with pytest.raises(InvalidCallbackError, match="sent twice") as refused:
        parsed(more)
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    "query",
    [
        f"CallType=Incoming&amp;Event=missed&amp;CallID=77&amp;Guid={GUID}",
        f"CallType=Incoming;Event=missed;CallID=77;Guid={GUID}",
        f"CallID=77;Guid={GUID};CallType=Incoming;Event=missed",
        f"CallType=Incoming&amp;Event=missed;CallID=77&amp;Guid={GUID}",
        f"?CallType=Incoming&Event=missed&CallID=77&Guid={GUID}",
        f"CallType=Incoming&Event=missed&Guid={GUID}&CallID=77#top",
        f"calltype=Incoming&EVENT=missed&callid=77&guid={GUID}",
        f"+CallType=Incoming&Event+=missed&%20CallID=77&Guid={GUID}",
        quote(f"CallType=Incoming&Event=missed&CallID=77&Guid={GUID}", safe=""),
        f"&&=&CallType=Incoming&&Event=missed&=x&CallID=77&Guid={GUID}&",
    ],
)
def test_another_separator_or_spelling_of_names_costs_no_call(query: str) -> None:
    for adapter in (EVERY, SAMPLE):
        callback = parse_callback(adapter, query)
        assert callback[:5] == (CallType.INCOMING, LegEvent.MISSED, "77", None, GUID)


@pytest.mark.parametrize("value", ["a;CallID=77", "https://pbx/dl?CallID=77", "#CallID=77"])
def test_what_separates_parameters_elsewhere_belongs_to_its_value(value: str) -> None:
    with pytest.raises(InvalidCallbackError, match="CallID is missing"):
        parse_callback(EVERY, f"CallType=API&Event=start&LastQueueName={value}")


def test_a_parameter_of_the_adapter_s_own_spelling_comes_before_any_other() -> None:
    assert parse_callback(EVERY, f"callid=5&amp;CallID=6&{NEEDED}").call_id == "77"
    two = parse_link("https://h/?t={{CallTypeName}}&e={{DialApiEventName}}&c={{CallID}}&x={{Foo}}&X={{Bar}}&k=fixed")
    assert parse_callback(two, "T=API&E=start&C=7&x=1&K=5").extras == {"Foo": "1"}


@pytest.mark.parametrize(
    "text",
    [
        f"{NOW_MS}",
        f"{NOW_MS // 1000}",
        f"{NOW_MS // 1000}.000",
        f"{NOW_MS}.0",
        f"{NOW_MS}000",
        f" {NOW_MS} ",
        "2026-11-23T07:44:00Z",
        "2026-11-23T08:44:00.000+01:00",
        "2026-11-23 07:44:00 utc",
    ],
)
def test_a_time_is_read_in_any_unit_that_leaves_no_doubt(text: str) -> None:
    assert java_time(text, AT) == AT


@pytest.mark.parametrize(
    "text", ["0", "-1", "null", "2026-11-23T07:44:00", "2026-13-45T07:44:00Z", f"{NOW_MS}00", "1", "{{x}}", "9" * 400]
)
def test_what_is_no_time_is_ignored(text: str) -> None:
    call = call_of(f"{NEEDED}&StartTimestampUTC={quote_plus(text)}")
    (row,) = ignored_of(call)
    assert row["reason"] == ("placeholder" if "{{" in text else "not_a_time")
    assert (row["placeholder"], row["value"], row["event"]) == ("StartTimestampUTC", text, "missed")


def test_the_record_lists_what_was_ignored() -> None:
    call = call_of(
        "CallType=Incoming&Event=pickup&CallID=77&Guid={{CallUUID}}&ResponderAgent=J%FCrgen",
        f"CallType=Incoming&Event=hangup&CallID=77&Guid={GUID}&RequestID=-1&IsCallRecorded=ja&RecordingURL={{{{RecordingURL}}}}"
        f"&StartTimestampUTC={NOW_MS}&EndTimestampUTC={NOW_MS - 1000}",
    )
    assert call.closing is not None
    assert call.closing.outcome is Outcome.ANSWERED
    record = call_record(call, 1)
    rows = [(row["event"], row["placeholder"], row["value"], str(row["reason"])) for row in ignored_of(call)]
    assert rows == [
        ("hangup", "DialApiRequestID", "-1", "not_a_request_id"),
        ("hangup", "EndTimestampUTC", str(NOW_MS - 1000), "contradicts"),
        ("hangup", "IsCallRecorded", "ja", "not_a_bit"),
        ("hangup", "RecordingURL", "", "placeholder"),
        ("pickup", "CallUUID", "{{CallUUID}}", "placeholder"),
        ("pickup", "ResponderAgent", "J%FCrgen", "not_utf8"),
    ]
    assert {row["call_id"] for row in ignored_of(call)} == {"77"}
    assert record["agent"]["guid"] == GUID  # type: ignore[index]
    assert record["fields"] == {"ResponderAgent": "Jürgen"}


def test_the_record_lists_timestamps_that_other_callbacks_contradict_and_those_of_an_earlier_version() -> None:
    facts = {
        "leg:Incoming:77:pickup": AT,
        "leg:Incoming:77:hangup": "2026-11-23T07:44:30.000000Z",
        "leg:Incoming:77:at.start": "2026-11-23T07:44:50.000000Z",
        "leg:Incoming:77:nonsense.EndTimestampUTC": "0",
    }
    call = derive(CallKey(SOURCE, CallRef("call-77")), facts, POLICY)
    assert call_record(call, 1)["ignored"] == [
        {"call_id": "77", "event": None, "placeholder": "EndTimestampUTC", "value": "0", "reason": "not_a_time"},
        {
            "call_id": "77",
            "event": None,
            "placeholder": "StartTimestampUTC",
            "value": "2026-11-23T07:44:50.000000Z",
            "reason": "contradicts",
        },
    ]


def test_what_is_ignored_is_masked_and_amends_no_call() -> None:
    adapter = parse_link(SAMPLE_LINK + "&s={{sectok}}&r={{RecordingURL}}")
    query = f"{NEEDED}&s=hunter2&s=hunter3&r=https://h/?sectok=a&r=https://h/?sectok=b"
    key, facts = facts_of(CallbackEvent(SOURCE, AT, query), adapter)
    call = derive(key, dict(facts), POLICY)
    rows = ignored_of(call)
    assert [(row["placeholder"], row["value"]) for row in rows] == [("RecordingURL", ""), ("sectok", "***")]
    plain = derive(key, {name: value for name, value in facts if "ignored." not in name}, POLICY)
    assert summary(call) == summary(plain)


@given(
    st.dictionaries(
        st.sampled_from(OPTIONAL),
        st.lists(
            st.binary(max_size=24) | st.sampled_from([b"null", b"{{x}}", b"-1", b"\xff", b"0", b" ", GUID.encode()]), max_size=3
        ),
        max_size=5,
    )
)
def test_any_bytes_in_any_optional_parameter_cost_no_call(values: dict[str, list[bytes]]) -> None:
    sent = "&".join(f"{NAMES[placeholder]}={quote_plus(value)}" for placeholder, each in values.items() for value in each)
    call = call_of(f"CallType=API&Event=missed&CallID=77&{sent}&Event=MISSED")
    assert call.closing is not None
    assert call.closing.outcome in {Outcome.MISSED, Outcome.AGENT_MISSED}
    record = call_record(call, 1)
    assert problems_of_event(call_event(call, record)[2]) == []
    for placeholder, each in values.items():
        for value in each:
            _must_be_accounted_for(call, record, placeholder, value)


def _must_be_accounted_for(call: Call, record: CallRecord, placeholder: str, value: bytes) -> None:
    """A value is in the record or among what it ignored, unless it is blank, or has the same meaning as another value."""
    rows = [row for row in ignored_of(call) if row["placeholder"] == placeholder]
    is_used = placeholder in record["fields"] or placeholder in {
        Placeholder.REQUEST_ID,
        Placeholder.GUID,
        Placeholder.IS_RECORDED,
        Placeholder.RECORDING_URL,
        Placeholder.STARTED,
        Placeholder.PICKED_UP,
        Placeholder.ENDED,
    }
    assert rows or is_used or not value.strip(b" \t\r\n\v\f\0\"'`\x1c\x1d\x1e\x1f\x85\xa0"), (placeholder, value, call)


@given(st.sampled_from(OPTIONAL), st.text(max_size=12))
def test_any_text_in_any_optional_parameter_is_read_as_it_is(placeholder: str, text: str) -> None:
    """Unescaped, as FocalScope sends it: what separates parameters apart. Half a surrogate pair is no text, and no error."""
    for value in (text, text.encode("utf-16-le", "surrogatepass")[:3].decode("utf-16-le", "replace") + "\udce9", "\ud800" + text):
        callback = parsed(f"{NAMES[placeholder]}={value.replace('&', '')}")
        assert (callback.call_type, callback.event, callback.call_id) == (CallType.INCOMING, LegEvent.MISSED, "77")
        for name, kept in callback.extras.items():
            assert name
            kept.encode()
        for ignored in callback.ignored:
            assert isinstance(ignored, IgnoredValue)
            ignored.value.encode()
