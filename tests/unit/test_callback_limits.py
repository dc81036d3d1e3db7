"""What a callback, a dial or a timer may have: beyond a limit it is refused, by the name of the parameter and in few words."""

from __future__ import annotations

from urllib.parse import quote

import orjson
import pytest

from shared.config.sources import Source
from shared.domain.adapter_link import make_link, parse_link
from shared.domain.callback import Callback, parse_callback
from shared.domain.callback_query import MAX_ENCODINGS, MAX_NAME_BYTES, MAX_PARAMETERS, MAX_VALUE_BYTES
from shared.domain.ids import SourceName
from shared.domain.raw_event import (
    MAX_FIELDS,
    CallbackEvent,
    DialEvent,
    TimerEvent,
    Undecodable,
    decode,
    encode,
    join,
)
from shared.errors import InvalidCallbackError
from worker.folding.batch import read_batch

ADAPTER = parse_link(make_link("https://h", "acme", None))
GOOD = "CallType=API&Event=hangup&CallID=1"
AT = "2026-11-23T07:44:00.123456Z"


def _nested(times: int) -> str:
    text = "a/b?c=d"
    for _ in range(times):
        text = quote(text, safe="")
    return text


# Encoded again and again in one place alone, without any `%25`.
def _slyly_nested(times: int) -> str:
    return "%4" + "%3" * (times - 1) + "1"


@pytest.mark.parametrize(
    "more",
    [
        "CallerID=" + "a" * MAX_VALUE_BYTES,
        "CallerID=" + "%C3%B8" * (MAX_VALUE_BYTES // 2),
        "RecordingURL=" + "a" * MAX_VALUE_BYTES,
        "foreign=" + "a" * MAX_VALUE_BYTES,
        "foreign=" + "%25" * MAX_VALUE_BYTES,
        "n" * MAX_NAME_BYTES + "=1",
        "&".join(f"foreign={number}" for number in range(MAX_PARAMETERS - 3)),
        "RecordingURL=" + _nested(MAX_ENCODINGS),
        "RecordingURL=" + _slyly_nested(MAX_ENCODINGS),
        "CallerID=100%25 %2525 sure%",
        "LastQueueName=Smith &Sons &Daughters",
    ],
)
def test_what_keeps_the_limits_is_a_callback(more: str) -> None:
    assert isinstance(parse_callback(ADAPTER, f"{GOOD}&{more}"), Callback)


BEYOND = [
    ("CallerID", "CallerID=" + "a" * (MAX_VALUE_BYTES + 1)),
    ("CallerID", "CallerID=" + "%61" * (MAX_VALUE_BYTES + 1)),
    ("CallerID", "CallerID=" + "%C3%B8" * (MAX_VALUE_BYTES // 2) + "a"),
    ("CallerID", "CallerID=" + "\N{GRINNING FACE}" * (MAX_VALUE_BYTES // 4 + 1)),
    ("LastQueueName", "LastQueueName=" + "a" * (MAX_VALUE_BYTES + 1)),
    ("RecordingURL", "RecordingURL=" + "a" * (MAX_VALUE_BYTES + 1)),
    ("RecordingURL", "RecordingURL=" + _nested(MAX_ENCODINGS + 1)),
    ("RecordingURL", "RecordingURL=" + _slyly_nested(MAX_ENCODINGS + 1)),
    ("CallerID", "CallerID=%" + "25" * 50_000),
    ("CallID", "CallID=%" + "25" * 50_000),
    ("foreign", "foreign=" + "a" * (MAX_VALUE_BYTES + 1)),
    ("foreign", "foreign=" + "%61" * (MAX_VALUE_BYTES + 1)),
    ("n" * 20 + "...", "n" * (MAX_NAME_BYTES + 1) + "=1"),
    ("n" * 20 + "...", "n" * 100_000),
    ("last", "&".join(f"foreign={number}" for number in range(MAX_PARAMETERS)) + "&last=1"),
    ("", "&" * 100_000),
    ("CallerID", "CallerID=" + "a" * 900_000),
    ("foreign", "a=1&foreign=" + "%25" * 300_000),
]


@pytest.mark.parametrize(("parameter", "more"), BEYOND)
def test_what_exceeds_a_limit_is_refused_by_name_and_in_few_words(parameter: str, more: str) -> None:
    with pytest.raises(InvalidCallbackError) as refused:
        parse_callback(ADAPTER, f"{more}&{GOOD}")
    assert refused.value.parameter == parameter
    assert len(str(refused.value)) < 200
    assert len(refused.value.shown_value) < 30


@pytest.mark.parametrize(("parameter", "more"), BEYOND)
def test_a_raw_event_that_exceeds_a_limit_is_a_dead_letter_with_its_reason(parameter: str, more: str) -> None:
    sources = {SourceName("acme"): Source(name=SourceName("acme"), secret=None, adapter=ADAPTER)}
    event = CallbackEvent(SourceName("acme"), AT, f"{more}&{GOOD}")
    batch = read_batch(decode(join([encode(event)])), sources)
    (letter,) = batch.dead_letters
    assert letter.body == join([encode(event)])
    assert letter.headers["reason"] == "invalid_callback"
    assert parameter in str(letter.headers["detail"])
    assert not batch.facts


def _dial(**more: object) -> bytes:
    return orjson.dumps([{"v": 1, "kind": "dial", "source": "acme", "received_at": AT, "request_id": 5, "fields": {}} | more])


def test_the_largest_dial_of_the_console_keeps_the_limits() -> None:
    fields = dict.fromkeys(("agent", "number", "reference"), "😀" * 256)
    fields |= {f"metadata.{'n' * 62}{number:02}": "\N{GRINNING FACE}" * 256 for number in range(20)}
    (event,) = decode(_dial(fields=fields))
    assert isinstance(event, DialEvent)
    assert event.fields == fields


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (_dial(fields={f"n{number}": "1" for number in range(MAX_FIELDS + 1)}), "fields"),
        (_dial(fields={"n" * 10_000: "1"}), "fields.nnnn"),
        (_dial(fields={"n" * 10_000: []}), "fields.nnnn"),
        (_dial(fields={"reference": "a" * 5000}), "fields.reference"),
        (_dial(kind="k" * 10_000), "unknown kind"),
        (_dial(v="1" * 10_000), "unknown version"),
        (_dial(v=[["1"] * 10_000]), "unknown version"),
        (_dial(source="s" * 10_000), "source"),
        (_dial(kind="timer", call="5" * 10_000), "call"),
        (_dial(kind="timer", call="513/2"), "call"),
    ],
)
def test_an_event_that_exceeds_a_limit_is_undecodable_in_few_words(body: bytes, said: str) -> None:
    (event,) = decode(body)
    assert isinstance(event, Undecodable)
    assert event.body == body
    assert said in event.problem
    assert len(event.problem) < 200


def test_a_timer_names_a_call() -> None:
    for call in ("513", "call-1000000087849"):
        (event,) = decode(_dial(kind="timer", call=call))
        assert isinstance(event, TimerEvent)
        assert event.call == call
