"""What `/readyz` of ingress says of RabbitMQ: callbacks that are spooled are a handicap, and ingress stays ready."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from ingress.fold_depth import FoldDepth
from ingress.probes import Probes
from ingress.publish_or_spool import DurableWriter
from ingress.spool import Spool
from shared.amqp.echo import EchoQueue
from shared.amqp.publisher import Message, Publisher
from shared.errors import BrokerUnavailableError
from shared.runtime.health import Handicap

GONE = "RabbitMQ is not connected, so callbacks are spooled"
SILENT = "RabbitMQ did not confirm the last message, so callbacks are spooled"
BLOCKED = "an alarm blocks publishers"


class _Broker:
    """RabbitMQ that answers, hangs, is away or is blocked."""

    def __init__(self) -> None:
        self.is_up = True
        self.is_blocked = False
        self.is_silent = False

    def obstacles(self) -> list[str]:
        return [BLOCKED] if self.is_blocked else []

    async def publish(self, _: Message) -> None:
        if self.is_silent:
            raise BrokerUnavailableError("RabbitMQ did not confirm within 3 s")


async def test_callbacks_that_are_spooled_are_named_as_a_handicap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.publish_or_spool._FIRST_CONNECT_S", 0.0)
    monkeypatch.setattr("ingress.publish_or_spool._HOLD_OFF_S", 0.0)
    broker = _Broker()
    publisher = cast("Publisher", broker)
    probes = Probes(cast("EchoQueue", SimpleNamespace(name=None)))
    async with Spool(tmp_path, max_bytes=1 << 24) as spool:
        writer = DurableWriter(publisher, spool, FoldDepth(publisher, 1 << 30), probes)

        async def handicaps() -> list[str]:
            problems = await writer.problems()
            assert all(isinstance(problem, Handicap) for problem in problems), "ready nevertheless"
            return problems

        await writer.write([b"{}"])
        assert await handicaps() == []
        broker.is_silent = True  # as when it is frozen: the publish fails, and then the connection
        await writer.write([b"{}"])
        assert await handicaps() == [SILENT]
        broker.is_up = False
        assert await handicaps() == [GONE]
        broker.is_up, broker.is_silent = True, False
        await writer.write([b"{}"])
        assert await handicaps() == []
        broker.is_blocked = True
        assert await handicaps() == [BLOCKED]
