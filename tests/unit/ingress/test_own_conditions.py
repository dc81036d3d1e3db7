"""Operator events of one machine: raised and cleared once, with true times, and continued by the next process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from ingress import own_conditions
from ingress.ops_records import FileRecords
from ingress.outgoing_message import OutgoingMessage
from ingress.own_conditions import RAISE_AFTER_S, OwnConditions
from ingress.spool import Spool
from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS, Topology
from shared.domain.times import rfc3339
from tests.helpers.pace import LIMIT_S

HOLD_S = 10
START = datetime(2026, 11, 30, 12, tzinfo=UTC)


@dataclass
class _Broker:
    """A publisher, of which only the state of its connection is asked."""

    is_up: bool = True
    is_blocked: bool = False
    address: BrokerAddress = field(default_factory=lambda: BrokerAddress(("amqp://127.0.0.1:1/",), Topology(), "ingress"))


@dataclass
class _Machine:
    """A machine with one ingress, whose clock the test moves."""

    directory: Path
    spool: Spool
    broker: _Broker = field(default_factory=_Broker)
    now: datetime = START
    published: list[Message] = field(default_factory=list)

    def ingress(self) -> OwnConditions:
        return OwnConditions(
            self.broker,  # type: ignore[arg-type]
            self.spool,
            self.directory,
            max_bytes=1 << 20,
            hold_s=HOLD_S,
            now=lambda: rfc3339(self.now),
        )

    async def publish(self, message: Message) -> None:
        self.published.append(message)

    async def pass_by(self, ingress: OwnConditions, seconds: float) -> None:
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            await ingress.step(self.now.timestamp())
            self.now += timedelta(seconds=1)

    def events(self) -> list[tuple[str, str, str]]:
        events = [orjson.loads(message.body) for message in self.published]
        return [(event["data"]["what"], event["data"]["state"], event["time"]) for event in events]


@pytest.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_Machine]:
    async with Spool(tmp_path, max_bytes=1 << 20) as spool:
        machine = _Machine(tmp_path, spool)
        monkeypatch.setattr(own_conditions, "ops_publish", lambda *_: machine.publish)
        yield machine


def _at(seconds: float) -> str:
    return rfc3339(START + timedelta(seconds=seconds))


async def test_an_outage_is_raised_when_it_is_over_with_its_times_and_then_cleared(machine: _Machine) -> None:
    ingress = machine.ingress()
    await machine.pass_by(ingress, 10)
    machine.broker.is_up = False
    await machine.pass_by(ingress, 20)
    assert machine.events() == []
    machine.broker.is_up = True
    await machine.pass_by(ingress, 30)
    assert machine.events() == [("broker_away", "raised", _at(10)), ("broker_away", "cleared", _at(30))]


async def test_a_short_interruption_is_no_outage_and_leaves_no_file(machine: _Machine) -> None:
    ingress = machine.ingress()
    for _ in range(5):
        machine.broker.is_up = not machine.broker.is_up
        await machine.pass_by(ingress, RAISE_AFTER_S - 1)
    machine.broker.is_up = True
    await machine.pass_by(ingress, 10)
    assert machine.events() == []
    assert not list(machine.directory.glob("ops.*"))


@pytest.mark.parametrize("dies_after_s", [18, 25, 32])
async def test_the_next_process_continues_where_one_died(machine: _Machine, dies_after_s: int) -> None:
    ingress = machine.ingress()
    for second in range(60):
        machine.broker.is_up = not 10 <= second < 30
        if second == dies_after_s:
            ingress._records.close()  # as the kernel does
            ingress = machine.ingress()
        await machine.pass_by(ingress, 1)
    kinds = [event[:2] for event in machine.events()]
    assert kinds == [("broker_away", "raised"), ("broker_away", "cleared")]
    assert machine.events()[0][2] == _at(10)


async def test_a_process_that_is_stopped_publishes_what_is_due_and_leaves_no_file(machine: _Machine) -> None:
    ingress = machine.ingress()
    machine.broker.is_up = False
    await machine.pass_by(ingress, 10)
    await ingress.finish()  # while RabbitMQ is away, it stays in the file
    assert machine.events() == []
    assert (machine.directory / "ops.json").exists()
    ingress._records.close()
    machine.broker.is_up = True
    await machine.ingress().finish()
    assert [event[1] for event in machine.events()] == ["raised", "cleared"]
    assert not (machine.directory / "ops.json").exists()


async def test_a_publish_that_hangs_delays_the_end_of_a_process_by_a_few_seconds_only(
    machine: _Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_conditions, "_FINISH_S", 0.1)
    ingress = machine.ingress()
    await ingress._stepping.acquire()  # as a step does that publishes
    async with asyncio.timeout(LIMIT_S / 10):
        await ingress.finish()


async def test_of_two_processes_of_a_machine_one_reports(machine: _Machine) -> None:
    first, second = machine.ingress(), machine.ingress()
    machine.broker.is_up = False
    for _ in range(8):
        await first.step(machine.now.timestamp())
        await machine.pass_by(second, 1)
    machine.broker.is_up = True
    for _ in range(20):
        await first.step(machine.now.timestamp())
        await machine.pass_by(second, 1)
    assert [event[1] for event in machine.events()] == ["raised", "cleared"]


async def test_a_damaged_time_in_the_spool_dates_nothing(machine: _Machine) -> None:
    row = b'[{"kind":"callback","source":"acme","received_at":"2026-%s-30T11:59:00.000000Z","query":"x"}]'
    await machine.spool.add([OutgoingMessage(CALLBACKS, "", {}, row % b"17")])
    assert await machine.spool.oldest_receipt() == ""
    await machine.pass_by(machine.ingress(), RAISE_AFTER_S + 2)
    assert machine.events() == [("spooling", "raised", _at(0))]
    await machine.spool.add([OutgoingMessage(CALLBACKS, "", {}, row % b"11")])
    assert await machine.spool.oldest_receipt() == "2026-11-30T11:59:00.000000Z"


async def test_a_spool_is_raised_with_the_receipt_of_its_oldest_callback_and_once_more_when_nearly_full(
    machine: _Machine,
) -> None:
    ingress = machine.ingress()
    row = b'[{"kind":"callback","source":"acme","received_at":"2026-11-30T11:59:00.000000Z","query":"x"}]'
    await machine.spool.add([OutgoingMessage(CALLBACKS, "", {}, row)])
    await machine.pass_by(ingress, 10)
    assert machine.events() == [("spooling", "raised", "2026-11-30T11:59:00.000000Z")]
    for _ in range(10):
        await machine.spool.add([OutgoingMessage(CALLBACKS, "", {}, row + b" " * 95_000)])
    await machine.pass_by(ingress, 10)
    assert [event[:2] for event in machine.events()] == [("spooling", "raised"), ("spool_full", "raised")]
    await machine.spool.remove([number for number, _ in await machine.spool.oldest(100, max_bytes=1 << 30)])
    await machine.pass_by(ingress, 20)
    assert sorted(machine.events()[2:]) == [("spool_full", "cleared", _at(20)), ("spooling", "cleared", _at(20))]


async def test_a_disk_that_fails_costs_the_memory_of_a_restart_only(machine: _Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileRecords, "_store", fail)
    monkeypatch.setattr("ingress.ops_records.open_lock_file", fail)
    ingress = machine.ingress()
    machine.broker.is_up = False
    await machine.pass_by(ingress, 10)
    machine.broker.is_up = True
    await machine.pass_by(ingress, 20)
    assert [event[1] for event in machine.events()] == ["raised", "cleared"]
    assert not (machine.directory / "ops.json").exists()


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"null", b'{"a": {}}'])
async def test_a_damaged_file_counts_as_empty(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "ops.json").write_bytes(text)
    records = FileRecords(tmp_path)
    assert await records.exist()
    assert await records.acquire()
    await records.read()
    assert await records.swap("a", None, b"{}")
    records.close()
    other = FileRecords(tmp_path)
    assert await other.acquire()
    assert (await other.read())["a"] == b"{}"
    other.close()
