"""What a follower reports of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import structlog

from console.history import follower
from console.history.store import History
from shared.amqp.connection import BrokerAddress
from shared.amqp.delivery import Delivery
from shared.amqp.topology import CALLS_JOURNAL, topology
from tests.helpers.servers import RETRY_S


async def test_events_that_the_stream_no_longer_had_are_told(tmp_path: Path) -> None:
    history = History(f"sqlite:///{tmp_path / 'history.sqlite'}")
    following = follower.Follower(CALLS_JOURNAL, history, BrokerAddress((), topology(RETRY_S), "tests"))
    following._cursor.resume_after(5, "of the event that is gone")
    assert following._cursor.arguments() == {"x-stream-offset": 5}
    for offset in (9, 10):
        following.consumer._waiting.put_nowait(Delivery(b"{}", {"x-stream-offset": offset}, "", 1, cast("Any", None)))
        with structlog.testing.capture_logs() as lines:
            new, _ = await following._next_deliveries()
        assert [delivery.offset for delivery in new] == [offset]
        assert [(line["event"], line["events"]) for line in lines] == [("history_gap", 3)][: offset == 9]
