"""A reader of `state.journal` that is slow keeps its position. Only one that gets nothing begins again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Publisher
from shared.amqp.topology import Topology
from shared.errors import BrokerUnavailableError
from shared.state.position_records import encode_sync
from shared.state.positions import Positions
from worker.folding import state_journal
from worker.folding.state_journal import StateJournal


async def _publish(_: object) -> None:
    """Confirm a message that is not delivered in time."""


def _delivery(offset: int) -> Delivery:
    body = encode_sync("another worker", "its sync", 0)
    return cast("Delivery", SimpleNamespace(body=body, offset=offset, routing_key="state.journal"))


@pytest.mark.parametrize(("delivered", "read_to", "restarts"), [([], -1, 1), ([41], 41, 0), ([0], 40, 0)])
async def test_a_sync_that_fails_begins_the_stream_again_only_if_nothing_was_delivered(
    monkeypatch: pytest.MonkeyPatch, delivered: list[int], read_to: int, restarts: int
) -> None:
    monkeypatch.setattr(state_journal, "_SYNC_S", 0.05)
    publisher = cast("Publisher", SimpleNamespace(publish=_publish))
    address = BrokerAddress(("amqp://127.0.0.1:1/",), Topology(), "tests")
    journal = StateJournal(address, publisher, Positions("worker"), lambda: datetime.now(UTC))
    reasons: list[str] = []
    journal._live = cast("Consumer", SimpleNamespace(recycle=reasons.append))
    journal._take(_delivery(40))
    async with asyncio.TaskGroup() as group:
        failing = group.create_task(_fails(journal))
        await asyncio.sleep(0)
        for offset in delivered:
            journal._take(_delivery(offset))
    assert failing.done()
    assert (journal._read_to, len(reasons)) == (read_to, restarts)


async def _fails(journal: StateJournal) -> None:
    with pytest.raises(BrokerUnavailableError, match="did not deliver within"):
        await journal.sync()
