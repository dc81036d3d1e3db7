"""How long a recording should be, as far as the call record says, and when it is too short."""

from __future__ import annotations

from typing import Any

import pytest

from shared.domain.expected_talk import expected_seconds, is_much_shorter

MINUTE = {"picked_up_at": "2026-11-23T07:44:00.123000Z", "hung_up_at": "2026-11-23T07:45:00.123000Z"}
RECEIVED = {"picked_up_at": "2026-11-23T07:44:00.123456Z", "hung_up_at": "2026-11-23T07:45:00.123456Z"}


def record(leg: dict[str, Any], **changed: Any) -> dict[str, Any]:  # noqa: ANN401
    call = {"outcome": "answered", "talk_seconds": 60.0, "agent": None, "dialed": None, "other_legs": []}
    return call | {"dialed": {"call_id": "8", "inferred": False} | leg} | changed


@pytest.mark.parametrize(
    ("call", "seconds"),
    [
        (record(MINUTE), 60),
        (record(RECEIVED), 60),
        (record(MINUTE, talk_seconds=45.5), 45.5),
        (record(MINUTE, talk_seconds=90.0), 60),
        (record(MINUTE, talk_seconds=None), None),
        (record(MINUTE, talk_seconds=None, outcome="agent_hung_up"), 60),
        (record(MINUTE | {"inferred": True}), None),
        (record(MINUTE | {"hung_up_at": RECEIVED["hung_up_at"]}), None),
        (record(MINUTE | {"picked_up_at": None}), None),
        (record(MINUTE | {"picked_up_at": "yesterday"}), None),
        (record(MINUTE | {"hung_up_at": "2026-11-23T07:43:00.123000Z"}), None),
        (record({}, other_legs=[{"call_id": "8"} | MINUTE], dialed=None), 60),
        (record({}, dialed="8", other_legs="8"), None),
        ({}, None),
    ],
)
def test_the_talk_of_a_leg_counts_if_one_clock_shows_it(call: dict[str, Any], seconds: float | None) -> None:
    assert expected_seconds(call, "8") == seconds
    assert expected_seconds(call, "9") is None


@pytest.mark.parametrize(
    ("seconds", "expected_s", "is_shorter"),
    [
        (50, 60, False),
        (47.9, 60, True),
        (0.5, 10, False),
        (0, 10.1, True),
        (290, 300, False),
        (239, 300, True),
        (61, 60, False),
        (None, 60, False),
        (0, None, False),
    ],
)
def test_a_recording_is_too_short_if_it_lacks_ten_seconds_and_a_fifth(
    seconds: float | None, expected_s: float | None, *, is_shorter: bool
) -> None:
    assert is_much_shorter(seconds, expected_s) is is_shorter
