"""The history's tables are migrated from every state that a release or a development version left, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, Table, column, inspect, select, table, text
from sqlalchemy.schema import CreateColumn

from console.call_query import CallQuery
from console.history import schema
from console.history.engine import open_engine
from console.history.store import History
from console.history.tables import FIRST_REVISION, METADATA, REVISION, REVISIONS
from shared.errors import ConfigError
from tests.helpers.history import batch_of, call_event, found
from tests.helpers.pace import LIMIT_S

_RELEASED = Path(__file__).resolve().parents[2] / "unit" / "history" / "released"
_DEVELOPED = ("call_type", "queue", "agent_name", "ended_by")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_engine(url, is_writer=True)
    yield opened
    opened.dispose()


def _differences(engine: Engine) -> list[object]:
    """Compare the database with the tables of the code, as Alembic does."""
    with engine.connect() as connection:
        options = {
            "compare_type": True,
            "include_object": lambda item, *_: not isinstance(item, Table) or item.name != REVISIONS.name,
        }
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))


def _revision(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(select(REVISIONS.c.version_num)).scalar_one())


def _first_release(engine: Engine) -> None:
    """Create the tables as the first release does."""
    script = (_RELEASED / f"first_release.{engine.dialect.name}.sql").read_text("ascii")
    with engine.begin() as connection:
        for statement in script.partition("\n")[2].split(";\n"):
            if statement.strip():
                connection.execute(text(statement))
        columns = [column.name for column in METADATA.tables["calls"].columns if column.name not in _DEVELOPED]
        assert [column["name"] for column in inspect(connection).get_columns("calls")] == columns


def _migrate(engine: Engine) -> None:
    with engine.begin() as connection:
        schema.migrate(connection)


async def test_a_new_database_gets_the_tables_of_the_code_and_a_second_start_does_nothing(engine: Engine) -> None:
    _migrate(engine)
    assert (_differences(engine), _revision(engine)) == ([], REVISION)
    _migrate(engine)
    assert _revision(engine) == REVISION


@pytest.mark.parametrize(
    "developed", [(), ("call_type", "flags"), (*_DEVELOPED, "flags")], ids=["first release", "some columns", "all"]
)
async def test_tables_without_a_recorded_revision_are_recognised_and_keep_their_rows(
    url: str, engine: Engine, developed: tuple[str, ...]
) -> None:
    _first_release(engine)
    call: dict[str, object] = {column.name: None for column in METADATA.tables["calls"].columns if column.name not in _DEVELOPED}
    call |= {name: value for name, value in batch_of([call_event(1)]).calls["acme", "1"].items() if name in call}
    with engine.begin() as connection:
        connection.execute(table("calls", *(column(name) for name in call)).insert(), call)
        for name in developed:
            whole = METADATA.tables["recordings" if name == "flags" else "calls"]
            definition = CreateColumn(whole.columns[name]).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {whole.name} ADD COLUMN {definition}"))
    async with aclosing(History(url, is_writer=True)) as writer:
        await writer.prepare()
        await writer.write(batch_of([call_event(2, call_type="Login")], first=1))
        assert {(row.call, row.call_type) for row in await found(writer, CallQuery())} == {("1", "API"), ("2", "Login")}
    assert (_differences(engine), _revision(engine)) == ([], REVISION)


async def test_of_several_processes_that_start_at_once_one_migrates(
    url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last one waits until all others have migrated.
    monkeypatch.setattr("console.history.engine._LOCK_TIMEOUT_S", round(LIMIT_S))
    _first_release(engine)
    histories = [History(url, is_writer=True) for _ in range(4)]
    try:
        await asyncio.gather(*(history.prepare() for history in histories))
    finally:
        for history in histories:
            await history.aclose()
    assert (_differences(engine), _revision(engine)) == ([], REVISION)


async def test_tables_of_a_newer_release_are_used_if_they_only_have_more_and_refused_else(url: str, engine: Engine) -> None:
    _migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE calls ADD COLUMN mood TEXT"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    async with aclosing(History(url, is_writer=True)) as writer:
        await writer.prepare()
        await writer.write(batch_of([call_event(1)]))
        assert [row.call for row in await found(writer, CallQuery())] == ["1"]
        assert _revision(engine) == "0999"
        with engine.begin() as connection:
            connection.execute(text("UPDATE callfold_schema SET version = 3"))
        with pytest.raises(ConfigError, match="A newer release has migrated them"):
            await writer.prepare()
        with pytest.raises(ConfigError, match="A newer release has migrated them"):
            await writer.check()


async def test_a_migration_that_fails_leaves_the_tables_as_they_were(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _first_release(engine)

    class _CutOffError(Exception):
        pass

    def cut_off(*_: object, **__: object) -> None:
        raise _CutOffError

    monkeypatch.setattr(schema.log, "info", cut_off)
    with pytest.raises(_CutOffError):
        _migrate(engine)
    assert not inspect(engine).has_table(REVISIONS.name)
    assert "flags" not in {column["name"] for column in inspect(engine).get_columns("recordings")}


def test_the_code_names_the_first_and_the_last_revision() -> None:
    scripts = ScriptDirectory(str(schema._MIGRATIONS))
    assert (scripts.get_base(), scripts.get_current_head()) == (FIRST_REVISION, REVISION)
