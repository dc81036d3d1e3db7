"""Parts of a move to another broker: batches without equal ids, what is copied, whose queues are listed, which addresses are taken."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from pamqp.commands import Basic
from pamqp.common import FieldTable

from console.broker_move import hold
from console.broker_move.hold import TimerHold
from console.broker_move.queues import QueueMove
from console.commands.broker_move import Progress, move
from shared.amqp.batch_publish import Copy
from shared.amqp.connection import BrokerAddress
from shared.amqp.copying import copied_properties, without_equal_ids
from shared.amqp.subscribers import subscriptions
from shared.amqp.topology import Topology
from shared.domain.barrier import FoldedUntil, Member, Reports, Round, Spool, folded_until
from shared.errors import ConfigError
from shared.runtime.process import background
from shared.state.watermark import SpoolReport
from tests.helpers.settings import settings_here
from worker.folding.echoes import Echoes


def _copy(message_id: str | None) -> Copy:
    return Copy("move.calls.journal", "call.completed.acme.answered", b"{}", Basic.Properties(message_id=message_id))


def test_no_batch_has_two_equal_ids_and_the_order_stays() -> None:
    copies = [_copy(each) for each in ("a", "b", "a", "a", "c", None, None)]
    batches = list(without_equal_ids(copies))
    assert [each for batch in batches for each in batch] == copies
    assert [[each.message_id for each in batch] for batch in batches] == [["a", "b"], ["a"], ["a", "c", ""], [""]]
    assert list(without_equal_ids([])) == []


def test_a_copy_keeps_every_property_but_those_of_the_old_broker() -> None:
    headers: FieldTable = {
        "reason": "unknown_source",
        "x-stream-offset": 7,
        "echo_to": "callbacks.echo.1",
        "echo_id": 3,
        "x-death": [{"count": 2}],
    }
    old = Basic.Properties(
        content_type="application/json",
        headers=headers,
        delivery_mode=1,
        priority=3,
        message_id="m",
        user_id="guest",
        expiration="9",
    )
    new = copied_properties(old)
    assert new.headers == {"reason": "unknown_source", "x-death": [{"count": 2}]}
    assert (new.delivery_mode, new.user_id) == (2, None)
    assert (new.content_type, new.priority, new.message_id, new.expiration) == ("application/json", 3, "m", "9")
    assert old.headers == headers, "the old message is as it was"


def test_a_header_that_cannot_be_written_stops_no_copy() -> None:
    assert copied_properties(Basic.Properties(headers={"a": 1, "b": object()})).headers == {"a": 1}  # type: ignore[dict-item]
    assert copied_properties(Basic.Properties()).headers == {}


def test_the_queues_of_subscribers_are_listed_without_callfolds_own() -> None:
    bindings = [
        {"source": "calls", "destination": "calls.journal", "destination_type": "queue", "routing_key": "#"},
        {"source": "calls", "destination": "crm", "destination_type": "queue", "routing_key": "call.#"},
        {"source": "calls", "destination": "billing", "destination_type": "queue", "routing_key": "call.completed.#"},
        {"source": "calls", "destination": "crm", "destination_type": "queue", "routing_key": "call.#"},
    ]
    assert [str(each) for each in subscriptions(bindings, {"calls.journal"})] == ["billing (call.completed.#)", "crm (call.#)"]


@pytest.mark.parametrize("to", ["", "http://x", "amqp://a,redis://b", "env:NOT_SET", "env:EMPTY"])
async def test_an_address_that_is_none_is_refused_before_anything_is_done(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_here(monkeypatch, {"CALLFOLD_REDIS_URL": "redis://127.0.0.1:1/0"})
    monkeypatch.setenv("EMPTY", " , ")
    with pytest.raises(ConfigError, match="--to must be") as raised:
        await move(settings, to, is_finishing=False, as_json=False)
    name = to.removeprefix("env:")
    assert (f"The variable {name} is not set or has no URL." in str(raised.value)) == (name != to)


@pytest.mark.parametrize("is_finishing", [False, True])
def test_only_a_run_that_does_not_finish_asks_for_one_that_does(
    capsys: pytest.CaptureFixture[str], *, is_finishing: bool
) -> None:
    Progress(as_json=False, is_finishing=is_finishing).report("switch", {})
    said = capsys.readouterr().out
    assert said.startswith("The timers wait now. ")
    assert ("run it with --finish" in said) != is_finishing


def test_progress_is_a_sentence_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(as_json=False)
    for step, facts in (
        ("subscribers", {"bindings": ["crm (call.#)"]}),
        ("subscribers", {"bindings": []}),
        ("subscribers", {"problem": "unknown"}),
        ("declared", {"queues": 6, "streams": 4}),
        ("copying", {"calls.journal": {"copied": 1200, "of": 5000}}),
        ("copying", {"calls.journal": {"copied": 1200, "of": 5000}}),
        ("moving", {"moved": {}, "workers": {"callbacks.fold": 2}}),
        ("moved", {"moved": {}, "workers": {}}),
        ("waiting", {"moved": {"callbacks.fold": 1}, "workers": {}}),
        ("retrying", {"problem": "Cannot look"}),
    ):
        progress.report(step, facts)
    assert capsys.readouterr().out.splitlines() == [
        (
            "Queues of subscribers on the old broker: crm (call.#). Bind them on the new broker before workers switch, "
            "and consume the old ones until they are empty."
        ),
        "No queue of a subscriber is bound to `calls` on the old broker.",
        "Queues of subscribers: unknown. Their owners bind them on the new broker before workers switch.",
        "Declared on the new broker. Copying 4 streams, then moving 6 queues.",
        "Copied calls.journal 1,200 of 5,000",
        "Moved nothing yet. On the old broker: 2 consumers of callbacks.fold",
        "Everything is on the new broker. Waiting until the workers have folded it.",
        "Moved 1 message of callbacks.fold",
        "Cannot look. Trying again.",
    ]


class _Source:
    """Delivers what it was given, once."""

    def __init__(self, deliveries: list[_Delivery]) -> None:
        self.deliveries = deliveries

    async def get(self) -> _Delivery:
        return self.deliveries.pop(0)

    def get_waiting(self, max_bytes: int) -> list[_Delivery]:
        assert max_bytes
        waiting, self.deliveries = self.deliveries, []
        return waiting

    def copies(self, deliveries: list[_Delivery], exchange: str) -> list[Copy]:
        return [Copy(exchange, "", each.body, Basic.Properties()) for each in deliveries]


class _Delivery:
    headers: ClassVar[dict[str, object]] = {}

    def __init__(self, body: bytes, steps: list[str]) -> None:
        self.body = body
        self._steps = steps

    async def ack(self) -> None:
        self._steps.append(f"acked {self.body.decode()}")


async def test_a_message_is_acked_once_the_new_broker_has_confirmed_it() -> None:
    steps: list[str] = []

    class New:
        async def copy_until_confirmed(self, copies: list[Copy]) -> None:
            await asyncio.sleep(0)
            steps.extend(f"confirmed {each.body.decode()} in {each.exchange}" for each in copies)

    old = SimpleNamespace(address=BrokerAddress((), Topology(), "tests"))
    moving = QueueMove("recordings", cast("Any", old), cast("Any", New()), Echoes(cast("Any", None)), waits_for_workers=False)
    moving._source = cast("Any", _Source([_Delivery(b"1", steps), _Delivery(b"2", steps)]))
    await moving._move_waiting()
    assert steps == ["confirmed 1 in move.recordings", "confirmed 2 in move.recordings", "acked 1", "acked 2"]
    assert moving.moved == 2


class _Watermarks:
    """Reports of workers; a round is complete each time they are read."""

    def __init__(self, rounds: list[int]) -> None:
        self.rounds = rounds
        self.stored: list[SpoolReport] = []
        self.spools: list[Spool] = []

    async def reports(self) -> Reports:
        opened_ms = self.rounds.pop(0)
        return Reports([Round(opened_ms, opened_ms, 1)], [Member("w", 1, 1, opened_ms)], self.spools, _NOW_MS)

    async def folded_until(self) -> FoldedUntil | None:
        return folded_until(await self.reports())

    async def store_spool_reports(self, reports: list[SpoolReport]) -> None:
        self.stored += reports


_NOW_MS = 1_800_000_000_000


def _hold(watermarks: _Watermarks) -> TimerHold:
    async def now() -> datetime:
        await asyncio.sleep(0)
        return datetime.fromtimestamp(_NOW_MS / 1000, UTC)

    return TimerHold(cast("Any", SimpleNamespace(watermarks=watermarks, now=now)))


async def test_the_timers_are_held_at_what_was_folded_when_the_move_began() -> None:
    watermarks = _Watermarks([_NOW_MS - 900, _NOW_MS - 500])
    await _hold(watermarks).begin()
    assert watermarks.stored == [SpoolReport("broker-move", _NOW_MS - 500, _NOW_MS)]


async def test_a_move_that_was_interrupted_keeps_the_time_of_its_hold() -> None:
    watermarks = _Watermarks([_NOW_MS - 900, _NOW_MS - 500])
    watermarks.spools = [Spool("another", 3, _NOW_MS), Spool("broker-move", 7, _NOW_MS)]
    await _hold(watermarks).begin()
    assert watermarks.stored == [SpoolReport("broker-move", 7, _NOW_MS)]


async def test_the_hold_ends_with_a_round_that_was_opened_after_all_was_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "_LOOK_S", 0)
    watermarks = _Watermarks([_NOW_MS - 900, _NOW_MS, _NOW_MS + 300, _NOW_MS + 600])
    await _hold(watermarks).end()
    assert watermarks.stored == [SpoolReport("broker-move", None, _NOW_MS)]
    assert watermarks.rounds == [_NOW_MS + 600]


async def test_a_hold_that_has_ended_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "_LOOK_S", 0)
    monkeypatch.setattr(hold, "_REPORT_S", 0)
    watermarks = _Watermarks([_NOW_MS - 500] * 2 + [_NOW_MS + 300])
    timers = _hold(watermarks)
    await timers.begin()
    async with background(timers.keep()):
        await timers.end()
        ended = len(watermarks.stored)
        while len(watermarks.stored) < ended + 3:
            await asyncio.sleep(0)
    assert {each.oldest_ms for each in watermarks.stored[ended:]} == {None}
