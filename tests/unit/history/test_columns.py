"""Which columns the database has is read once per connection, until a missing one appears."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from console.call_query import CallQuery
from console.history import queries
from console.history.engine import open_engine
from console.history.schema import migrate
from console.history.tables import METADATA


def _introspections(engine: Engine) -> Counter[str]:
    """Count the statements that read the columns of a table."""
    found = Counter[str]()

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "table_info" in statement or "table_xinfo" in statement:
            found[statement] += 1

    event.listen(engine, "before_cursor_execute", count)
    return found


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_engine(f"sqlite:///{tmp_path / 'history.sqlite'}", is_writer=True)


def test_the_columns_of_a_table_are_read_once(engine: Engine) -> None:
    found = _introspections(engine)
    with engine.begin() as connection:
        migrate(connection)
    of_tables = {name: sum(count for text, count in found.items() if f'"{name}"' in text) for name in METADATA.tables}
    assert max(of_tables.values()) < 5, "not for each column; SQLAlchemy reads them as well"
    found.clear()
    with engine.begin() as connection:
        for _ in range(3):
            queries.recordings(connection, "acme", "7")
            queries.page(connection, CallQuery(type="API"), None, 10)
    assert sorted(found.values()) == [1, 1], "once for each of the two tables"
    engine.dispose()


def test_a_column_that_a_newer_release_adds_meanwhile_is_seen(engine: Engine) -> None:
    with engine.begin() as connection:
        migrate(connection)
        connection.execute(text("ALTER TABLE recordings DROP COLUMN flags"))
    with closing(engine.connect()) as reader:
        reader.info.clear()
        assert queries.recordings(reader, "acme", "7") == []
        reader.commit()
        reader.execute(text("ALTER TABLE recordings ADD COLUMN flags TEXT"))
        found = _introspections(engine)
        for _ in range(3):
            queries.recordings(reader, "acme", "7")
        assert set(found.values()) == {1}
    engine.dispose()
