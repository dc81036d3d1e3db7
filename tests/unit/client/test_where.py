"""Filters on the content of events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfold_client import Where, WhereError
from tests.helpers.history import call_event

EVENT: dict[str, Any] = call_event(513, talk_seconds=61.5, queue="Sales", fields={"LastQueueName": "Sales", "n": "7"})


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("talk_seconds > 60 and outcome == 'answered'", True),
        ("talk_seconds > 60 and outcome == 'missed'", False),
        ("talk_seconds > 100 or complete", True),
        ("not complete", False),
        ("not not complete", True),
        ("not (talk_seconds > 60 or talk_seconds < 10)", False),
        ("talk_seconds >= 61.5 and talk_seconds <= 61.5 and talk_seconds != 61", True),
        ("-1 < talk_seconds", True),
        ("queue in ['Support', \"Sales\"]", True),
        ("queue not in ['Support', 'Sales']", False),
        ("'ale' in queue", True),
        ("'LastQueueName' in fields", True),
        ("fields.LastQueueName == queue", True),
        ("agent.call_id == '5130'", True),
        ("dialed.number == null", True),
        ("dialed == null and agent != null", True),
        ("data.a_field_of_tomorrow == null", True),
        ("type == 'callfold.call.completed.v1' and subject == '513'", True),
        ("source == 'acme'", True),
        ("started_at > '2026-11-23'", True),
        ("ring_seconds > 1", False),  # it is null
        ("ring_seconds <= 1", False),
        ("not ring_seconds > 1", True),
        ("fields.n > 6", False),  # a text
        ("complete == 1", False),
        ("complete > false", False),
        ("talk_seconds", False),  # no truth value
        ("true", True),
        ("1 in [1, 2]", True),
        ("true in [1]", False),
        ("queue in 5", False),
    ],
)
def test_a_filter_means_what_it_says(text: str, *, matches: bool) -> None:
    assert Where(text).matches(EVENT) is matches
    assert str(Where(text)) == text


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "a field or a value is missing at the end"),
        ("talk_seconds >", 14, "a field or a value is missing at the end"),
        ("talk_second > 60", 0, "events have no field 'talk_second', but 'talk_seconds'"),
        ("outcome = 'answered'", 8, "'=' is not expected"),
        ("outcome == 'answered", 11, "the text has no closing quote"),
        ("(complete", 9, "')' is missing"),
        ("complete)", 8, "')' is not expected here"),
        ("queue in ['a' 'b']", 14, "',' is missing"),
        ("queue not 5", 10, "'in' is missing"),
        ("agent.", 6, "a name is missing after '.'"),
        ("and complete", 0, "'and' is no field or value"),
        ("__import__('os')", 0, "events have no field '__import__'"),
        ("(" * 60, 50, "it is nested more than 50 times"),
        ("[" * 60, 50, "it is nested more than 50 times"),
        ("1 == 1 or " * 500, 4096, "it has more than 4096 characters"),
    ],
)
def test_an_error_says_where_and_why(text: str, position: int, problem: str) -> None:
    with pytest.raises(WhereError) as raised:
        Where(text)
    assert (raised.value.position, raised.value.problem) == (position, problem)
    assert f"at character {position + 1}: {problem}." in str(raised.value)


@given(st.text(alphabet="talk_seconds.andornotin()[]'\"<>=! 0159,-", max_size=60))
def test_any_text_is_a_filter_or_an_error(text: str) -> None:
    position = 0
    try:
        Where(text).matches(EVENT)
    except WhereError as error:
        position = error.position
    assert 0 <= position <= len(text)
