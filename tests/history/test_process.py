"""The history process on a real broker and real databases: whatever dies or goes away, the rows are those of a quiet run."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sqlite3
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, cast

import aio_pika
import aiohttp
import orjson
import pytest
import structlog
from sqlalchemy import func, select, text

from console import place
from console.fleet import RoleDiedError, free_port
from console.history import engine, follower
from console.history.batch import Entry
from console.history.engine import open_engine
from console.history.service import serve
from console.history.store import History
from console.history.tables import CALLS as CALLS_TABLE
from console.journal import journal_end, journal_until_now
from shared import metrics
from shared.audit import Action, Audit
from shared.broker import BrokerAddress, Delivery, Message, Publisher
from shared.errors import HistoryUnavailableError
from shared.process import background
from shared.settings import load_settings
from shared.topology import AUDIT_JOURNAL, CALLS, CALLS_JOURNAL, topology
from tests.history.postgres import PASSWORD, PostgreSQL
from tests.history.support import Event, all_tables, allow_text, call_event, refuse_call, refuse_text
from tests.pace import LIMIT_S
from tests.support import RETRY_S, Servers, eventually, exit_code


@asynccontextmanager
async def _publisher(servers: Servers) -> AsyncIterator[Publisher]:
    publisher = Publisher(BrokerAddress((servers.stack.amqp_url,), topology(RETRY_S), "tests"), timeout_s=LIMIT_S)
    async with background(publisher.run()):
        await asyncio.wait_for(publisher.wait_up(), LIMIT_S)
        yield publisher


async def _publish(publisher: Publisher, events: Sequence[Event]) -> None:
    await publisher.publish_patiently(
        Message(CALLS, "call.completed.x.answered", orjson.dumps(event), str(event["id"])) for event in events
    )


def _calls(source: str, count: int, *, first: int = 1) -> list[Event]:
    return [call_event(number, source=source) for number in range(first, first + count)]


def _source() -> str:
    return f"h{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def _serving(servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Run the history in this process, where a test can shorten its waits; stopped as by SIGTERM."""
    for name, value in servers.environment(CALLFOLD_HISTORY_URL=url).items():
        monkeypatch.setenv(name, value)
    stop = asyncio.Event()
    task = asyncio.create_task(serve(load_settings(), stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, LIMIT_S)


async def _count(url: str, source: str) -> int:
    """How many calls of a source there are; none while the history cannot be read."""
    async with aclosing(History(url)) as history:
        with suppress(HistoryUnavailableError):
            return await history._do(
                lambda connection: connection.execute(select(func.count()).where(CALLS_TABLE.c.source == source)).scalar_one()
            )
    return 0


async def _has(url: str, source: str, count: int) -> None:
    async def there() -> bool:
        return await _count(url, source) == count

    await eventually(there)


async def _settled(url: str) -> None:
    """Wait until the last event of each stream is written."""
    last = {stream: await _last_offset(stream) for stream in (CALLS_JOURNAL, AUDIT_JOURNAL)}
    async with aclosing(History(url)) as history:

        async def are_written() -> bool:
            marks = {stream: await history.mark(stream) for stream in last}
            return all(offset is None or ((mark := marks[stream]) and mark[0] == offset) for stream, offset in last.items())

        await eventually(are_written)


async def _last_offset(stream: str) -> int | None:
    """Find the last event of a stream; None if it has none."""
    settings, window = load_settings(), 500
    end = await journal_end(settings, stream=stream, connect_s=LIMIT_S)
    while True:
        first = max(0, end - window)
        async with journal_until_now(settings, first, stream=stream, connect_s=LIMIT_S) as deliveries:
            offsets = [delivery.offset async for delivery in deliveries]
        if offsets or first == 0:
            return max(offsets, default=None)
        window *= 4


async def test_killed_in_mid_write_it_goes_on_to_the_rows_of_an_undisturbed_run(
    servers: Servers, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, quiet = _source(), f"sqlite:///{tmp_path / 'quiet.sqlite'}"
    async with _publisher(servers) as publisher:
        await _publish(publisher, [event for event in _calls(source, 700) for _ in range(2)])
        await _publish(publisher, [call_event(number, source=source, revision=2) for number in range(1, 50)])
    async with servers.fleet(CALLFOLD_HISTORY_URL=url) as fleet:
        for point in ("history.before_commit", "history.before_ack"):
            victim = fleet.add(point, "console.history", {"CALLFOLD_CRASH_AT": point})
            with suppress(RoleDiedError):  # it may die before it was ready
                await fleet.start(victim)
            assert await exit_code(victim) == -signal.SIGKILL
            fleet.roles.remove(victim)
    for database in (quiet, url):
        async with _serving(servers, database, monkeypatch):
            await _has(database, source, 700)
            await _settled(database)
    assert await all_tables(url) == await all_tables(quiet)


async def test_one_event_that_the_database_does_not_take_is_kept_unreadable_and_stops_nothing(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _source()
    async with aclosing(History(url, is_writer=True)) as history:
        await history.prepare()
        await refuse_call(history, "13")
        async with _publisher(servers) as publisher:
            await _publish(publisher, _calls(source, 30))
            async with _serving(servers, url, monkeypatch):
                await _has(url, source, 29)
                await _publish(publisher, _calls(source, 10, first=31))
                await _has(url, source, 39)
    events = [row for row in (await all_tables(url))["events"] if f'"source":"{source}"' in str(row[-2])]
    (unreadable,) = [row for row in events if row[1] == "unreadable"]
    assert orjson.loads(str(unreadable[-2]))["subject"] == "13"
    assert unreadable[-1] in {"IntegrityError", "CheckViolation 23514"}
    assert len(events) == 40


async def test_an_event_of_which_the_database_does_not_even_take_the_text_is_kept_with_its_reason_and_stops_nothing(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _source()
    async with aclosing(History(url, is_writer=True)) as history:
        await history.prepare()
        await refuse_text(history, f'"{source}/13/1"')
        async with _publisher(servers) as publisher:
            await _publish(publisher, _calls(source, 30))
            async with _serving(servers, url, monkeypatch):
                await _has(url, source, 29)
                await _publish(publisher, _calls(source, 10, first=31))
                await _has(url, source, 39)
    (event,) = _calls(source, 1, first=13)
    fingerprint = Entry(0, orjson.dumps(event)).fingerprint
    (kept,) = [row for row in (await all_tables(url))["events"] if str(row[0]).endswith(fingerprint)]
    assert (kept[0], kept[1], kept[-2]) == (f"unreadable/{CALLS_JOURNAL}/{fingerprint}", "unreadable", "")
    error = "IntegrityError" if url.startswith("sqlite") else "CheckViolation 23514"
    size = len(orjson.dumps(event))
    assert re.fullmatch(rf"{error}; its {size} bytes, at offset \d+ of {re.escape(CALLS_JOURNAL)}: {error}", str(kept[-1]))


async def test_a_database_that_takes_no_event_at_all_is_waited_for(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _source()
    async with aclosing(History(url, is_writer=True)) as history:
        await history.prepare()
        await refuse_text(history, "")
        async with _publisher(servers) as publisher, _serving(servers, url, monkeypatch):
            await _publish(publisher, _calls(source, 3))
            with structlog.testing.capture_logs() as lines:

                async def is_told() -> bool:
                    return any("takes no event at all" in str(line.get("detail")) for line in lines)

                await eventually(is_told)
            assert await _count(url, source) == 0
            await allow_text(history)
            await _has(url, source, 3)


async def test_killed_again_and_again_under_load_it_loses_and_doubles_nothing(servers: Servers, url: str) -> None:
    source = _source()
    moments = random.Random(url.split(":", maxsplit=1)[0])  # noqa: S311 - a seed, no secret
    async with servers.fleet(CALLFOLD_HISTORY_URL=url) as fleet, _publisher(servers) as publisher:
        are_dead = asyncio.Event()

        async def load() -> int:
            """Publish for as long as the dying takes, however slow the machine is; returns how many calls."""
            for first in count(1, 50):
                await _publish(publisher, _calls(source, 50, first=first))
                if are_dead.is_set() and first > 1000:
                    return first + 49
                await asyncio.sleep(0.05)
            raise AssertionError

        task = asyncio.create_task(load())
        for number in range(3):
            victim = fleet.add(f"victim-{number}", "console.history", {})
            await fleet.start(victim)
            await asyncio.sleep(moments.uniform(0.1, 0.8))
            assert victim.process is not None
            victim.process.kill()
            await exit_code(victim)
            fleet.roles.remove(victim)
        assert not task.done()
        are_dead.set()
        await fleet.start(fleet.add("heir", "console.history", {}))
        published = await task
        await _has(url, source, published)
    events = [str(row[0]) for row in (await all_tables(url))["events"] if row[3] == source]
    assert sorted(events) == sorted(f"{source}/{number}/1" for number in range(1, published + 1))


async def test_offsets_that_were_rolled_back_lost_or_are_of_another_stream_change_nothing(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_ANSWERED_S", 0.5)
    source = _source()
    async with _publisher(servers) as publisher:
        await _publish(publisher, _calls(source, 30))
    async with _serving(servers, url, monkeypatch):
        await _has(url, source, 30)
        await _settled(url)
    before = await all_tables(url)
    for damage in (
        "DELETE FROM offsets",
        "UPDATE offsets SET \"offset\" = 3, fingerprint = 'another'",
        'UPDATE offsets SET "offset" = 1000000000',
    ):
        await _execute(url, damage)
        await _execute(url, f"DELETE FROM calls WHERE source = '{source}' AND request_id < 10")  # noqa: S608 - a test's own
        async with _serving(servers, url, monkeypatch):
            await _has(url, source, 30)
            await _settled(url)
        assert await all_tables(url) == before, damage


async def test_without_damage_only_what_is_new_is_read_again(servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _source()
    async with _publisher(servers) as publisher:
        await _publish(publisher, _calls(source, 30))
        async with _serving(servers, url, monkeypatch):
            await _has(url, source, 30)
            await _settled(url)
        await _publish(publisher, _calls(source, 1, first=31))
        written = metrics.HISTORY_EVENTS.labels(CALLS_JOURNAL)._value.get()
        async with _serving(servers, url, monkeypatch):
            await _has(url, source, 31)
            await eventually(_is_level)
    assert metrics.HISTORY_EVENTS.labels(CALLS_JOURNAL)._value.get() - written == 2  # the last one, and the new one


async def _is_level() -> bool:
    samples = [sample for family in metrics.HISTORY_LAG.collect() for sample in family.samples]
    (lag,) = [sample.value for sample in samples if sample.labels["stream"] == CALLS_JOURNAL]
    return lag == 0


def test_events_that_the_stream_no_longer_had_are_told(tmp_path: Path) -> None:
    history = History(f"sqlite:///{tmp_path / 'history.sqlite'}")
    following = follower.Follower(CALLS_JOURNAL, history, BrokerAddress((), topology(RETRY_S), "tests"))
    following._place.read(5, "of the event that is gone")
    assert following._where() == {"x-stream-offset": 5}
    first = Delivery(b"{}", {"x-stream-offset": 9}, "", 1, cast("Any", None))
    with structlog.testing.capture_logs() as lines:
        assert following._is_continued(first)
        assert following._is_continued(first)
    assert [(line["event"], line["events"]) for line in lines] == [("history_gap", 3)]


async def test_rabbitmq_killed_and_back_costs_the_history_nothing(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, url = _source(), f"sqlite:///{tmp_path / 'history.sqlite'}"
    async with _serving(servers, url, monkeypatch), _publisher(servers) as publisher:
        await _publish(publisher, _calls(source, 100))
        await _has(url, source, 100)
        await servers.stack.rabbitmq.kill()
        await servers.stack.rabbitmq.start()
        await _publish(publisher, _calls(source, 100, first=101))
        await _has(url, source, 200)


async def test_postgresql_away_for_a_while_is_waited_out(
    servers: Servers, postgres: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, url, port = _source(), await postgres.new_database(), free_port()
    monkeypatch.setenv("CALLFOLD_METRICS_PORT", str(port))
    await postgres.stop()  # it is away as the history starts, too
    try:
        async with _serving(servers, url, monkeypatch), _publisher(servers) as publisher:
            await _publish(publisher, _calls(source, 10))
            await _has_met_an_outage()
            await postgres.begin()
            await _has(url, source, 10)
            await eventually(lambda: _is_ready(port))
            await postgres.stop()
            await _publish(publisher, _calls(source, 10, first=11))
            await eventually(lambda: _is_missed(port))
            assert await _count(url, source) == 0
            status, (problem,) = await _readiness(port)
            assert (status, "cannot be reached" in problem) == (503, True)
            assert PASSWORD not in problem
            await postgres.begin()
            await _has(url, source, 20)
    finally:
        if postgres._process is None:
            await postgres.begin()


async def _readiness(port: int) -> tuple[int, list[str]]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as response:
        return response.status, (await response.json())["problems"]


async def _is_ready(port: int) -> bool:
    return await _readiness(port) == (200, [])


async def _is_missed(port: int) -> bool:
    _, problems = await _readiness(port)
    return any("cannot be reached" in problem for problem in problems)


async def _has_met_an_outage() -> None:
    """Wait until the history, in this process, tries in vain to reach its database: it does so again and again."""
    with structlog.testing.capture_logs() as lines:

        async def is_logged() -> bool:
            return any(line["event"] == "history_unreachable" for line in lines)

        await eventually(is_logged)


async def test_a_locked_sqlite_file_is_waited_out(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_LOCK_TIMEOUT_S", 0)
    source, path = _source(), tmp_path / "deep" / "history.sqlite"
    url = f"sqlite:///{path}"
    async with _serving(servers, url, monkeypatch), _publisher(servers) as publisher:
        await _publish(publisher, _calls(source, 10))
        await _has(url, source, 10)
        assert path.stat().st_mode & 0o777 == 0o600
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await _publish(publisher, _calls(source, 10, first=11))
        await _has_met_an_outage()
        assert await _count(url, source) == 10  # readers go on
        other.execute("ROLLBACK")
        other.close()
        await _has(url, source, 20)


async def test_audit_lines_arrive_with_their_credentials_masked(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = _source()
    async with _serving(servers, url, monkeypatch), _publisher(servers) as publisher:
        audit = Audit(publisher)
        with structlog.testing.capture_logs() as lines:
            await audit.tell(
                Action.DIAL, who, source="acme", call="513", number="+4512345678", link="https://h/?token=hunter2&a=1"
            )
            await audit.tell(Action.LOG_IN_REFUSED, who, from_address="127.0.0.1", tries=[{"url": "?sectok=hunter3"}])
        async with aclosing(History(url)) as history:

            async def there() -> list[Any]:
                with suppress(HistoryUnavailableError):
                    return [line for line in await history.audit(limit=500) if line.who == who][1:] and await history.audit()
                return []

            await eventually(there)
            refused, dial = [line for line in await history.audit(limit=500) if line.who == who]
            assert await history.audit("2999-01-01T00:00:00.000000Z") == []
    assert (dial.action, dial.source, dial.call) == ("dial", "acme", "513")
    assert dial.detail == {"number": "+4512345678", "link": "https://h/?token=***&a=1"}
    assert (refused.action, refused.source, refused.detail["tries"]) == ("log_in_refused", None, [{"url": "?sectok=***"}])
    told = [line for line in lines if line["event"] == "audit"]
    assert [(line["action"], line["who"], line["id"]) for line in told] == [
        ("dial", who, dial.id),
        ("log_in_refused", who, refused.id),
    ]
    assert "hunter" not in str(told)


async def test_without_a_broker_an_audit_line_is_still_logged_and_nothing_fails() -> None:
    publisher = Publisher(BrokerAddress(("amqp://127.0.0.1:1/",), topology(RETRY_S), "tests"), timeout_s=1)
    with structlog.testing.capture_logs() as lines:
        await Audit(publisher).tell(Action.HOLD, "somebody", source="acme", call="513", reason="case")
    assert [line["event"] for line in lines] == ["audit", "audit_not_in_history"]


async def test_the_stream_of_audit_lines_is_bound_to_nothing(servers: Servers) -> None:
    wanted = topology(RETRY_S)
    assert [binding for binding in wanted.bindings if binding.queue == AUDIT_JOURNAL] == []
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        await (await connection.channel()).get_queue(AUDIT_JOURNAL, ensure=True)


async def _execute(url: str, statement: str) -> None:
    opened = open_engine(url, is_writer=True)
    try:
        with opened.begin() as connection:
            connection.execute(text(statement))
    finally:
        opened.dispose()
