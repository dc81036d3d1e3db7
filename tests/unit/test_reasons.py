"""Why an attempt failed: each reason has a rule, the schedule keeps to it, and the documentation says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.domain.recording_reasons import Reason
from worker.download.failures import BY_STATUS, RULES, Result, next_wait_s, result_of

SCHEDULE = (5, 30, 120, 600, 3600, 21600)
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "recordings.md").read_text("utf-8")


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_tried_as_often_as_the_documentation_says(reason: Reason) -> None:
    tries = 1
    while next_wait_s(reason, tries, SCHEDULE) == (SCHEDULE[tries - 1] if tries <= len(SCHEDULE) else 0):
        tries += 1
    assert next_wait_s(reason, tries, SCHEDULE) is None
    (row,) = re.findall(rf"^\|[^|\n]*\| `{reason}` \| (\w+) \| (\w+) \|$", TEXT, re.MULTILINE)
    assert row == ("all" if tries == len(SCHEDULE) + 1 else str(tries), RULES[reason].result)


def test_only_what_the_pbx_says_it_does_not_have_is_absent() -> None:
    assert {reason for reason, rule in RULES.items() if rule.result is Result.ABSENT} == {Reason.NOT_FOUND, Reason.EMPTY}
    assert {status for status, reason in BY_STATUS.items() if RULES[reason].result is Result.ABSENT} == {204, 404, 410}


def test_a_shorter_schedule_than_a_rule_allows_is_used_up() -> None:
    assert next_wait_s(Reason.NOT_ALLOWED, 1, (0.2,)) == 0.2
    assert next_wait_s(Reason.NOT_ALLOWED, 2, (0.2,)) is None


def test_tries_for_another_reason_do_not_use_up_those_of_this_one() -> None:
    """Not found for minutes, then seen while it is written: it is looked at again."""
    assert next_wait_s(Reason.TRUNCATED, 5, SCHEDULE, same_reason=1) == SCHEDULE[4]
    assert next_wait_s(Reason.TRUNCATED, 5, SCHEDULE, same_reason=5) is None
    assert next_wait_s(Reason.NOT_ALLOWED, 7, SCHEDULE, same_reason=1) is None, "the schedule is the limit of all"


def test_a_recording_is_absent_only_where_it_was_said_so_each_time() -> None:
    assert result_of(["not_found"] * 6 + ["empty"]) is Result.ABSENT
    assert result_of(["unexpected_status"] * 6 + ["not_found"]) is Result.FAILED
    assert result_of(["truncated", "not_found"]) is Result.FAILED
