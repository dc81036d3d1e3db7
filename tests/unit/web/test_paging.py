"""Pages out of several places, made up by chance: every call once, in order, whatever the size of a page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console import call_query as calls
from console.call_query import CallQuery, CallRow, Position
from console.lookup import merge
from console.lookup.merge import find_calls
from tests.helpers import page_fakes as fakes

_AT = [f"2026-11-23T07:44:0{second}.000000Z" for second in range(4)]


def _row(number: int, at: int, *, outcome: str) -> CallRow:
    told = {"call": str(number), "request_id": number, "started_at": _AT[at], "outcome": outcome}
    return fakes.row().model_copy(update=told)


class _Place:
    """Some calls, as Redis or the history list them."""

    def __init__(self, rows: Sequence[CallRow]) -> None:
        self._rows = sorted(rows, key=lambda row: row.position, reverse=True)

    async def newest(self, query: CallQuery, before: Position | None) -> AsyncIterator[tuple[Position, CallRow | None]]:
        for row in self._rows:
            if before is None or row.position < before:
                yield row.position, row if query.matches(row) else None


async def _all_pages(places: Sequence[_Place], limit: int, most: int) -> list[str]:
    names: list[str] = []
    cursor, pages = None, 0
    while True:
        query = CallQuery(limit=limit, cursor=cursor, outcome="answered")
        page = await find_calls(query, places)
        assert len(page.rows) <= limit
        names += [row.call for row in page.rows]
        pages += 1
        assert pages < most
        if page.next is None:
            return names
        cursor = query.cursor_at(page.next)


_CALLS = st.dictionaries(st.integers(1, 40), st.tuples(st.integers(0, 3), st.sampled_from(["redis", "history", "both"])))


@settings(deadline=None)
@given(_CALLS, st.integers(1, 9), st.integers(2, 30), st.sets(st.integers(1, 40)))
async def test_every_call_that_matches_is_on_one_page(
    calls: dict[int, tuple[int, str]], limit: int, looked_at: int, missed_since: set[int]
) -> None:
    """What is in both places counts as the first has it: a call amended since does not match because the history is behind."""
    redis = [
        _row(number, at, outcome="dialed_missed" if number in missed_since else "answered")
        for number, (at, where) in calls.items()
        if where != "history"
    ]
    history = [_row(number, at, outcome="answered") for number, (at, where) in calls.items() if where != "redis"]
    expected = [number for number, (_, where) in calls.items() if where == "history" or number not in missed_since]
    expected.sort(key=lambda number: (calls[number][0], f"acme/{number}"), reverse=True)
    kept, merge._MAX_SCANNED = merge._MAX_SCANNED, looked_at
    try:
        names = await _all_pages([_Place(redis), _Place(history)], limit, 200)
    finally:
        merge._MAX_SCANNED = kept
    assert names == [str(number) for number in expected]


@given(_CALLS, st.integers(1, 9))
async def test_a_page_names_a_next_one_only_if_that_has_calls(calls: dict[int, tuple[int, str]], limit: int) -> None:
    """Also where the last page is exactly full, and where calls follow that do not match."""
    redis = [_row(number, at, outcome="answered") for number, (at, where) in calls.items() if where != "history"]
    history = [_row(number, at, outcome="dialed_missed") for number, (at, where) in calls.items() if where != "redis"]
    places, cursor, found = [_Place(redis), _Place(history)], None, len(redis)
    for _ in range(max(1, -(-found // limit))):
        query = CallQuery(limit=limit, cursor=cursor, outcome="answered")
        page = await find_calls(query, places)
        assert len(page.rows) == min(limit, found)
        found -= len(page.rows)
        assert (page.next is None) == (found == 0)
        cursor = None if page.next is None else query.cursor_at(page.next)
    assert found == 0


async def test_a_full_page_is_returned_without_a_long_search_for_one_more_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "_MAX_AHEAD", 5)
    rows = [_row(number, 0, outcome="answered" if number > 90 else "dialed_missed") for number in range(10, 100)]
    query = CallQuery(limit=9, outcome="answered")
    page = await find_calls(query, [_Place(rows)])
    assert [row.call for row in page.rows] == [str(number) for number in range(99, 90, -1)]
    assert page.next == rows[90 - 10 - 4].position, "so the search goes on after the calls that were looked at"


async def test_how_long_ago_is_counted_from_the_first_page_on_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day passes between two pages: what the first search meant is still listed."""
    rows = [_row(number, number % 4, outcome="answered").model_copy(update={"call": str(number)}) for number in range(8)]
    place, seen, cursor = _Place(rows), [], None
    at = datetime(2026, 11, 23, 8, tzinfo=UTC)
    while True:
        monkeypatch.setattr(calls, "datetime", _at(at))
        query = CallQuery.model_validate({"since": "1h", "until": "5m", "limit": 3} | ({"cursor": cursor} if cursor else {}))
        assert (query.since, query.until) == ("2026-11-23T07:00:00.000000Z", "2026-11-23T07:55:00.000000Z")
        page = await find_calls(query, [place])
        seen += [row.call for row in page.rows]
        if page.next is None:
            break
        cursor, at = query.cursor_at(page.next), at + timedelta(days=1)
    assert sorted(seen) == [str(number) for number in range(8)]
    assert at > datetime(2026, 11, 24, tzinfo=UTC)


def _at(moment: datetime) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return moment.astimezone(tz)

    return Clock
