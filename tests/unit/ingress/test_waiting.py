"""Callbacks that wait, in real files: who drains them, in what turns, and what is reported to the workers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import cast

import pytest

from ingress import waiting as waiting_module
from ingress.fold_depth import FoldDepth
from ingress.probes import Probes
from ingress.spool_file import SpoolFile
from ingress.waiting import Waiting
from shared.amqp.echo import EchoQueue, echo
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS, CALLBACKS_DEAD, ECHO_ID, SPOOL, SPOOL_OLDEST
from shared.clock import utc_now
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, decode, encode
from shared.errors import BrokerUnavailableError
from shared.runtime.process import background
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import eventually

MIB = 1 << 20
ACME, OTHER = SourceName("acme"), SourceName("other")


class _Broker:
    """Confirms everything; echoes come when the test says so."""

    name = "callbacks.echo.test"

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.is_refusing = False
        self.is_up = True
        self.probes = Probes(cast("EchoQueue", self))

    async def wait_until_up(self) -> None:
        return

    async def reopen_gate(self) -> bool:
        return True

    async def publish(self, message: Message) -> None:
        if self.is_refusing:
            raise BrokerUnavailableError("refused")
        self.published.append(message)

    def fold_all(self) -> None:
        """Answer everything that was published."""
        for message in self.published:
            if answer := echo(message.headers):
                self.probes._lag.answer(cast("int", answer.headers[ECHO_ID]), asyncio.get_running_loop().time())

    def events(self) -> list[str]:
        return [
            event.query
            for message in self.published
            if message.exchange == CALLBACKS
            for event in decode(message.body)
            if isinstance(event, CallbackEvent)
        ]


@asynccontextmanager
async def _waiting(directory: Path, broker: _Broker, *, is_running: bool = True) -> AsyncIterator[Waiting]:
    publisher = cast("Publisher", broker)
    async with Waiting(directory, publisher, FoldDepth(publisher, 1 << 30), broker.probes, max_bytes=16 * MIB) as waiting:
        if not is_running:
            yield waiting
            return
        async with background(waiting.run()):
            await asyncio.sleep(0)  # the lanes' tasks belong to it
            yield waiting


def _event(source: SourceName, number: int) -> bytes:
    return encode(CallbackEvent(source, utc_now(), f"{source}-{number}"))


async def _add(waiting: Waiting, source: SourceName, count: int, first: int = 0) -> None:
    await asyncio.gather(*(waiting.add(source, _event(source, number)) for number in range(first, first + count)))


async def test_the_first_message_goes_at_once_and_reports_the_others_which_wait_for_echoes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_TURN_S", "LAG_S"):  # on a slow machine, a turn could end without an echo, or be late
        monkeypatch.setattr(waiting_module, limit, LIMIT_S)
    broker = _Broker()
    async with _waiting(tmp_path, broker) as waiting:
        await _add(waiting, ACME, 2000)

        async def in_flight() -> bool:
            return len(broker.published) == 3  # the first, and two turns

        await eventually(in_flight)
        assert waiting.waiting_bytes[ACME] > 0
        first = broker.published[0]
        assert str(first.headers[SPOOL]).partition("/")[2] == ACME
        assert first.headers[SPOOL_OLDEST]
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(broker.published) == 3

        async def is_drained() -> bool:
            broker.fold_all()
            return not waiting.waiting_bytes

        await eventually(is_drained)
    assert sorted(broker.events()) == sorted(f"acme-{number}" for number in range(2000))
    assert broker.published[-1].headers[SPOOL_OLDEST] == "", "nothing holds the timers of the source any more"


async def test_what_a_process_left_is_drained_by_another(tmp_path: Path) -> None:
    broker = _Broker()
    broker.is_refusing = True
    async with _waiting(tmp_path, broker) as waiting:
        await _add(waiting, ACME, 10)
    broker.is_refusing = False
    async with _waiting(tmp_path, broker) as waiting:

        async def is_drained() -> bool:
            broker.fold_all()
            return len(broker.events()) == 10 and not waiting.waiting_bytes

        await eventually(is_drained)


async def test_the_lanes_are_drained_in_turn(tmp_path: Path) -> None:
    """A source with little waiting is not drained after one with much."""
    broker = _Broker()
    async with _waiting(tmp_path, broker) as waiting:
        broker.is_refusing = True
        await asyncio.gather(_add(waiting, ACME, 8000), _add(waiting, OTHER, 300))
        broker.is_refusing = False

        async def other_is_drained() -> bool:
            broker.fold_all()
            return sum(event.startswith("other") for event in broker.events()) == 300

        await eventually(other_is_drained)
        assert sum(event.startswith("acme") for event in broker.events()) < 8000


async def test_what_comes_while_published_callbacks_cannot_be_deleted_is_published_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SpoolFile.run

    def without_deletions(
        file: SpoolFile, work: Callable[[sqlite3.Connection], object], *, generation: int | None = None
    ) -> object:
        if work.__name__ == "delete":
            raise sqlite3.OperationalError("disk I/O error")
        return run(file, work, generation=generation)

    monkeypatch.setattr(SpoolFile, "run", without_deletions)
    broker = _Broker()
    async with _waiting(tmp_path, broker) as waiting:
        for number in range(3):
            await _add(waiting, ACME, 1, first=number)

            async def is_published(count: int = number + 1) -> bool:
                broker.fold_all()
                return len(broker.events()) == count

            await eventually(is_published)
    assert sorted(broker.events()) == [f"acme-{number}" for number in range(3)]


async def test_a_damaged_row_becomes_a_dead_letter(tmp_path: Path) -> None:
    broker = _Broker()
    broker.is_refusing = True
    async with _waiting(tmp_path, broker) as waiting:
        await _add(waiting, ACME, 1)
    with closing(sqlite3.connect(tmp_path / "waiting-acme.sqlite")) as file, file:
        file.execute("update messages set body = x'00'")
    broker.is_refusing = False
    async with _waiting(tmp_path, broker):

        async def published() -> list[str]:
            return [message.routing_key for message in broker.published]

        assert await eventually(published) == [CALLBACKS_DEAD]


@pytest.mark.parametrize(
    "headers", [{}, {"echo_to": "callbacks.fold", "echo_id": 1}, {"echo_to": "callbacks.echo.1", "echo_id": "1"}]
)
def test_only_a_probe_is_echoed_and_only_to_a_queue_for_echoes(headers: dict[str, object]) -> None:
    assert echo(headers) is None
