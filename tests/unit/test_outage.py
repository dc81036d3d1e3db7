"""An outage is logged when it begins, once a minute while it lasts, and when it is over; never for each attempt."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from shared import outage
from shared.log import get_logger
from shared.outage import Outage
from tests.helpers.pace import LIMIT_S


class _Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(outage, "time", clock)
    return clock


def _outage() -> Outage:
    return Outage(get_logger("tests"), "thing_broken", "thing_works")


def test_five_attempts_a_second_are_one_line_a_minute(clock: _Clock) -> None:
    thing = _outage()
    with capture_logs() as lines:
        for _ in range(5 * 150):
            thing.failed("no answer", number=1)
            clock.now += 0.2
        thing.succeeded()
        thing.succeeded()
    assert [(line["event"], line.get("failures")) for line in lines] == [
        ("thing_broken", 1),
        ("thing_broken", 301),
        ("thing_broken", 601),
        ("thing_works", 750),
    ]
    assert (lines[0]["detail"], lines[0]["number"], lines[-1]["seconds"]) == ("no answer", 1, 150.0)


def test_another_reason_is_logged_at_once_but_no_flood_of_reasons(clock: _Clock) -> None:
    thing = _outage()
    with capture_logs() as lines:
        for number in range(100):
            thing.failed("no answer")
            thing.failed("is a replica")
            thing.failed(f"attempt {number}")
    assert [line["detail"] for line in lines] == ["no answer", "is a replica", "attempt 0", "attempt 1", "attempt 2"]


def test_what_fails_and_works_in_turn_is_no_flood_either(clock: _Clock) -> None:
    thing = _outage()
    with capture_logs() as lines:
        for _ in range(500):
            thing.failed("no answer")
            clock.now += 0.1
            thing.succeeded()
    assert [line["event"] for line in lines] == ["thing_broken", "thing_works"]


def test_failures_between_short_successes_count_in_the_next_line(clock: _Clock) -> None:
    thing = _outage()
    with capture_logs() as lines:
        for _ in range(490):
            thing.failed("no answer")
            clock.now += 0.125
            thing.succeeded()
    assert [line["failures"] for line in lines] == [1, 1, 480, 480]


def test_an_outage_can_be_an_error() -> None:
    thing = Outage(get_logger("tests"), "thing_broken", "thing_works", is_error=True)
    with capture_logs() as lines:
        thing.failed("no answer")
        thing.succeeded()
    assert [line["log_level"] for line in lines] == ["error", "info"]


def test_it_is_over_when_every_task_has_succeeded_or_given_up(clock: _Clock) -> None:
    thing = _outage()
    with capture_logs() as lines:
        for task in ("one", "two", "three"):
            thing.failed("no answer", task=task)
        thing.succeeded(task="another")
        thing.succeeded(task="one")
        thing.gave_up(task="two")
        assert [line["event"] for line in lines] == ["thing_broken"]
        thing.succeeded(task="three")
    assert [line["event"] for line in lines] == ["thing_broken", "thing_works"]
    assert not thing.is_ongoing


def test_giving_up_is_no_success(clock: _Clock) -> None:
    thing = _outage()
    with capture_logs() as lines:
        thing.failed("no answer")
        thing.gave_up()
    assert [line["event"] for line in lines] == ["thing_broken"]


def test_an_outage_that_the_last_task_gave_up_ends_with_the_next_success_of_any_task(clock: _Clock) -> None:
    thing = _outage()
    with capture_logs() as lines:
        thing.failed("no answer", task="one")
        thing.gave_up(task="one")
        thing.succeeded(task="two")
        thing.succeeded(task="two")
    assert [line["event"] for line in lines] == ["thing_broken", "thing_works"]


async def test_a_step_is_repeated_until_it_succeeds_and_a_step_that_is_cancelled_leaves_no_outage() -> None:
    thing, failures = _outage(), list[ConnectionError]()

    async def step() -> int:
        if len(failures) < 3:
            raise ConnectionError("no answer")
        return 513

    with capture_logs() as lines:
        assert await thing.outlast(step, ConnectionError, pauses_s=(0.001, 0), on_failure=failures.append) == 513
    assert [(line["event"], line["failures"]) for line in lines] == [("thing_broken", 1), ("thing_works", 3)]

    failures.clear()
    endless = asyncio.create_task(thing.outlast(step, ConnectionError, pauses_s=(0,)))
    while not thing.is_ongoing:
        await asyncio.sleep(0)
    endless.cancel()
    await asyncio.wait([endless], timeout=LIMIT_S)
    assert not thing.is_ongoing


async def test_another_error_ends_the_step() -> None:
    async def step() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await _outage().outlast(step, ConnectionError, pauses_s=(0,))
