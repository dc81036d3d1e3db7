"""Where a reader of a stream is; which events were handled; which addresses there are."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from callfold_client import MemorySeenIds, SeenIds, SqliteSeenIds, SubscriptionError, subscribe, topic_matcher
from callfold_client import stream_cursor as cursors
from callfold_client.hosts import Hosts
from callfold_client.replay import Replay
from callfold_client.stream_cursor import Read, StreamCursor

SOURCE = Path(__file__).parents[3] / "clients" / "python" / "src" / "callfold_client"


@dataclass(frozen=True)
class _Message:
    offset: int
    body: bytes = b""
    headers: dict[str, object] = field(default_factory=dict)


def _messages(*offsets: int, content: str = "a") -> list[_Message]:
    return [_Message(offset, f"{content}{offset}".encode()) for offset in offsets]


def _offsets(read: Read[_Message]) -> Sequence[int]:
    return [message.offset for message in read.messages]


def test_a_reader_resumes_with_the_last_message_and_returns_each_once() -> None:
    cursor = StreamCursor("first")
    assert (cursor.request(), cursor.last_offset) == ("first", None)
    assert _offsets(cursor.read(_messages(0, 1, 2))) == [0, 1, 2]
    assert cursor.arguments() == {"x-stream-offset": 2}
    assert cursor.read(_messages(0, 1)) == Read()  # the rest of a chunk, which is older
    assert _offsets(cursor.read(_messages(2, 3))) == [3]
    assert _offsets(cursor.read(_messages(3, 4))) == [4]
    assert cursor.requested_offset is None


def test_bookmarks_are_skipped_and_count_as_read() -> None:
    cursor = StreamCursor("first")
    bookmark = _Message(1, b"[]", {"bookmark": "x"})
    assert _offsets(cursor.read([*_messages(0), bookmark])) == [0]
    assert cursor.request() == 1


def test_messages_that_the_stream_lost_are_counted() -> None:
    cursor = StreamCursor("first", last=(5, b"a5"))
    cursor.request()
    assert cursor.read(_messages(9)).missing == 3
    cursor.request()
    assert cursor.read(_messages(10)).missing == 0, "the last message is gone, but nothing after it"


def test_another_stream_is_noticed_by_the_content_of_the_last_message() -> None:
    cursor = StreamCursor(7)
    cursor.request()
    cursor.read(_messages(7, 8))
    cursor.request()
    assert cursor.read(_messages(8, 9, content="b")).is_replaced
    cursor.restart()
    assert cursor.read(_messages(9)) == Read(), "delivered before the connection was renewed"
    assert cursor.request() == "first"
    assert _offsets(cursor.read(_messages(0, content="b"))) == [0]


def test_a_begin_that_moves_is_asked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    begins = iter([datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)])
    cursor = StreamCursor(lambda: next(begins))
    assert [cursor.request(), cursor.request()] == [datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)]
    monkeypatch.setattr(cursors, "ANSWER_TIMEOUT_S", -1)
    assert not cursor.is_overdue(), "nothing was requested by its number"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_handled_events_are_remembered_up_to_a_limit(kind: str, tmp_path: Path) -> None:
    sqlite = SqliteSeenIds(tmp_path / "seen.sqlite", limit=3)
    seen: SeenIds = MemorySeenIds(3) if kind == "memory" else sqlite
    for revision in (1, 3, 2):
        seen.add(f"acme/1/{revision}", "acme/1", revision)
    seen.add("acme/1/3", "acme/1", 3)
    assert (seen.has("acme/1/3"), seen.has("acme/2/1"), seen.revision("acme/1"), seen.revision("acme/2")) == (True, False, 3, 0)
    seen.add("acme/2/recording/x/stored", "acme/2", 0)
    assert seen.revision("acme/2") == 0
    sqlite.close()
    if kind == "sqlite":
        with SqliteSeenIds(tmp_path / "seen.sqlite", limit=3) as seen:
            assert [seen.has(f"acme/1/{revision}") for revision in (1, 3, 2)] == [False, True, True]
            assert seen.has("acme/2/recording/x/stored")
    else:
        assert [seen.has(f"acme/1/{revision}") for revision in (1, 3, 2)] == [False, True, True]


@pytest.mark.parametrize(
    "urls", ["", ",", "http://host/", "amqp:///", "amqp://u:secret@host:x/", "amqp://u:secret@:5672/", "amqp://u:secret@host:0"]
)
def test_a_url_that_is_none_is_an_error_that_does_not_show_it(urls: str) -> None:
    with pytest.raises(SubscriptionError) as raised:
        Hosts(urls)
    assert "secret" not in str(raised.value)


def test_several_urls_are_hosts_and_shown_without_passwords() -> None:
    hosts = Hosts(" amqp://u:secret@one/, amqps://u:secret@two:5673/v?heartbeat=3")
    assert repr(hosts) == "Hosts(one:5672, two:5673)"
    assert list(hosts) == ["amqp://u:secret@one/?heartbeat=10", "amqps://u:secret@two:5673/v?heartbeat=3"]


@pytest.mark.parametrize(
    "options",
    [
        {"queue": ""},
        {"queue": "x" * 252},
        {"queue": "amq.mine"},
        {"filter": ""},
        {"filter": []},
        {"filter": "x" * 256},
        {"prefetch": 0},
        {"max_bytes": 0},
        {"delivery_limit": 0},
        {"replay_since": datetime(2026, 11, 23)},  # noqa: DTZ001 - the mistake
    ],
)
def test_an_argument_that_cannot_work_is_an_error_at_once(options: dict[str, object]) -> None:
    with pytest.raises(SubscriptionError):
        subscribe("amqp://localhost/", **{"queue": "q"} | options)  # type: ignore[arg-type]


def test_a_replay_begins_at_a_time_or_a_duration_ago() -> None:
    begin = Replay(timedelta(hours=2), Hosts("amqp://localhost/"))._cursor.request()
    assert isinstance(begin, datetime)
    assert timedelta(hours=2) <= datetime.now(UTC) - begin < timedelta(hours=3)
    assert Replay("first", Hosts("amqp://localhost/"))._cursor.request() == "first"


def test_a_pattern_with_many_hashes_is_matched_quickly() -> None:
    assert not topic_matcher("#.a." * 60 + "b")(".".join("a" * 100))


def test_the_client_imports_the_standard_library_and_its_amqp_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "callfold_client", "aio_pika", "aiormq", "pamqp", "yarl"}
    imported: dict[str, str] = {}
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0]: path.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported[(node.module or "").partition(".")[0]] = path.name
    assert len(imported) > 10
    assert {name: path for name, path in imported.items() if name not in allowed} == {"orjson": "envelope.py"}, (
        "which is optional"
    )
