"""Addresses of databases, and batches of events."""

from __future__ import annotations

import pytest

from console.history.batch import Batch, StreamMessage
from console.history.engine import open_engine
from console.history.store import History
from shared.errors import ConfigError


async def test_an_address_that_cannot_work_is_a_clear_error_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("mysql://u:hunter2@h/d", "sqlite://", "postgresql://u:hunter2@h/d", "postgresql+psycopg://u:hunter2@h:x/d"):
        with pytest.raises(ConfigError, match="CALLFOLD_HISTORY_URL") as told:
            History(url)
        assert "hunter2" not in str(told.value)
    assert "hunter2" not in History("postgresql+psycopg://u:hunter2@h/d?password=hunter2").name
    with pytest.raises(ConfigError, match="no file"):
        History("sqlite:///:memory:")


def test_without_the_driver_the_error_names_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'callfold\[postgres\]'"):
        open_engine("postgresql+psycopg://h/d", is_writer=False)


def test_the_marks_of_a_batch_are_its_last_events() -> None:
    batch = Batch.of("calls.journal", [StreamMessage(5, b"x"), StreamMessage(9, b"y")])
    assert batch.checkpoint == (9, StreamMessage(0, b"y").fingerprint)
