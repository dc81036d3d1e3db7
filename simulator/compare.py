"""Comparison of the published events with the simulated calls. Each difference is a sentence that names the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shared.domain.adapter_link import Placeholder
from shared.domain.parties import EndedBy
from simulator.scenario import LegTruth, Truth

Event = Mapping[str, Any]
Fingerprint = Callable[[str], tuple[int, str]]

COMPLETED = "callfold.call.completed.v1"
STORED = "callfold.recording.stored.v1"


def differences(truths: Mapping[int, Truth], events: Iterable[Event], fingerprint: Fingerprint) -> list[str]:
    """Return all differences. An event may be published twice, but with equal bodies.

    `fingerprint` returns size and SHA-256 of a recording.
    """
    by_id: dict[str, Event] = {}
    lines = [
        f"event {event['id']} was published twice with different bodies"
        for event in events
        if by_id.setdefault(event["id"], event) != event
    ]
    calls: dict[int, list[Event]] = {}
    stored: dict[tuple[int, str], Event] = {}
    for event in by_id.values():
        number = event["data"]["request_id"]
        if number not in truths:
            lines.append(f"event {event['id']} is about a call that was never dialed")
        elif event["type"] == COMPLETED:
            calls.setdefault(number, []).append(event)
        elif event["type"] == STORED:
            stored[number, event["data"]["call_id"]] = event
        else:
            lines.append(f"event {event['id']} of type {event['type']} was not expected")
    for number, truth in truths.items():
        lines += _compare_call(truth, calls.get(number, []))
        for leg in truth.legs:
            if leg.recorded:
                lines += _compare_recording(number, leg, stored, fingerprint)
    return lines


def _compare_call(truth: Truth, events: list[Event]) -> list[str]:
    if truth.dropped:
        return []  # with missing callbacks, several results are correct
    if len(events) != 1:
        return [f"call {truth.request_id} was published {len(events)} times, expected once"]
    data = events[0]["data"]
    expected: dict[str, object] = {"outcome": truth.outcome.value, "complete": True, "revision": 1, "call_type": "API"}
    # The adapter link may have no timestamps. Then the order of the hangups can stay unknown, but it is never wrong.
    if truth.ended_by is not EndedBy.UNKNOWN and data["ended_by"] != EndedBy.UNKNOWN:
        expected["ended_by"] = truth.ended_by
    lines = _compare_fields(data, expected)
    for side, leg in (("agent", truth.agent), ("dialed", truth.dialed)):
        lines += [f"{side} {line}" for line in _compare_leg(leg, data[side])]
    return [f"call {truth.request_id}: {line}" for line in lines]


def _compare_leg(truth: LegTruth | None, published: Mapping[str, Any] | None) -> list[str]:
    if truth is None or published is None:
        return [] if truth is None and published is None else [f"leg is {published!r}, expected {truth!r}"]
    expected: dict[str, object] = {
        "call_type": truth.call_type.value,
        "call_id": truth.call_id,
        "guid": truth.guid,
        "state": truth.state.value,
        "recorded": truth.recorded,
        "inferred": False,
    }
    if Placeholder.AGENT_EXTENSION in published["fields"]:
        expected["extension"] = truth.extension
    if Placeholder.CALLER_ID in published["fields"]:
        expected["number"] = truth.number
    return _compare_fields(published, expected)


def _compare_fields(published: Mapping[str, Any], expected: Mapping[str, object]) -> list[str]:
    return [f"{name} is {published[name]!r}, expected {value!r}" for name, value in expected.items() if published[name] != value]


def _compare_recording(
    number: int, leg: LegTruth, stored: Mapping[tuple[int, str], Event], fingerprint: Fingerprint
) -> list[str]:
    event = stored.get((number, leg.call_id))
    if event is None:
        return [f"call {number}: the recording of {leg.call_id} was not stored"]
    published = (event["data"]["bytes"], event["data"]["sha256"])
    expected = fingerprint(leg.call_id)
    return [] if published == expected else [f"call {number}: the recording of {leg.call_id} is {published}, expected {expected}"]
