"""Records of calls, from lines that say what came in."""

from __future__ import annotations

from typing import Any

import orjson

from shared.domain.call_event import call_record
from shared.domain.facts import facts_of
from shared.domain.raw_event import CallbackEvent, DialEvent
from tests.helpers.folding import ADAPTER, SOURCE, Published, at, callback, timer

Line = str
"""Seconds, call type, CallID, event, and further parameters."""

A, B = "API 1", "API 2"
D, E = "Outgoing 3", "Outgoing 4"


def event_of(line: Line, request_id: str = "513") -> CallbackEvent:
    seconds, call_type, call_id, event, *more = line.split()
    request = [f"RequestID={request_id}"] if request_id else []
    return callback(float(seconds), "&".join([f"CallType={call_type}&CallID={call_id}&Event={event}", *request, *more]))


def record(*lines: Line, dial: dict[str, str] | None = None, until: float = 9000, request_id: str = "513") -> dict[str, Any]:
    """Fold callbacks, and a timer long after them; returns the record as published."""
    history = Published()
    if dial:
        history.facts |= facts_of(DialEvent(SOURCE, at(0), 513, dial), ADAPTER)[1]
    history.fold([event_of(line, request_id) for line in lines])
    history.fold([timer(until, str(history.key.call))])
    data: dict[str, Any] = orjson.loads(orjson.dumps(call_record(history.call(), 1)))
    return data


SECOND_AGENT = (f"0 {A} hangup", f"0 {A} missed", f"5 {B} pickup", f"9 {D} pickup", f"30 {D} hangup", f"31 {B} hangup")
SECOND_NUMBER = (f"0 {A} pickup", f"9 {D} missed", f"12 {E} pickup", f"30 {E} hangup", f"31 {A} hangup")
DIAL = {"agent": "1001", "number": "+4512345678"}
