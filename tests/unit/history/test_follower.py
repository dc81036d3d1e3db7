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


def test_events_that_the_stream_no_longer_had_are_told(tmp_path: Path) -> None:
    history = History(f"sqlite:///{tmp_path / 'history.sqlite'}")
    following = follower.Follower(CALLS_JOURNAL, history, BrokerAddress((), topology(RETRY_S), "tests"))
    following._position.advance(5, "of the event that is gone")
    assert following._stream_arguments() == {"x-stream-offset": 5}
    first = Delivery(b"{}", {"x-stream-offset": 9}, "", 1, cast("Any", None))
    with structlog.testing.capture_logs() as lines:
        assert following._is_continued(first)
        assert following._is_continued(first)
    assert [(line["event"], line["events"]) for line in lines] == [("history_gap", 3)]
