"""Holding what was published against what is true. Every difference is a sentence that names the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from simulator.scenario import LegTruth, Truth

Event = Mapping[str, Any]
Fingerprint = Callable[[str], tuple[int, str]]

COMPLETED = "callfold.call.completed.v1"
STORED = "callfold.recording.stored.v1"


def differences(truths: Mapping[int, Truth], events: Iterable[Event], fingerprint: Fingerprint) -> list[str]:
    """Compare; `fingerprint` tells a recording's bytes and SHA-256. An event that came twice must be equal both times."""
    told: dict[str, Event] = {}
    found = [
        f"event {event['id']} was published twice with different bodies"
        for event in events
        if told.setdefault(event["id"], event) != event
    ]
    calls: dict[int, list[Event]] = {}
    stored: dict[tuple[int, str], Event] = {}
    for event in told.values():
        number = event["data"]["request_id"]
        if number not in truths:
            found.append(f"event {event['id']} is about a call that was never dialed")
        elif event["type"] == COMPLETED:
            calls.setdefault(number, []).append(event)
        elif event["type"] == STORED:
            stored[number, event["data"]["call_id"]] = event
        else:
            found.append(f"event {event['id']} of type {event['type']} was not expected")
    for number, truth in truths.items():
        found += _call(truth, calls.get(number, []))
        found += [line for leg in truth.legs if leg.recorded for line in _recording(number, leg, stored, fingerprint)]
    return found


def _call(truth: Truth, events: list[Event]) -> list[str]:
    if truth.dropped:
        return []  # what its missing callbacks leave open is no difference
    if len(events) != 1:
        return [f"call {truth.request_id} was published {len(events)} times, expected once"]
    data = events[0]["data"]
    wanted = {"outcome": truth.outcome.value, "complete": True, "revision": 1}
    found = [
        f"call {truth.request_id}: {name} is {data[name]!r}, expected {value!r}"
        for name, value in wanted.items()
        if data[name] != value
    ]
    for side, leg in (("agent", truth.agent), ("dialed", truth.dialed)):
        found += [f"call {truth.request_id}: {side} {line}" for line in _leg(leg, data[side])]
    return found


def _leg(truth: LegTruth | None, told: Mapping[str, Any] | None) -> list[str]:
    if truth is None or told is None:
        return [] if truth is None and told is None else [f"leg is {told!r}, expected {truth!r}"]
    wanted = {
        "call_id": truth.call_id,
        "guid": truth.guid,
        "state": truth.state.value,
        "recorded": truth.recorded,
        "inferred": False,
    }
    return [f"{name} is {told[name]!r}, expected {value!r}" for name, value in wanted.items() if told[name] != value]


def _recording(number: int, leg: LegTruth, stored: Mapping[tuple[int, str], Event], fingerprint: Fingerprint) -> list[str]:
    event = stored.get((number, leg.call_id))
    if event is None:
        return [f"call {number}: the recording of {leg.call_id} was not stored"]
    told = (event["data"]["bytes"], event["data"]["sha256"])
    wanted = fingerprint(leg.call_id)
    return [] if told == wanted else [f"call {number}: the recording of {leg.call_id} is {told}, expected {wanted}"]
