"""Records with long transcripts: what keeps many of them keeps few of their bytes."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import orjson
import pytest
from sqlalchemy import select

from console.call_query import CallQuery
from console.history.batch import Batch, StreamMessage
from console.history.store import History
from console.history.tables import CALLS
from console.live import feed as feeds
from console.live.feed import Feed, PublishedEvent
from shared.config.settings import load_settings
from tests.helpers.history import call_event

ANNOTATION = {
    "id": "0" * 32,
    "type": "transcript",
    "at": "2026-11-23T07:44:00.000000Z",
    "by": "ears",
    "body": {"text": "x" * 5000},
}


def test_the_feed_keeps_fewer_events_if_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "_RECENT_BYTES", 1000)
    monkeypatch.setattr(feeds, "_RECENT_EVENTS", 20)
    feed = Feed(load_settings())
    feed._keep([PublishedEvent(number, "call.completed.acme.answered", "", b"x" * 10) for number in range(30)])
    assert [event.offset for event in feed.recent()] == list(range(10, 30))
    feed._keep([PublishedEvent(30, "call.amended.acme.answered", "", b"x" * 900)])
    assert [event.offset for event in feed.recent()] == list(range(20, 31))
    feed._keep([PublishedEvent(31, "call.amended.acme.answered", "", b"x" * 5000)])
    assert [event.offset for event in feed.recent()] == [31], "the latest event stays, however large it is"
    feed._keep([PublishedEvent(32, "call.completed.acme.answered", "", b"x" * 10)])
    assert [event.offset for event in feed.recent()] == [32]


async def test_the_history_keeps_annotations_with_the_event_and_not_in_the_row_of_the_call(tmp_path: Path) -> None:
    events = [call_event(513), call_event(513, revision=2, annotations=[ANNOTATION]), call_event(514)]
    async with aclosing(History(f"sqlite:///{tmp_path / 'history.sqlite'}", is_writer=True)) as history:
        await history.prepare()
        await history.write(Batch.of("calls.journal", [StreamMessage(n, orjson.dumps(event)) for n, event in enumerate(events)]))
        known = await history.call("acme", "513")
        assert known is not None
        assert known.record["annotations"] == [ANNOTATION]
        assert known.record == orjson.loads(orjson.dumps(events[1]))["data"]
        other = await history.call("acme", "514")
        assert other is not None
        assert "annotations" not in other.record
        rows = [row async for _, row in history.newest(CallQuery(), None)]
        assert len(rows) == 2
        stored = await history._do(lambda connection: connection.execute(select(CALLS.c.record)).scalars().all())
        assert max(map(len, stored)) < 3000
