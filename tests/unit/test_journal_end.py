"""The end of a journal is that of the server that has most of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from callfold_client import stream_cursor, stream_reader
from callfold_client.errors import StreamError
from callfold_client.stream_cursor import StreamCursor
from callfold_client.stream_reader import StreamReader
from shared.amqp import consumer, stream_end
from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.topology import Topology
from shared.errors import BrokerUnavailableError

ONE, THREE = ("amqp://a/",), ("amqp://a/", "amqp://b/", "amqp://c/")


class _Reader(Consumer):
    """A consumer whose server has more of the stream each time it is asked. -2 stands for a lost connection."""

    def __init__(self, urls: tuple[str, ...], ends: Sequence[int | None]) -> None:
        super().__init__(BrokerAddress(urls, Topology(), "tests"), "calls.journal", prefetch=1)
        self._ends: Iterator[int | None] = iter(ends)
        self._last: int | None = None

    async def stream_end(self) -> int | None:
        self._last = next(self._ends, self._last)
        if self._last == -2:
            raise BrokerUnavailableError("lost")
        return self._last


def _reading(transport: Consumer, cursor: StreamCursor | None = None) -> StreamReader[Delivery]:
    return StreamReader(transport, cursor or StreamCursor("first"))


def _others_have(monkeypatch: pytest.MonkeyPatch, latest: int | None) -> None:
    async def latest_end(asked: Sequence[str], stream: str) -> int | None:
        assert (asked, stream) == (THREE, "calls.journal")
        if latest == -2:
            raise BrokerUnavailableError("no majority")
        return latest

    monkeypatch.setattr(consumer, "latest_end", latest_end)


@pytest.mark.parametrize(
    ("urls", "ends", "latest", "expected"),
    [
        (THREE, [4], 4, 4),
        (THREE, [None], None, None),
        (THREE, [4, 4, 6, 9], 9, 9),
        (THREE, [None, None, 0], 0, 0),
        (THREE, [5], 4, 5),
        (THREE, [5], None, 5),
        (ONE, [4], 9, 4),
        (ONE, [None], 9, None),
    ],
)
async def test_a_reader_waits_until_its_server_has_what_another_one_has(
    monkeypatch: pytest.MonkeyPatch, urls: tuple[str, ...], ends: Sequence[int | None], latest: int | None, expected: int | None
) -> None:
    _others_have(monkeypatch, latest)
    monkeypatch.setattr(stream_reader, "RETRY_S", 0)
    assert await _reading(_Reader(urls, ends)).common_end() == expected


async def test_a_server_that_stays_behind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _others_have(monkeypatch, 9)
    monkeypatch.setattr(stream_reader, "SILENCE_S", 0.2)
    with pytest.raises(StreamError, match=r"^calls\.journal could not be read to its end: for 0.2 s, one server"):
        await _reading(_Reader(THREE, [4])).common_end()


@pytest.mark.parametrize(
    ("requested", "ends", "latest", "is_lost"),
    [
        (9, [4], 9, False),
        (9, [None], 9, False),
        (9, [9], 4, False),
        (9, [-2], 4, False),
        (9, [4], -2, False),
        (9, [4], 8, True),
        (9, [8], None, True),
        (9, [None], None, True),
        (0, [None], None, True),
    ],
)
async def test_an_event_is_lost_if_no_server_has_it(
    monkeypatch: pytest.MonkeyPatch, requested: int, ends: Sequence[int | None], latest: int | None, *, is_lost: bool
) -> None:
    _others_have(monkeypatch, latest)
    monkeypatch.setattr(stream_cursor, "ANSWER_TIMEOUT_S", -1)
    cursor = StreamCursor("first")
    reader = _reading(_Reader(THREE, ends), cursor)
    assert not await reader.is_lost()  # it requested nothing
    cursor.resume_after(requested, b"event")
    cursor.request()
    assert await reader.is_lost() == is_lost


async def test_a_server_is_asked_for_an_event_once_that_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    _others_have(monkeypatch, None)
    cursor = StreamCursor("first", last=(9, b"event"))
    cursor.request()
    assert not await _reading(_Reader(THREE, [4]), cursor).is_lost()
    monkeypatch.setattr(stream_cursor, "ANSWER_TIMEOUT_S", -1)
    assert not await _reading(_Reader(THREE, [9]), cursor).is_lost()
    monkeypatch.undo()
    _others_have(monkeypatch, None)
    assert not await _reading(_Reader(THREE, [4]), cursor).is_lost(), "asked again too early"


@pytest.mark.parametrize(
    ("ends", "latest", "is_enough"),
    [
        ({"a": 4, "b": 9, "c": -1}, 9, True),
        ({"a": -1, "b": -1, "c": -1}, None, True),
        ({"a": 4, "b": 9}, 9, True),
        ({"a": -1, "c": -1}, None, True),
        ({"a": 4}, 4, False),
        ({"c": -1}, None, False),
        ({}, None, False),
    ],
)
async def test_a_server_without_an_answer_is_not_one_without_messages(
    monkeypatch: pytest.MonkeyPatch, ends: Mapping[str, int], latest: int | None, *, is_enough: bool
) -> None:
    async def end_at(url: str, stream: str) -> int | None:
        assert stream == "calls.journal"
        return ends.get(url.removeprefix("amqp://").removesuffix("/"))

    monkeypatch.setattr(stream_end, "_end_at", end_at)
    if is_enough:
        assert await stream_end.latest_end(THREE, "calls.journal") == latest
    else:
        with pytest.raises(BrokerUnavailableError, match="of 3 servers know the end"):
            await stream_end.latest_end(THREE, "calls.journal")
