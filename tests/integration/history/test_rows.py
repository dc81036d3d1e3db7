"""SQLite and PostgreSQL hold the same rows and give the same answers as the vocabulary of look-ups itself."""

from __future__ import annotations

import itertools
import os
import random
import signal
from contextlib import aclosing
from typing import Any

import pytest
from sqlalchemy import text

from console.call_query import CallQuery, CallRow, Position
from console.history import store
from console.history.database_errors import ValueRejectedError
from console.history.store import History
from shared.archive.encryption import SCHEME
from shared.domain.leg_event import CallType
from shared.errors import ConfigError, HistoryUnavailableError
from tests.helpers.history import (
    AT,
    Event,
    all_tables,
    batch_of,
    call_event,
    cloudevent,
    expected,
    found,
    recording_event,
    refuse_call,
    row,
    tables_of,
)
from tests.helpers.pace import LIMIT_S
from tests.helpers.postgres import PostgreSQL

Both = tuple[History, History]


_AGENTS = [
    "1001",
    "1002",
    "Åse Ærø",
    "a_b",
    "a%b",
    "a\\b",
    "axb",
    "NUL\0byte",
    "two\nlines",
    "İstanbul",
    "straße",
    "[1]",
    "日本 😀",
    "?",
]


_NUMBERS = ["+4512345678", "+4587654321", "%", "_", "\\", "0045*9", "12\0" + "34", "tele\nphone"]


_SOURCES = ["acme", "acme-x", "acme_x", "b"]


_QUERIES = [
    {},
    {"state": "complete"},
    {"state": "open"},
    {"state": "ringing"},
    *({"outcome": outcome} for outcome in ("answered", "dialed_missed", "unknown")),
    *({"type": kind} for kind in ("API", "login", "INCOMING", "Conference")),
    {"type": "Login", "outcome": "answered"},
    *({"source": source} for source in (*_SOURCES, "none", "a\0b")),
    *(
        {"agent": agent}
        for agent in (*_AGENTS, "*", "A*B", "a?b", "STRASSE", "*b", "1*", "*\n*", "lines", "%", "_", "*_*", "*%*")
    ),
    *({"number": number} for number in (*_NUMBERS, "+45*", "*4321", "**", "*%*", "*_*", "*\\*", "\\%", "*'*", "*\ufffd*")),
    *(
        {"reference": reference}
        for reference in ("crm-1", "CRM-1", "", "r" * 256, "é", "e\u0301", "nul\0", "nul\ufffd")
        if reference
    ),
    {"recorded": True},
    {"recorded": False},
    {"since": "2026-11-23T07:44:01Z"},
    {"until": "2026-11-23T07:44:01Z"},
    {"since": "2026-11-23T07:44:00.5Z", "until": "2026-11-23T07:44:02Z", "source": "acme", "recorded": True},
    {"agent": "a*", "number": "*5*", "outcome": "answered"},
]


def _many() -> list[dict[str, object]]:
    draw = random.Random(513)  # noqa: S311 - a seed, no secret
    kinds: list[dict[str, Any]] = [{}, *({"call_type": kind} for kind in ("API", "Login", "Incoming"))]
    return [
        call_event(
            number,
            source=draw.choice(_SOURCES),
            agent=draw.choice(_AGENTS),
            number=draw.choice(_NUMBERS),
            outcome=draw.choice(["answered", "dialed_missed", "agent_missed", "unknown"]),
            reference=draw.choice([None, "crm-1", "CRM-1", "r" * 256, "r" * 300, "é", "e\u0301", "nul\0"]),
            started_at=f"2026-11-23T07:44:0{draw.randrange(4)}.{draw.choice(['000000', '500000'])}Z",
            recorded=draw.random() < 0.5,
            **draw.choice(kinds),
        )
        for number in range(1, 200)
    ]


async def test_every_filter_gives_equal_rows_from_both_databases_and_the_vocabulary(both: Both) -> None:
    events = _many()
    rows = [row(event) for event in events]
    for history in both:
        await history.write(batch_of(events))
    for asked in _QUERIES:
        query = CallQuery.model_validate(asked)
        wanted = expected(rows, query)
        for history in both:
            assert await found(history, query) == wanted, (history.name, asked)
    answered = {bool(expected(rows, CallQuery.model_validate(asked))) for asked in _QUERIES}
    assert answered == {True, False}
    lite, great = [tables_of(history._engine) for history in both]
    assert lite == great
    assert len(lite["calls"]) == 199


async def test_paging_by_cursor_meets_every_call_once_however_many_started_at_the_same_time(both: Both) -> None:
    events = _many()
    wanted = expected(map(row, events), CallQuery())
    for history in both:
        await history.write(batch_of(events))
        for size in (7, 50, 199):
            rows: list[CallRow] = []
            before: Position | None = None
            while page := await _page(history, before, size):
                rows += page
                before = CallQuery(cursor=CallQuery().cursor_at(page[-1].position)).before
            assert rows == wanted


async def _page(history: History, before: Position | None, size: int) -> list[CallRow]:
    page = []
    async for position, found_row in history.newest(CallQuery(), before):
        assert found_row is not None
        assert found_row.position == position
        page.append(found_row)
        if len(page) == size:
            break
    return page


async def test_a_call_whose_id_is_used_again_after_weeks_does_not_replace_the_old_one(history: History) -> None:
    again = "2026-12-20T07:44:00.000000Z"
    old, amended = call_event(513), call_event(513, revision=2)
    new = call_event(513, started_at=again, ended_at=again) | {"time": again}
    await history.write(batch_of([old, amended, recording_event(513, "stored")]))
    for _ in range(2):
        await history.write(batch_of([new]))
    kept, aside = await history.call("acme", "513"), await history.call("acme", f"513~{AT[:10].replace('-', '')}")
    assert kept is not None
    assert aside is not None
    assert (list(kept.revisions), list(aside.revisions)) == ([new], [old, amended])
    assert (len(kept.recordings), len(aside.recordings)) == (0, 1)
    assert [row.started_at for row in await found(history, CallQuery())] == [again, AT]


async def test_an_amended_call_replaces_its_row_in_whatever_order_and_both_events_are_kept(history: History) -> None:
    one, two, three = [call_event(513, revision=revision, talk_seconds=float(revision)) for revision in (1, 2, 10)]
    for events in ([two], [one], [three, two], [one, two, three]):
        await history.write(batch_of(events))
    kept = await history.call("acme", "513")
    assert kept is not None
    assert (kept.row.revision, kept.row.talk_seconds) == (10, 10.0)
    assert kept.record == three["data"]
    assert list(kept.revisions) == [one, two, three]
    assert len(await found(history, CallQuery())) == 1
    assert await history.call("acme", "514") is None


async def test_the_same_events_twice_change_nothing(history: History, url: str) -> None:
    events: list[Event | bytes] = [
        *_many(),
        recording_event(1, "stored", uri="file:///x.wav", bytes=1 << 40, seconds=1.5),
        b"not json",
    ]
    await history.write(batch_of(events))
    before = await all_tables(url)
    await history.write(batch_of(events))
    await history.write(batch_of([*reversed(events[100:200]), *events[-3:]], first=len(events) - 103))
    assert await all_tables(url) == before


async def test_a_recording_is_in_the_state_that_was_told_last_in_whatever_order_events_come(history: History, url: str) -> None:
    later, latest = AT.replace("07:44", "07:45"), AT.replace("07:44", "09:00")
    events = [
        recording_event(1, "failed", reason="gone", attempts=3),
        recording_event(1, "stored", at=later, uri="file:///1.wav", bytes=44, channels=2, attempts=1),
        recording_event(1, "stored", at=later, suffix="/12345678", uri="file:///1-other.wav"),
        recording_event(1, "expired", at=latest, uri="file:///1.wav", reason="retention"),
        recording_event(2, "failed", at=later, suffix="/1.2", reason="gone"),
        recording_event(2, "absent", name="guid-2"),
    ]
    tables = []
    for order in itertools.islice(itertools.permutations(range(len(events))), 0, 720, 67):
        for part in (order[:3], order[3:]):
            await history.write(batch_of([events[index] for index in part]))
        tables.append((await all_tables(url))["recordings"])
        found = await history.recordings("acme", "guid-1")
        assert [(one.id, one.state) for one in found] == [
            ("acme/1/recording/guid-1", "expired"),
            ("acme/1/recording/guid-1/12345678", "expired"),
            ("acme/2/recording/guid-1", "failed"),
        ]
        with history._engine.begin() as connection:
            connection.execute(text("DELETE FROM recordings"))
    assert all(table == tables[0] for table in tables)


async def test_recordings_are_found_by_guid_and_by_call(history: History) -> None:
    stored: dict[str, Any] = {
        "uri": "s3://b/1.wav",
        "bytes": 5_000_000_000,
        "sha256": "ab",
        "sha512": "cd",
        "seconds": 12.25,
        "channels": 2,
        "sample_rate": 8000,
    }
    sealed = {"scheme": SCHEME, "recipient": "age1abc"}  # as in a sidecar
    await history.write(batch_of([call_event(1), recording_event(1, "stored", attempts=2, encryption=sealed, **stored)]))
    (one,) = await history.recordings("acme", "guid-1")
    assert one.model_dump(include=set(stored)) == stored
    assert (one.call, one.call_id, one.leg, one.attempts, one.encryption) == ("1", "17", "dialed", 2, sealed)
    kept = await history.call("acme", "1")
    assert kept is not None
    assert kept.recordings == (one,)
    assert one.flags == [], "as previous releases publish it"
    await history.write(batch_of([recording_event(1, "expired", at=AT.replace("07:44", "09:00"), **stored)], first=4))
    assert [(each.state, each.sha512) for each in await history.recordings("acme", "guid-1")] == [("expired", "cd")]
    await history.write(batch_of([recording_event(3, "stored", name="guid-3")], first=5))
    assert [each.sha512 for each in await history.recordings("acme", "guid-3")] == [None]
    await history.write(batch_of([recording_event(2, "stored", name="guid-2", flags=["riff_size", "trailing_bytes"])], first=2))
    assert [each.flags for each in await history.recordings("acme", "guid-2")] == [["riff_size", "trailing_bytes"]]
    assert await history.recordings("acme", "nobody") == await history.recordings("other", "guid-1") == []


async def test_what_cannot_be_read_is_kept_as_it_came_and_holds_nothing_up(both: Both) -> None:
    good = call_event(1)
    broken: list[Event | bytes] = [
        b"\xff\0 not json",
        b"[]",
        {**good, "time": "2026-99-23T07:44:00.123456Z"},
        {**good, "id": "x" * 10_000},
        {**call_event(2), "data": {"source": "acme", "revision": 1, "started_at": AT, "request_id": 2}},
        call_event(3, revision=1 << 40),
        call_event(4, outcome="no such outcome"),
        {**call_event(5), "source": "/callfold/other"},
        recording_event(6, "stored", bytes=1 << 63),
        {**recording_event(7, "stored"), "id": "strange"},
    ]
    future = cloudevent(("acme", "8"), "call.merged", "acme/8/merged", AT, {"new": True})
    for history in both:
        await history.write(batch_of([*broken, good, future]))
        assert [one.call for one in await found(history, CallQuery())] == ["1"]
    lite, great = [tables_of(history._engine) for history in both]
    assert lite == great
    reasons = [one[-1] for one in lite["events"] if one[1] == "unreadable"]
    assert len(reasons) == len(broken)
    assert {"JSONDecodeError", "time", "id", "bytes"} <= set(reasons)
    assert any(one[:2] == ("acme/8/merged", "callfold.call.merged.v1") for one in lite["events"])
    assert lite["offsets"][0][:2] == ("calls.journal", 11)


async def test_a_value_with_nul_is_found_and_given_back_as_it_was(history: History) -> None:
    event = call_event(1, agent="a\0b", reference="r\0", fields={"CallerID": "\0"})
    await history.write(batch_of([event]))
    (one,) = await found(history, CallQuery(agent="a\0*", number="\0", reference="r\0"))
    assert (one.agent, one.reference, one.numbers[-1]) == ("a\0b", "r\0", "\0")
    assert await found(history, CallQuery(agent="a\ufffdb")) == []


async def test_a_call_whose_name_holds_nul_is_found_with_its_revisions_and_recordings(history: History) -> None:
    events = [call_event(1, revision=number) | {"subject": "a\0b"} for number in (1, 2)]
    await history.write(batch_of([*events, recording_event(1, "stored", uri="file:///x.wav") | {"subject": "a\0b"}]))
    kept = await history.call("acme", "a\0b")
    assert kept is not None
    assert (len(kept.revisions), len(kept.recordings)) == (2, 1)
    assert await history.call("ac\0me", "a\0b") is None


async def test_a_row_that_the_database_does_not_take_is_an_error_of_its_own_that_quotes_no_value(history: History) -> None:
    batch = batch_of([call_event(1)])
    batch.calls["acme", "1"]["reference"] = "\ud800"
    with pytest.raises(ValueRejectedError, match=r"^UnicodeEncodeError$"):
        await history.write(batch)
    await refuse_call(history, "13")
    with pytest.raises(ValueRejectedError, match=r"^(IntegrityError|CheckViolation 23514)$"):
        await history.write(batch_of([call_event(12), call_event(13, reference="hunter2")]))
    assert await found(history, CallQuery()) == []


async def test_tables_of_another_version_or_of_somebody_else_are_refused(history: History, url: str) -> None:
    await history.check()
    with history._engine.begin() as connection:
        connection.execute(text("UPDATE callfold_schema SET version = 99"))
    async with aclosing(History(url)) as reader:
        with pytest.raises(ConfigError, match="version 99"):
            await reader.check()
    with history._engine.begin() as connection:
        connection.execute(text("DROP TABLE callfold_schema"))
    with pytest.raises(ConfigError, match="belongs to another program"):
        await history.prepare()


async def test_tables_of_the_first_release_get_the_new_columns_and_keep_their_rows(url: str) -> None:
    kinds: dict[str, Any] = {"call_type": "Login", "queue": "Sales", "ended_by": "agent"}
    async with aclosing(History(url, is_writer=True)) as writer, aclosing(History(url)) as reader:
        await writer.prepare()
        await writer.write(batch_of([call_event(1), call_event(2, **kinds), recording_event(1, "stored")]))
        with writer._engine.begin() as connection:
            for column in ("call_type", "queue", "agent_name", "ended_by"):
                connection.execute(text(f"ALTER TABLE calls DROP COLUMN {column}"))
            connection.execute(text("ALTER TABLE recordings DROP COLUMN flags"))
            for table in ("webhook_attempts", "alembic_version"):
                connection.execute(text(f"DROP TABLE {table}"))
        rows = await found(reader, CallQuery())
        for upgraded in (False, True):
            if upgraded:
                await writer.prepare()
                await writer.write(batch_of([call_event(3, **kinds)], first=3))
            assert [row.call for row in await found(reader, CallQuery(type=CallType.API))] == ["1"]
            logins = ["3", "2"] if upgraded else ["2"]
            assert [each.flags for each in await reader.recordings("acme", "guid-1")] == [[]]
            assert [row.call for row in await found(reader, CallQuery(type=CallType.LOGIN))] == logins
        assert (await found(reader, CallQuery()))[1:] == rows
        with reader._engine.connect() as connection:
            cells = connection.execute(text("SELECT call, call_type, queue, ended_by FROM calls ORDER BY call")).all()
        assert [tuple(each) for each in cells] == [("1", *3 * (None,)), ("2", *3 * (None,)), ("3", "Login", "Sales", "agent")]
        with writer._engine.begin() as connection:  # as the first release writes, which runs beside this one
            connection.execute(text("DELETE FROM calls WHERE call = '3'"))
            columns = "source, call, name, revision, recorded, started_at, agents, numbers, record"
            values = "source, '4', 'acme/4', 1, recorded, started_at, '', '', record"
            connection.execute(text(f"INSERT INTO calls ({columns}) SELECT {values} FROM calls WHERE call = '2'"))  # noqa: S608 - fixed text
        assert [row.call for row in await found(reader, CallQuery(type=CallType.LOGIN))] == ["4", "2"]


async def test_a_reader_waits_for_the_tables_and_makes_no_file(url: str, postgres: PostgreSQL) -> None:
    async with aclosing(History(url)) as reader:
        with pytest.raises(HistoryUnavailableError, match=r"no tables yet|unable to open"):
            await reader.check()
        with pytest.raises(HistoryUnavailableError):
            await found(reader, CallQuery())
        if url.startswith("sqlite"):
            with pytest.raises(HistoryUnavailableError, match="unable to open"):
                await reader.check()


async def test_a_database_that_could_not_hold_every_character_is_refused(postgres: PostgreSQL) -> None:
    url = await postgres.new_database("TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc")
    async with aclosing(History(url, is_writer=True)) as history:
        with pytest.raises(ConfigError, match="LATIN1"):
            await history.prepare()


async def test_a_question_that_takes_too_long_is_given_up(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    await history.write(batch_of(_many()))
    monkeypatch.setattr(history, "_limit_s", 0)
    monkeypatch.setattr("console.history.store._TIMEOUT_MARGIN_S", LIMIT_S)
    if history.name.startswith("postgresql"):
        limit, slow = "SET LOCAL statement_timeout = 50", "SELECT pg_sleep(5)"
        with pytest.raises(HistoryUnavailableError, match="statement timeout"):
            await history._do(lambda connection: [connection.execute(text(part)) for part in (limit, slow)])
        return
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000000) SELECT sum(i) FROM n"
    with pytest.raises(HistoryUnavailableError, match="interrupted"):
        await history._do(lambda connection: connection.execute(text(slow)).scalar())


async def test_a_server_that_hangs_is_an_error_in_time_and_holds_no_thread(
    postgres: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_TIMEOUT_MARGIN_S", 1)
    async with aclosing(History(await postgres.new_database(), is_writer=True)) as history:
        await history.prepare()
        pid = await history._do(lambda connection: int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))
        monkeypatch.setattr(history, "_limit_s", 0)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(HistoryUnavailableError, match="did not answer within"):
                await history.check()
            monkeypatch.setattr(history, "_limit_s", 20)
            await history.check()  # on a new connection, in the one thread there is
        finally:
            os.kill(pid, signal.SIGCONT)
