"""The age of the first dead letter: a header that another program wrote is no age, and ends no console."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from console.live.installation import Installation
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import CALLBACKS_DEAD


@pytest.mark.parametrize(
    ("first_seen", "since_s"),
    [("1970-01-01T00:01:40.000000Z", 100), ("yesterday", None), ("2026-11-30T12:00:00", None), ("2026-11-30", None), ("", None)],
)
async def test_a_header_that_is_no_time_is_no_age(first_seen: str, since_s: float | None) -> None:
    async def get() -> object:
        return SimpleNamespace(headers={"message_id": "one", "first_seen": first_seen})

    async def lock(_: str) -> bool:
        return True

    reader = SimpleNamespace(forget_lost_locks=lambda: None, try_lock=lock, unlock=lock, get=get)
    installation = Installation.__new__(Installation)
    installation._dead_letters = {CALLBACKS_DEAD: cast("QueueReader", reader)}
    assert await installation._look(CALLBACKS_DEAD) == since_s
