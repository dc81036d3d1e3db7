"""A rolling upgrade from the first release: what that release has published is amended only if its facts change.

`released/first_release.jsonl.gz` holds 400 calls as that release folded them: the facts, and the summary and the record of the last revision.
A quarter are calls of the simulator. The others are random: up to three legs a side and one of another type, lost, late and repeated
events, with the adapter's timestamps, with some of them, or without.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from console.call_query import row_of
from shared.domain.call import Call, Status, derive
from shared.domain.call_event import call_record
from shared.domain.ids import CallKey, CallRef
from shared.domain.raw_event import CallbackEvent
from shared.domain.recording_plan import recording_jobs
from shared.domain.revision_summary import amends, filed_at, requested_recordings, summary
from shared.rebuild.published_summary import published_summary
from tests.helpers.folding import SOURCE, Published, callback, timer
from tests.helpers.servers import POLICY

Row = Mapping[str, Any]
FILE = Path(__file__).parent / "released" / "first_release.jsonl.gz"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [orjson.loads(line) for line in gzip.decompress(FILE.read_bytes()).splitlines()]


def _call(row: Row) -> Call:
    return derive(CallKey(SOURCE, CallRef(row["call"])), row["facts"], POLICY)


def _published(row: Row) -> str:
    return orjson.dumps(row["summary"], option=orjson.OPT_SORT_KEYS).decode()


def _amends_in_the_first_release(before: str, after: str) -> bool:
    """The rule of that release, word for word."""
    if before == after:
        return False
    old, new = orjson.loads(before), orjson.loads(after)
    for content in (old, new):
        del content["filed_at"]
        for name in ("guids", "asked"):
            content.pop(name, None)
    talk_seconds = [content.pop("talk_seconds") for content in (old, new)]
    if None in talk_seconds:
        return bool(old != new or talk_seconds[0] != talk_seconds[1])
    return bool(old != new or abs(talk_seconds[0] - talk_seconds[1]) >= 1)


def _requested_in_the_first_release(before: str) -> set[tuple[str, str]]:
    content = orjson.loads(before)
    return {(key, name) for key, (_, name) in content["legs"].items() if name and key in content["asked"]}


def test_an_upgrade_amends_no_call_whose_facts_stay(rows: list[Row]) -> None:
    assert len(rows) == 400
    assert [
        row["facts"] for row in rows if amends(_published(row), summary(_call(row), _published(row), row["record_legs"]))
    ] == []


def test_a_worker_of_the_first_release_beside_this_one_amends_nothing_and_requests_no_recording_again(rows: list[Row]) -> None:
    for row in rows:
        now = summary(_call(row), _published(row), row["record_legs"])
        assert not _amends_in_the_first_release(now, _published(row)), row["facts"]
        assert _requested_in_the_first_release(now) >= _requested_in_the_first_release(_published(row))


def test_an_upgrade_requests_no_recording_again(rows: list[Row]) -> None:
    for row in rows:
        call = _call(row)
        had = requested_recordings(call, _published(row), row["record_legs"])
        jobs = recording_jobs(call, {}, row["record_legs"], _published(row))
        names = {(f"{leg.call_type}/{leg.call_id}") for leg in call.legs if leg.recorded}
        assert {key for key, _ in had} <= names
        fetched = [job.call_id for job in jobs if job.fetch]
        assert [call_id for call_id in fetched if any(key.endswith(f"/{call_id}") for key, _ in had)] == []


def test_a_recording_that_the_first_release_did_not_want_counts_as_not_requested(rows: list[Row]) -> None:
    not_wanted = 0
    for row in rows:
        had = requested_recordings(_call(row), _published(row), ["agent", "dialed"])
        assert had == _requested_in_the_first_release(_published(row))
        not_wanted += sum(bool(name) for _, name in row["summary"]["legs"].values()) - len(had)
    assert not_wanted > 20


def test_a_rebuild_from_records_of_the_first_release_amends_nothing(rows: list[Row]) -> None:
    for row in rows:
        call = _call(row)
        read_back = published_summary(
            row["record"], filed_at(call, _published(row)), row["facts"], call, record_legs=row["record_legs"]
        )
        assert read_back is not None
        if len({leg.call_id for leg in call.legs}) == len(call.legs):  # those records do not give the type of a leg
            assert not amends(read_back, summary(call, read_back, row["record_legs"])), row["facts"]
        record = orjson.loads(orjson.dumps(call_record(call, 1)))
        again = published_summary(record, call.started_at, row["facts"], call, record_legs=row["record_legs"])
        assert again == summary(call, "", row["record_legs"])


def _amended(*lines: str, late: str) -> bool | None:
    """Return whether a late callback amends a call that is complete; the call is the same if the callback comes twice."""
    history = Published()
    for line in lines:
        history.fold([_event(line)])
    history.fold([timer(9000)])
    assert history.revision >= 1
    revision = history.revision
    history.fold([_event(late)])
    amended = history.revision > revision
    assert history.fold([_event(late), *map(_event, lines)]) is None, "a repeat"
    return amended


def _event(line: str) -> CallbackEvent:
    seconds, call_type, call_id, event, *more = line.split()
    return callback(float(seconds), "&".join([f"CallType={call_type}&CallID={call_id}&Event={event}&RequestID=513", *more]))


ANSWERED = ("0 API 1 pickup", "3 Outgoing 2 pickup", "33 Outgoing 2 hangup", "34.5 API 1 hangup")


@pytest.mark.parametrize(
    ("late", "amended"),
    [
        ("34.5 API 1 missed ResponderAgentExt=1001", True),  # who the agent is
        ("34.5 API 1 missed ResponderAgent=Kasper", True),
        ("34.5 API 1 missed ResponderUserID=7", True),
        ("34.5 API 1 missed LastQueueName=Sales", True),
        ("33 Outgoing 2 missed CallerID=0700", True),  # who was dialed
        ("34.5 API 1 missed CallerID=0700", False),  # only in `fields`
        ("34.5 API 1 missed ResponderUserName=x", False),
        ("30 API 1 hangup", True),  # who ended it, and the talk time
        ("33.4 API 1 hangup", False),  # the order is unknown now; a fraction of a second
        ("90 API 9 missed", True),  # another leg
        ("50 API 1 pickup", False),  # a repeat
        ("50 Outgoing 2 start", False),  # another ring time
    ],
)
def test_a_late_fact_amends_if_the_page_says_so(late: str, amended: bool) -> None:  # noqa: FBT001
    assert _amended(*ANSWERED, late=late) is amended


def test_another_agent_who_answered_late_amends_even_if_no_state_changes() -> None:
    """Facts that only change which leg is `agent`: an earlier receipt of a leg that answered."""
    lines = ("5 API 1 pickup", "8 API 9 pickup", *ANSWERED[1:3], "34 API 1 hangup", "34 API 9 hangup")
    assert _amended(*lines, late="4 API 9 start")
    assert not _amended(*lines, late="6 API 9 start")


def test_records_of_the_first_release_are_listed_as_they_were(rows: list[Row]) -> None:
    for row in rows:
        listed = row_of(row["record"], row["call"], Status.COMPLETE)
        assert (listed.outcome, listed.talk_seconds) == (row["record"]["outcome"], row["record"]["talk_seconds"])
