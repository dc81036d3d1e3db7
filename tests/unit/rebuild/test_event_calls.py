"""The call of an event is found without parsing it, and is the one that the fold finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.config.sources import DEFAULT_SOURCE, Source, Sources, load_sources
from shared.domain.adapter_link import parse_link
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, DialEvent, TimerEvent, Undecodable
from shared.errors import InvalidCallbackError
from shared.rebuild.event_calls import EventCalls

AT = "2026-11-23T07:44:00.123456Z"
OTHER = SourceName("other")
_DEFAULT = load_sources(None)[DEFAULT_SOURCE]
_LINK = "https://x/callbacks/other?Type={{CallTypeName}}&What={{DialApiEventName}}&Leg={{CallID}}&Req={{DialApiRequestID}}"
SOURCES: Sources = {
    DEFAULT_SOURCE: _DEFAULT,
    OTHER: Source(name=OTHER, secret=None, adapter=parse_link(_LINK)),
}
_NAMES = (
    "CallType",
    "Event",
    "CallID",
    "RequestID",
    "requestid",
    "Request%49D",
    " RequestID",
    "amp;RequestID",
    "Req",
    "Leg",
    "x",
)
_VALUES = (
    "API",
    "pickup",
    "77",
    "513",
    "0513",
    "0",
    "",
    "5,13",
    "51+3",
    "%35",
    "\uff19",
    "1" * 18,
    "1" * 19,
    "{{CallID}}",
    "a?b=1",
)
_LINKS = ("RecordingURL=http://h/r?a=1", "RecordingURL=http%3A%2F%2Fh%2Fr", "RequestID=513#RequestID=514", "CallerID=%2B45;x")
_PARTS = st.tuples(st.sampled_from(_NAMES), st.sampled_from(_VALUES)).map("=".join) | st.sampled_from(_LINKS)
_QUERIES = st.tuples(
    st.sampled_from(("CallType=API&Event=pickup&CallID=77", "CallType=API&Event=pickup&CallID=77&RequestID=513", "")),
    st.lists(_PARTS, max_size=5),
    st.sampled_from(("&", "&", "&", ";", "&amp;")),
).map(lambda row: row[2].join(filter(None, (row[0], *row[1]))))


def call_of(event: CallbackEvent) -> CallKey | None:
    try:
        return facts_of(event, SOURCES[event.source].adapter)[0]
    except InvalidCallbackError:
        return None


@given(_QUERIES, st.sampled_from([DEFAULT_SOURCE, OTHER]))
def test_the_call_is_the_one_that_the_fold_finds(query: str, source: SourceName) -> None:
    event = CallbackEvent(source, AT, query)
    expected = call_of(event)
    assert EventCalls(SOURCES).certain(event) == expected
    if expected is not None:
        assert EventCalls(SOURCES).of(event) == expected


def test_a_usual_callback_is_not_parsed() -> None:
    calls = EventCalls(SOURCES)
    event = CallbackEvent(DEFAULT_SOURCE, AT, "RequestID=513&CallerID=%2B4512345678")  # of no type, so the fold refuses it
    assert calls.of(event) == CallKey(DEFAULT_SOURCE, CallRef("513"))
    assert calls.certain(event) is None


def test_other_events_have_their_calls() -> None:
    calls = EventCalls(SOURCES)
    assert calls.of(DialEvent(DEFAULT_SOURCE, AT, 513, {})) == CallKey(DEFAULT_SOURCE, CallRef("513"))
    assert calls.of(TimerEvent(DEFAULT_SOURCE, AT, CallRef("513.2"))) == CallKey(DEFAULT_SOURCE, CallRef("513.2"))
    assert calls.of(TimerEvent(SourceName("gone"), AT, CallRef("513"))) is None
    assert calls.of(Undecodable(b"{}", "no event")) is None
