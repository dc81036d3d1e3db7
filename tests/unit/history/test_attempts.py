"""Attempts to deliver events to webhooks, as rows of the history."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from console.history.batch import Batch, StreamMessage
from console.history.engine import open_engine
from console.history.store import History
from shared.amqp.topology import FORWARD_JOURNAL
from shared.domain.times import rfc3339
from tests.helpers.history import batch_of, call_event

NOW = datetime.now(UTC)


def attempt(event_id: str = "acme/513/1", *, age: timedelta = timedelta(0), **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "endpoint": "crm",
        "event_id": event_id,
        "type": "callfold.call.completed.v1",
        "attempt": 1,
        "at": rfc3339(NOW - age),
        "status": 503,
        "error": None,
        "seconds": 0.25,
        "answer": "busy",
        "next_at": None,
        "result": "retry",
    } | fields


def batch(*attempts: dict[str, Any]) -> Batch:
    messages = [StreamMessage(offset, orjson.dumps(each)) for offset, each in enumerate(attempts)]
    return Batch.of(FORWARD_JOURNAL, messages)


async def test_the_attempts_of_an_endpoint_are_listed_newest_first_and_each_once(tmp_path: Path) -> None:
    async with aclosing(History(f"sqlite:///{tmp_path / 'h.sqlite'}", is_writer=True)) as history:
        await history.prepare()
        written = batch(
            attempt(age=timedelta(minutes=2)),
            attempt(age=timedelta(minutes=1), attempt=2, status=200, answer="\0ok", result="delivered"),
            attempt(endpoint="bi"),
        )
        await history.write(written)
        await history.write(written)
        found = await history.attempts("crm", limit=10)
        assert [(each.attempt, each.status, each.answer) for each in found] == [(2, 200, "\ufffdok"), (1, 503, "busy")]
        assert [each.attempt for each in await history.attempts("crm", limit=10, failed=True)] == [1]
        assert [each.attempt for each in await history.attempts("crm", limit=10, before=found[0].at)] == [1]
        assert len(await history.attempts("crm", limit=1)) == 1


async def test_a_call_has_the_attempts_of_its_own_events_only(tmp_path: Path) -> None:
    async with aclosing(History(f"sqlite:///{tmp_path / 'h.sqlite'}", is_writer=True)) as history:
        await history.prepare()
        await history.write(batch_of([call_event(513)]))
        ids = ("acme/513/1", "acme/513/recording/g/stored", "acme/513.2/1", "acme/5131/1", "ops/1", "acme/513")
        await history.write(batch(*map(attempt, ids)))
        call = await history.call("acme", "513")
        assert call is not None
        assert {each.event_id for each in call.deliveries} == {"acme/513/1", "acme/513/recording/g/stored"}


async def test_attempts_are_kept_for_90_days(tmp_path: Path) -> None:
    async with aclosing(History(f"sqlite:///{tmp_path / 'h.sqlite'}", is_writer=True)) as history:
        await history.prepare()
        await history.write(batch(attempt("acme/1/1", age=timedelta(days=91)), attempt("acme/2/1", age=timedelta(days=89))))
        assert [each.event_id for each in await history.attempts("crm", limit=10)] == ["acme/2/1"]


async def test_before_the_migration_a_reader_finds_no_attempts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'h.sqlite'}"
    async with aclosing(History(url, is_writer=True)) as history:
        await history.prepare()
    engine = open_engine(url, is_writer=True)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE webhook_attempts"))
    engine.dispose()
    async with aclosing(History(url)) as reader:
        assert await reader.attempts("crm", limit=10) == []


@pytest.mark.parametrize(
    "fault", [{"attempt": -1}, {"at": "yesterday"}, {"seconds": -1}, {"result": "lost"}, {"status": 20}, {"answer": None}]
)
def test_what_is_no_attempt_is_kept_as_unreadable(fault: dict[str, Any]) -> None:
    broken = batch(attempt(**fault))
    assert (broken.attempts, [row["type"] for row in broken.events]) == ([], ["unreadable"])
