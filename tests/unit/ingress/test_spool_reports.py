"""What is reported of a spool: timers wait for callbacks that come, and never for rows that are damaged or lost."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import cast

import pytest

from ingress.fold_depth import FoldDepth
from ingress.outgoing_message import OutgoingMessage
from ingress.publish_or_spool import DurableWriter
from ingress.spool import SPOOL_FILE, Spool
from ingress.spool_drain import SpoolDrain
from ingress.spool_reports import SpoolReports
from ingress.waiting import Waiting
from shared.amqp.publisher import Message, Publisher
from shared.amqp.queue_gate import QueueGate
from shared.amqp.topology import CALLBACKS, CALLBACKS_FOLD, MARKER, MARKER_BODY, SPOOL, SPOOL_OLDEST
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.errors import BrokerUnavailableError
from shared.runtime.process import background
from tests.helpers.servers import eventually
from tests.unit.ingress.test_waiting import MIB, _Broker

ACME = SourceName("acme")
_AT = [f"2026-11-23T07:44:0{number}.000000Z" for number in range(4)]


class _Lossy(_Broker):
    """Also does something to the spool once it has confirmed a message."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = QueueGate(CALLBACKS, CALLBACKS_FOLD)
        self.after_publish: list[tuple[Path, str]] = []

    async def wait_until_unblocked(self) -> None:
        return

    async def reopen_gate(self) -> bool:
        return not self.gate.is_closed

    async def publish(self, message: Message) -> None:
        if message.exchange == CALLBACKS and self.gate.is_closed:
            raise BrokerUnavailableError(self.gate.problem)
        await super().publish(message)
        for path, statement in self.after_publish:
            _execute(path, statement)
        self.after_publish = []

    def reports(self) -> list[str]:
        """The reports of oldest callbacks, in order."""
        return [str(message.headers[SPOOL_OLDEST]) for message in self.published if SPOOL in message.headers]


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(statement)


@pytest.fixture(autouse=True)
def _each_row_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.spool_drain._DRAIN_BYTES", 1)
    monkeypatch.setattr("ingress.waiting._READ_BYTES", 1)
    monkeypatch.setattr("ingress.spool_drain._CHECK_INTERVAL_S", 0.05)


def _rows(times: Sequence[str]) -> list[OutgoingMessage]:
    return [OutgoingMessage(CALLBACKS, "", {}, join([encode(CallbackEvent(ACME, at, "x"))])) for at in times]


@asynccontextmanager
async def _draining(directory: Path, broker: _Lossy) -> AsyncIterator[Spool]:
    """A drain of `spool.sqlite`."""
    publisher = cast("Publisher", broker)
    async with Spool(directory, max_bytes=64 * MIB) as spool:
        writer = DurableWriter(publisher, spool, FoldDepth(publisher, 1 << 30), broker.probes)
        async with background(SpoolDrain(publisher, spool, writer).run()):
            yield spool


async def _fill(directory: Path, times: Sequence[str], *statements: str, file_name: str = SPOOL_FILE) -> None:
    async with Spool(directory, max_bytes=64 * MIB, file_name=file_name) as spool:
        await spool.add(_rows(times))
    for statement in statements:
        _execute(directory / file_name, statement)


async def _until_empty(spool: Spool) -> None:
    async def is_empty() -> bool:
        async with spool.drain_lock() as is_ours:
            return is_ours and await spool.count() == 0

    await eventually(is_empty)


@pytest.mark.parametrize("column", ["body = cast(cast(body as text) || 'x' as blob)", "headers = x'00'"])
async def test_a_damaged_row_holds_no_timer_and_hides_no_callback_after_it(tmp_path: Path, column: str) -> None:
    damage = [f"update messages set {column} where id = {row_id}" for row_id in (2, 4)]  # noqa: S608 - constants
    await _fill(tmp_path, _AT, *damage)
    broker = _Lossy()
    async with _draining(tmp_path, broker) as spool:
        await _until_empty(spool)
    assert broker.reports() == [_AT[2], ""]


async def test_a_row_whose_times_are_unreadable_hides_no_callback_after_it(tmp_path: Path) -> None:
    await _fill(tmp_path, _AT, "update messages set body = x'00' where id = 2")
    broker = _Lossy()
    async with _draining(tmp_path, broker) as spool:
        await _until_empty(spool)
    assert broker.reports() == [_AT[2], _AT[3], ""]


def _assert_ended(broker: _Lossy, name: str) -> None:
    """The last message says that nothing waits. It has no callbacks, and goes past the journal."""
    assert broker.reports() == [_AT[1], ""]
    last = broker.published[-1]
    assert (last.exchange, last.routing_key, last.body) == ("", CALLBACKS_FOLD, MARKER_BODY)
    assert (last.headers[MARKER], last.headers[SPOOL]) == ("0", name)
    assert broker.published[0].headers[SPOOL] == name


async def test_rows_that_are_lost_after_a_report_hold_no_timer(tmp_path: Path) -> None:
    await _fill(tmp_path, _AT[:2])
    broker = _Lossy()
    broker.after_publish = [(tmp_path / SPOOL_FILE, "delete from messages")]
    async with _draining(tmp_path, broker) as spool:

        async def is_reported() -> bool:
            return len(broker.reports()) > 1

        await eventually(is_reported)
        _assert_ended(broker, spool.name)
        await spool.add(_rows([_AT[3]]))
        await _until_empty(spool)
    assert broker.reports()[2:] == [""], "an end is reported once"


async def test_rows_of_one_source_that_are_lost_after_a_report_hold_no_timer(tmp_path: Path) -> None:
    file_name = f"waiting-{ACME}.sqlite"
    await _fill(tmp_path, _AT[:2], file_name=file_name)
    broker = _Lossy()
    broker.after_publish = [(tmp_path / file_name, "delete from messages")]
    async with _draining_lane(tmp_path, broker):

        async def is_reported() -> bool:
            return len(broker.reports()) > 1

        await eventually(is_reported)
        _assert_ended(broker, str(broker.published[0].headers[SPOOL]))
        assert str(broker.published[0].headers[SPOOL]).endswith(f"/{ACME}")


async def test_a_process_that_goes_on_in_a_new_file_ends_what_another_reported(tmp_path: Path) -> None:
    """The other process died, and with it went the file. Both had the same name of the spool."""
    broker = _Lossy()
    async with _draining(tmp_path, broker) as spool, Spool(tmp_path, max_bytes=64 * MIB) as other:
        await _until_empty(spool)
        assert broker.published == []
        with other._file._paths.locked():
            other._file._set_aside(OSError("a test"))
        await other.check()

        async def is_reported() -> bool:
            return broker.reports() == [""]

        await eventually(is_reported)
        assert broker.published[0].headers[SPOOL] == other.name == spool.name


@asynccontextmanager
async def _draining_lane(directory: Path, broker: _Lossy) -> AsyncIterator[None]:
    publisher = cast("Publisher", broker)
    async with (
        Waiting(directory, publisher, FoldDepth(publisher, 1 << 30), broker.probes, max_bytes=64 * MIB) as waiting,
        background(waiting.run()),
    ):
        yield


@pytest.mark.parametrize("is_lane", [False, True])
async def test_what_is_spooled_while_the_fold_is_nearly_full_is_reported_before_it_is_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_lane: bool
) -> None:
    """Else rounds that are opened until then would let timers overtake it."""
    file_name = f"waiting-{ACME}.sqlite" if is_lane else SPOOL_FILE
    await _fill(tmp_path, _AT, "update messages set body = x'00' where id = 1", file_name=file_name)
    broker = _Lossy()
    broker.gate.set_nearly_full(is_nearly_full=True)
    monkeypatch.setattr("ingress.spool_reports._ANNOUNCE_S", 0.01)
    async with _draining_lane(tmp_path, broker) if is_lane else _draining(tmp_path, broker):

        async def is_repeated() -> bool:
            return len(broker.reports()) >= 2

        await eventually(is_repeated)  # workers forget a spool of which they hear nothing
        assert {(each.routing_key, each.body) for each in broker.published} == {(CALLBACKS_FOLD, MARKER_BODY)}
        assert set(broker.reports()) == {_AT[1]}
        broker.gate.set_nearly_full(is_nearly_full=False)

        async def is_drained() -> bool:
            broker.fold_all()
            return broker.reports()[-1] == ""

        await eventually(is_drained)
    assert broker.events() == ["x"] * 3
    assert [at for at in broker.reports() if at != _AT[1]] == [*_AT[2:], ""]


async def test_a_report_without_a_confirm_may_be_known(tmp_path: Path) -> None:
    await _fill(tmp_path, _AT[:2])
    broker = _Lossy()
    publisher = cast("Publisher", broker)
    async with Spool(tmp_path, max_bytes=64 * MIB) as spool:
        reports = SpoolReports(spool)
        await reports.end(publisher)
        assert broker.reports() == []
        ((first, _),) = await spool.oldest(1, max_bytes=1)
        await reports.after(first)
        assert not reports.is_waiting
        await reports.end(publisher)
        await reports.end(publisher)
    assert broker.reports() == [""]


async def test_a_spool_that_was_never_used_reports_nothing(tmp_path: Path) -> None:
    broker = _Lossy()
    async with _draining(tmp_path, broker) as spool:
        await _until_empty(spool)
    assert broker.published == []
