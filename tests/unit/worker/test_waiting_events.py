"""Events that waited are folded in messages that can be decoded, however large the events are."""

from __future__ import annotations

from shared.domain.annotation import MAX_BODY_BYTES
from shared.domain.raw_event import RawEvent, decode, encode
from shared.rebuild.replay import _weight
from tests.helpers.folding import annotation, callback
from worker.folding.waiting_events import _messages


def test_large_events_are_folded_a_few_at_a_time_and_in_their_order() -> None:
    events = [annotation(number, str(number), "x" * (MAX_BODY_BYTES - 20)) for number in range(200)]
    small = [callback(number, "CallType=API&CallID=1&Event=pickup&RequestID=513") for number in range(200)]
    waiting: list[RawEvent] = [*events, *small]
    messages = list(_messages(map(encode, waiting)))
    assert [event for message in messages for event in decode(message)] == waiting
    assert max(map(len, messages)) <= 1 << 20
    assert len(messages) < 75
    assert list(_messages([])) == []


def test_a_long_event_counts_as_many_in_a_replay() -> None:
    assert _weight([("leg:API:1:pickup", "2026-11-23T07:44:00.000000Z")]) == 1
    assert _weight([("+annotation:1", "{}"), ("=1", "x" * MAX_BODY_BYTES)]) == 65
