"""What a reader of `GET /events` is sent: the events that match, and where it is, also while nothing matches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import pytest

from console.live.feed import BEFORE_FIRST, PublishedEvent
from console.web import event_streams
from console.web.event_streams import EventStreams
from console.web.models import EventsQuery
from tests.helpers.history import call_event

_KEEPALIVE = b": nothing new\n\n"


class _Feed:
    """A feed of these events; None is its heartbeat."""

    def __init__(self, events: Sequence[PublishedEvent | None]) -> None:
        self._events = events
        self.since: datetime | None = None

    async def events(self, after: int, since: datetime | None) -> AsyncGenerator[PublishedEvent | None, None]:
        assert after == BEFORE_FIRST or since is None
        self.since = since
        for event in self._events:
            yield event


def _event(offset: int, *, at: str = "2026-11-23T07:44:00.123456Z", **record: Any) -> PublishedEvent:  # noqa: ANN401
    return PublishedEvent(offset, "call.completed.acme.answered", at, orjson.dumps(call_event(offset, **record)))


async def _sent(feed: _Feed, after: int, **query: Any) -> list[bytes]:  # noqa: ANN401
    nothing: Any = None
    streams = EventStreams(cast("Any", feed), nothing, nothing, nothing)
    async with aclosing(streams._published(after, EventsQuery(**query))) as chunks:
        return [chunk.partition(b"event: ")[0] async for chunk in chunks]


async def test_the_position_comes_first_and_with_each_heartbeat() -> None:
    feed = _Feed([_event(8), None, None])
    assert await _sent(feed, 7) == [b"id: 7\n" + _KEEPALIVE, b"id: 8\n", *[b"id: 8\n" + _KEEPALIVE] * 2]
    assert await _sent(_Feed([None]), BEFORE_FIRST) == [_KEEPALIVE] * 2


async def test_a_reader_whom_nothing_matches_is_sent_the_position_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = _Feed([_event(8), _event(9)])
    assert await _sent(feed, 7, topic="none") == [b"id: 7\n" + _KEEPALIVE]
    monkeypatch.setattr(event_streams, "_POSITION_S", 0.0)
    assert await _sent(feed, 7, topic="none") == [b"id: %d\n" % offset + _KEEPALIVE for offset in (7, 8, 9)]


async def test_a_filter_on_the_content_decides_after_the_topic() -> None:
    feed = _Feed([_event(1, talk_seconds=61), _event(2, talk_seconds=60), _event(3, talk_seconds=None)])
    first, *sent = await _sent(feed, 0, where="talk_seconds > 60")
    assert (first, sent) == (b"id: 0\n" + _KEEPALIVE, [b"id: 1\n"])


async def test_since_is_the_time_of_publication_which_can_be_long_after_the_time_of_the_event() -> None:
    feed = _Feed([_event(1, at="2026-11-23T03:43:59.999999Z"), _event(2)])
    assert await _sent(feed, BEFORE_FIRST, since="2026-11-23T07:44:00Z") == [_KEEPALIVE, b"id: 1\n", b"id: 2\n"]
    assert feed.since == datetime(2026, 11, 23, 7, 44, tzinfo=UTC)
