"""The history process on a real broker and real databases: whatever dies or goes away, the rows are those of a quiet run."""

from __future__ import annotations

import re
import sqlite3
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import orjson
import pytest
import structlog
from sqlalchemy import text

from callfold_client import stream_cursor
from console.history import engine, follower
from console.history.batch import StreamMessage
from console.history.engine import open_engine
from console.history.store import History
from console.local.ports import free_port
from shared import metrics
from shared.amqp.topology import AUDIT_JOURNAL, CALLS_JOURNAL, topology
from shared.errors import HistoryUnavailableError
from shared.runtime.audit import Action, Audit
from tests.helpers.history import all_tables, allow_text, refuse_call, refuse_text
from tests.helpers.history_process import calls_of, count_of, has_calls, new_source, publish, publishing, serving, settled
from tests.helpers.pace import LIMIT_S
from tests.helpers.postgres import PASSWORD, PostgreSQL
from tests.helpers.servers import RETRY_S, Servers, eventually


@pytest.fixture
def servers(rabbitmq_only: Servers) -> Servers:
    return rabbitmq_only


async def test_one_event_that_the_database_does_not_take_is_kept_unreadable_and_stops_nothing(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source()
    async with aclosing(History(url, is_writer=True)) as history:
        await history.prepare()
        await refuse_call(history, "13")
        async with publishing(servers) as publisher:
            await publish(publisher, calls_of(source, 30))
            async with serving(servers, url, monkeypatch):
                await has_calls(url, source, 29)
                await publish(publisher, calls_of(source, 10, first=31))
                await has_calls(url, source, 39)
    events = [row for row in (await all_tables(url))["events"] if f'"source":"{source}"' in str(row[-2])]
    (unreadable,) = [row for row in events if row[1] == "unreadable"]
    assert orjson.loads(str(unreadable[-2]))["subject"] == "13"
    assert unreadable[-1] in {"IntegrityError", "CheckViolation 23514"}
    assert len(events) == 40


async def test_an_event_of_which_the_database_does_not_even_take_the_text_is_kept_with_its_reason_and_stops_nothing(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source()
    async with aclosing(History(url, is_writer=True)) as history:
        await history.prepare()
        await refuse_text(history, f'"{source}/13/1"')
        async with publishing(servers) as publisher:
            await publish(publisher, calls_of(source, 30))
            async with serving(servers, url, monkeypatch):
                await has_calls(url, source, 29)
                await publish(publisher, calls_of(source, 10, first=31))
                await has_calls(url, source, 39)
    (event,) = calls_of(source, 1, first=13)
    fingerprint = StreamMessage(0, orjson.dumps(event)).fingerprint
    (kept,) = [row for row in (await all_tables(url))["events"] if str(row[0]).endswith(fingerprint)]
    assert (kept[0], kept[1], kept[-2]) == (f"unreadable/{CALLS_JOURNAL}/{fingerprint}", "unreadable", "")
    error = "IntegrityError" if url.startswith("sqlite") else "CheckViolation 23514"
    size = len(orjson.dumps(event))
    assert re.fullmatch(
        rf"{error}, and its text \({size} bytes at offset \d+ of {re.escape(CALLS_JOURNAL)}\) was rejected: {error}",
        str(kept[-1]),
    )


async def test_a_database_that_takes_no_event_at_all_is_waited_for(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source()
    async with aclosing(History(url, is_writer=True)) as history:
        await history.prepare()
        await refuse_text(history, "")
        # An outage is logged once, and it can begin with what other tests left in the stream.
        with structlog.testing.capture_logs() as lines:
            async with publishing(servers) as publisher, serving(servers, url, monkeypatch):
                await publish(publisher, calls_of(source, 3))

                async def is_told() -> bool:
                    return any("rejects every event" in str(line.get("detail")) for line in lines)

                await eventually(is_told)
                assert await count_of(url, source) == 0
                await allow_text(history)
                await has_calls(url, source, 3)


async def test_offsets_that_were_rolled_back_lost_or_are_of_another_stream_change_nothing(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_cursor, "ANSWER_TIMEOUT_S", 0.5)
    source = new_source()
    async with publishing(servers) as publisher:
        await publish(publisher, calls_of(source, 30))
    async with serving(servers, url, monkeypatch):
        await has_calls(url, source, 30)
        await settled(url)
    before = await all_tables(url)
    for damage in (
        "DELETE FROM offsets",
        "UPDATE offsets SET \"offset\" = 3, fingerprint = 'another'",
        'UPDATE offsets SET "offset" = 1000000000',
    ):
        await _execute(url, damage)
        await _execute(url, f"DELETE FROM calls WHERE source = '{source}' AND request_id < 10")  # noqa: S608 - a test's own
        async with serving(servers, url, monkeypatch):
            await has_calls(url, source, 30)
            await eventually(lambda: _is_fingerprint_replaced(url))
            await settled(url)
        assert await all_tables(url) == before, damage


async def test_without_damage_only_what_is_new_is_read_again(servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = new_source()
    async with publishing(servers) as publisher:
        await publish(publisher, calls_of(source, 30))
        async with serving(servers, url, monkeypatch):
            await has_calls(url, source, 30)
            await settled(url)
        await publish(publisher, calls_of(source, 1, first=31))
        written = metrics.HISTORY_EVENTS.labels(CALLS_JOURNAL)._value.get()
        async with serving(servers, url, monkeypatch):
            await has_calls(url, source, 31)
            await eventually(_is_level)
    assert metrics.HISTORY_EVENTS.labels(CALLS_JOURNAL)._value.get() - written == 1


async def _is_level() -> bool:
    samples = [sample for family in metrics.HISTORY_LAG.collect() for sample in family.samples]
    (lag,) = [sample.value for sample in samples if sample.labels["stream"] == CALLS_JOURNAL]
    return lag == 0


async def test_rabbitmq_killed_and_back_costs_the_history_nothing(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, url = new_source(), f"sqlite:///{tmp_path / 'history.sqlite'}"
    async with serving(servers, url, monkeypatch), publishing(servers) as publisher:
        await publish(publisher, calls_of(source, 100))
        await has_calls(url, source, 100)
        await servers.stack.rabbitmq.kill()
        await servers.stack.rabbitmq.start()
        await publish(publisher, calls_of(source, 100, first=101))
        await has_calls(url, source, 200)


async def test_postgresql_away_for_a_while_is_waited_out(
    servers: Servers, postgres: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, url, port = new_source(), await postgres.new_database(), free_port()
    monkeypatch.setenv("CALLFOLD_METRICS_PORT", str(port))
    await postgres.stop()  # it is away as the history starts, too
    try:
        async with serving(servers, url, monkeypatch), publishing(servers) as publisher:
            await publish(publisher, calls_of(source, 10))
            await eventually(lambda: _is_missed(port))
            await postgres.begin()
            await has_calls(url, source, 10)
            await eventually(lambda: _is_ready(port))
            await postgres.stop()
            await publish(publisher, calls_of(source, 10, first=11))
            await eventually(lambda: _is_missed(port))
            assert await count_of(url, source) == 0
            status, problems = await _readiness(port)
            assert (status, "cannot be reached" in " ".join(problems)) == (503, True)
            assert PASSWORD not in " ".join(problems)
            await postgres.begin()
            await has_calls(url, source, 20)
    finally:
        if not postgres.is_running:
            await postgres.begin()


async def _readiness(port: int) -> tuple[int, list[str]]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as response:
        return response.status, (await response.json())["problems"]


async def _is_ready(port: int) -> bool:
    return await _readiness(port) == (200, [])


async def _is_missed(port: int) -> bool:
    _, problems = await _readiness(port)
    return any("cannot be reached" in problem for problem in problems)


async def _is_fingerprint_replaced(url: str) -> bool:
    return not any("another" in row for row in (await all_tables(url))["offsets"])


async def _has_outage() -> bool:
    """Return whether the history, in this process, tries in vain to reach its database."""
    return follower._DATABASE.is_ongoing


async def test_a_locked_sqlite_file_is_waited_out(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_LOCK_TIMEOUT_S", 0)
    source, path = new_source(), tmp_path / "deep" / "history.sqlite"
    url = f"sqlite:///{path}"
    async with serving(servers, url, monkeypatch), publishing(servers) as publisher:
        await publish(publisher, calls_of(source, 10))
        await has_calls(url, source, 10)
        assert path.stat().st_mode & 0o777 == 0o600
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await publish(publisher, calls_of(source, 10, first=11))
        await eventually(_has_outage)
        assert await count_of(url, source) == 10  # readers go on
        other.execute("ROLLBACK")
        other.close()
        await has_calls(url, source, 20)


async def test_audit_lines_arrive_with_their_credentials_masked(
    servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = new_source()
    async with serving(servers, url, monkeypatch), publishing(servers) as publisher:
        audit = Audit(publisher)
        with structlog.testing.capture_logs() as lines:
            await audit.record(
                Action.DIAL, who, source="acme", call="513", number="+4512345678", link="https://h/?token=hunter2&a=1"
            )
            await audit.record(Action.LOG_IN_REFUSED, who, from_address="127.0.0.1", tries=[{"url": "?sectok=hunter3"}])
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
    told = [line for line in lines if line["event"] == "action_audited"]
    assert [(line["action"], line["who"], line["id"]) for line in told] == [
        ("dial", who, dial.id),
        ("log_in_refused", who, refused.id),
    ]
    assert "hunter" not in str(told)


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
