"""A follower of a stream: when the stream that it reads is another one than before."""

from __future__ import annotations

import pytest

from shared.amqp.connection import BrokerAddress
from shared.amqp.topology import Topology
from shared.webhooks import stream_follower
from shared.webhooks.stream_follower import StreamFollower


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [([7], []), ([9], []), ([5, 7], []), ([None, 8], []), ([5, 5], ["reset"]), ([None, None], ["reset"])],
)
async def test_only_a_stream_that_stays_shorter_than_what_was_read_was_replaced(
    ends: list[int | None], wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[str] = []
    follower = StreamFollower(
        BrokerAddress(("amqp://127.0.0.1:1",), Topology(), "test"), "x", lambda _: None, lambda: resets.append("reset")
    )
    follower._last = 7

    async def end() -> int | None:
        return ends.pop(0)

    monkeypatch.setattr(stream_follower, "_LAG_S", 0.0)
    monkeypatch.setattr(follower.consumer, "latest_stream_end", end)
    await follower._end()
    assert (resets, ends) == (wanted, [])
