"""How long the recording of a leg can be expected to be, by the call record, and whether it is much shorter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

# A recording begins late, and may pause. Only what lacks more than this is worth another download.
_MISSING_S = 10.0
_MISSING_PART = 0.2
_MICROSECONDS_OF_MS = "000Z"


def expected_seconds(record: Mapping[str, Any], call_id: str) -> float | None:
    """Return how long a leg talked. None: unknown, or only known from two clocks that may differ.

    The leg of an agent also lasts while the other phone rings, so the talk time of the call counts if it is shorter.
    """
    for leg in _legs(record):
        if leg.get("call_id") != call_id or leg.get("inferred"):
            continue
        talk_s = _between(leg.get("picked_up_at"), leg.get("hung_up_at"))
        of_call_s = record.get("talk_seconds")
        if talk_s is None or not isinstance(of_call_s, int | float):
            return None if record.get("outcome") == "answered" else talk_s
        return min(talk_s, of_call_s)
    return None


def is_much_shorter(seconds: float | None, expected_s: float | None) -> bool:
    """Return whether a recording lacks a large part of the talk. False if either is unknown."""
    if seconds is None or expected_s is None:
        return False
    return expected_s - seconds > max(_MISSING_S, _MISSING_PART * expected_s)


def _legs(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    others = record.get("other_legs")
    for leg in (record.get("agent"), record.get("dialed"), *(others if isinstance(others, list) else ())):
        if isinstance(leg, Mapping):
            yield leg


def _between(first: object, last: object) -> float | None:
    """Return the seconds between two times of one clock.

    Times of the PBX are in milliseconds, times of receipt in microseconds. Where one is of each, the clocks may differ.
    """
    if not isinstance(first, str) or not isinstance(last, str):
        return None
    if first.endswith(_MICROSECONDS_OF_MS) != last.endswith(_MICROSECONDS_OF_MS):
        return None
    try:
        seconds = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    except (TypeError, ValueError):
        return None
    return seconds if seconds >= 0 else None
