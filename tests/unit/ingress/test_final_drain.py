"""An ingress that stops drains its spool first, and says what is left. So does the command that takes over a spool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from ingress import spool_salvage
from ingress.final_drain import drain_before_exit
from ingress.spool import SPOOL_FILE
from ingress.spool_contents import read_contents
from ingress.spool_salvage import salvage
from ingress.spool_use import SpoolUse
from ingress.spools import Spools
from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import Topology
from shared.runtime.process import StopRequest, background
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import eventually
from tests.unit.ingress.test_spool_contents import MIB, fill, message
from tests.unit.ingress.test_waiting import _Broker

DAMAGED = ".damaged-20261123T074400.000000Z"


class _Switched(_Broker):
    """Is connected once the test says so, and answers every message at once."""

    address = BrokerAddress(("amqp://guest:guest@127.0.0.1:1/",), Topology(), "test")
    is_blocked = False

    def __init__(self) -> None:
        super().__init__()
        self.connected = asyncio.Event()

    async def wait_until_up(self) -> None:
        await self.connected.wait()

    async def wait_until_unblocked(self) -> None:
        return

    async def publish(self, message: Message) -> None:
        await super().publish(message)
        self.fold_all()


@asynccontextmanager
async def _spools(directory: Path, broker: _Switched) -> AsyncIterator[Spools]:
    async with Spools(directory, cast("Publisher", broker), max_bytes=64 * MIB) as spools:
        spools.waiting._probes = broker.probes
        async with background(spools.drain.run(), spools.waiting.run()):
            await asyncio.sleep(0)
            yield spools


def _left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if "lock" not in path.name)


async def test_both_kinds_of_files_are_drained_and_deleted_once_rabbitmq_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(tmp_path, [message(1), message(2)])
    await fill(tmp_path, [message(3)], file_name="waiting-acme.sqlite")
    broker, stop = _Switched(), StopRequest()
    async with _spools(tmp_path, broker) as spools:
        looks: list[bool] = []
        is_drained = spools.is_drained

        async def look() -> bool:
            looks.append(await is_drained())
            return looks[-1]

        async def has_looked_again() -> bool:
            return len(looks) > 2

        monkeypatch.setattr(spools, "is_drained", look)
        task = asyncio.create_task(drain_before_exit(spools, stop, LIMIT_S))
        await eventually(has_looked_again)
        assert not task.done()
        assert not any(looks)
        broker.connected.set()
        assert await task == ""
    assert len(broker.events()) == 3
    assert _left(tmp_path) == []


@pytest.mark.parametrize("ended_by", ["limit", "second signal"])
async def test_what_is_left_is_said_with_the_command_that_takes_it_over(tmp_path: Path, ended_by: str) -> None:
    await fill(tmp_path, [message(1), message(2)])
    stop = StopRequest()
    async with _spools(tmp_path, _Switched()) as spools:
        task = asyncio.create_task(drain_before_exit(spools, stop, 0.2 if ended_by == "limit" else LIMIT_S))
        if ended_by != "limit":
            stop.urgent.set()
        left = await task
    assert left.startswith("2 callbacks (")
    assert f"`callfold spool drain --dir {tmp_path}`" in left
    assert read_contents(tmp_path).callbacks == 2


async def test_a_spool_that_another_process_uses_is_left_to_it_at_once(tmp_path: Path) -> None:
    await fill(tmp_path, [message(1)])
    other = SpoolUse(tmp_path)
    async with _spools(tmp_path, _Switched()) as spools:
        assert await drain_before_exit(spools, StopRequest(), 5) == ""
    other.close()
    assert read_contents(tmp_path).callbacks == 1


async def test_an_empty_file_is_not_deleted_while_another_process_uses_it(tmp_path: Path) -> None:
    broker = _Switched()
    broker.connected.set()
    other = SpoolUse(tmp_path)
    async with _spools(tmp_path, broker) as spools:
        assert await drain_before_exit(spools, StopRequest(), LIMIT_S) == ""
    other.close()
    assert SPOOL_FILE in _left(tmp_path)


async def test_a_file_that_was_set_aside_is_reported_although_the_spool_is_empty(tmp_path: Path) -> None:
    await fill(tmp_path, [message(1)], file_name=SPOOL_FILE + DAMAGED)
    broker = _Switched()
    broker.connected.set()
    async with _spools(tmp_path, broker) as spools:
        assert (await drain_before_exit(spools, StopRequest(), LIMIT_S)).startswith("1 callbacks (")
    assert read_contents(tmp_path).callbacks == 1


async def test_rows_of_files_that_were_set_aside_are_published_and_what_is_unreadable_is_kept(tmp_path: Path) -> None:
    await fill(tmp_path, [message(1), message(2)], file_name=SPOOL_FILE + DAMAGED)
    await fill(tmp_path, [message(3)], file_name=f"waiting-acme.sqlite{DAMAGED}")
    (tmp_path / f"waiting-other.sqlite{DAMAGED}").write_bytes(b"no database" * 1000)
    broker = _Switched()
    broker.connected.set()
    async with _spools(tmp_path, broker) as spools:
        salvaged = {file.file.name: (file.messages, file.kept is not None) for file in await salvage(spools)}
        assert await drain_before_exit(spools, StopRequest(), LIMIT_S) == ""
    assert salvaged == {
        SPOOL_FILE + DAMAGED: (2, False),
        f"waiting-acme.sqlite{DAMAGED}": (1, False),
        f"waiting-other.sqlite{DAMAGED}": (0, True),
    }
    assert len(broker.events()) == 3
    assert _left(tmp_path) == ["waiting-other.sqlite.salvaged-20261123T074400.000000Z"]


async def test_a_file_whose_rows_another_process_moved_first_is_not_reported_as_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_salvage, "set_aside_files", lambda directory: [directory / f"{SPOOL_FILE}{DAMAGED}"])
    async with _spools(tmp_path, _Switched()) as spools:
        (salvaged,) = await salvage(spools)
    assert (salvaged.messages, salvaged.kept) == (0, None)
