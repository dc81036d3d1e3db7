"""The record in docs/record.md is what the vendor's example publishes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson

from shared.domain.adapter_link import make_link, parse_link
from shared.domain.call import Call, derive
from shared.domain.call_event import call_event, call_record, traceparent_of
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent
from tests.helpers.folding import at
from tests.helpers.servers import POLICY

PAGE = Path(__file__).parents[3] / "docs" / "record.md"
SOURCE = SourceName("default")
ADAPTER = parse_link(make_link("https://callfold.example.com", SOURCE, None))
AGENT = "CallType=API&CallID=1000000087849&Guid=bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"
DIALED = "CallType=Outgoing&CallID=1000000087850&Guid=923041af-adb5-a8ae-f29c-e60ea5e17448"
MORE = "&RequestID=513&ResponderAgentExt=1001&ResponderAgent=Kasper&ResponderUserID=1234&LastQueueName=Sales"


def example_call() -> Call:
    """Fold the vendor's four callbacks, with a dial request and the names of agent and queue."""
    events: list[RawEvent] = [
        DialEvent(SOURCE, at(-4), 513, {"agent": "1001", "number": "+4512345678", "reference": "crm-42"}),
        CallbackEvent(SOURCE, at(0), f"{AGENT}&Event=pickup{MORE}"),
        CallbackEvent(SOURCE, at(3), f"{DIALED}&Event=pickup{MORE}"),
        CallbackEvent(SOURCE, at(33), f"{DIALED}&Event=hangup&IsCallRecorded=1{MORE}"),
        CallbackEvent(SOURCE, at(34.5), f"{AGENT}&Event=hangup&IsCallRecorded=1{MORE}"),
    ]
    found = [facts_of(event, ADAPTER) for event in reversed(events)]
    return derive(found[0][0], {name: value for _, facts in found for name, value in facts}, POLICY)


def example() -> dict[str, object]:
    call = example_call()
    _, _, body = call_event(call, call_record(call, 1))
    published: dict[str, object] = orjson.loads(body)
    return published


def test_the_record_of_the_page_is_the_one_that_is_published() -> None:
    text = PAGE.read_text("utf-8").partition("## The record\n")[2].partition("```json\n")[2].partition("```")[0]
    assert orjson.loads(text) == example()


def test_the_trace_context_of_an_event_is_found_behind_the_longest_names() -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    key = CallKey(SourceName("a" * 63), CallRef(f"call-{'9' * 20}.99999"))
    call = replace(example_call(), key=key)
    _, _, body = call_event(call, {**call_record(call, 1), "revision": 1 << 31}, trace)
    assert traceparent_of(body) == trace
    event = orjson.loads(body)
    assert list(event)[-5:] == ["dataschema", "sequence", "partitionkey", "traceparent", "data"]
    assert (event["sequence"], event["partitionkey"]) == (str(1 << 31), str(key))
    assert traceparent_of(call_event(call, call_record(call, 1))[2]) == ""
