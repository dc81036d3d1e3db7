from __future__ import annotations

import asyncio
from typing import cast

import pytest
from aiormq.channel import Channel

from shared.amqp.channel_requests import broker_request, wait_while_open
from tests.helpers.pace import LIMIT_S


async def _ends_as_it_is_cancelled(error: Exception | None) -> None:
    """Behave as `asyncio.wait_for` does on Python 3.11 if the answer comes in the same turn as the cancellation."""
    try:
        await asyncio.sleep(LIMIT_S)
    except asyncio.CancelledError:
        if error:
            raise error from None


@pytest.mark.parametrize("error", [None, ConnectionError("reset")])
async def test_a_time_limit_ends_a_request_whose_cancellation_the_library_swallows(error: Exception | None) -> None:
    async def request() -> None:
        async with asyncio.timeout(0.01):
            with broker_request("Cannot lock"):
                await _ends_as_it_is_cancelled(error)

    with pytest.raises(TimeoutError):
        await request()


async def test_a_task_that_is_being_cancelled_can_still_make_requests() -> None:
    made = asyncio.Event()

    async def unlocks_at_its_end() -> None:
        try:
            await asyncio.sleep(LIMIT_S)
        finally:
            with broker_request("Cannot unlock"):
                await asyncio.sleep(0)
                made.set()

    task = asyncio.create_task(unlocks_at_its_end())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=LIMIT_S)
    assert task.cancelled()
    assert made.is_set()


class _Channel:
    """Gives each observer a future of its own, as the library does."""

    def __init__(self) -> None:
        self.observers: list[asyncio.Future[None]] = []

    @property
    def closing(self) -> asyncio.Future[None]:
        self.observers.append(asyncio.get_running_loop().create_future())
        return self.observers[-1]


@pytest.mark.parametrize("end", ["event", "close", "time-out"])
async def test_a_wait_ends_with_the_event_the_channel_or_the_time_and_leaves_no_observer(end: str) -> None:
    channel, event = _Channel(), asyncio.Event()
    waiting = asyncio.create_task(
        wait_while_open(cast("Channel", channel), event, timeout_s=0.01 if end == "time-out" else LIMIT_S)
    )
    while not channel.observers:
        await asyncio.sleep(0)
    if end == "event":
        event.set()
    elif end == "close":
        channel.observers[0].set_result(None)
    async with asyncio.timeout(LIMIT_S / 2):
        await waiting
    assert channel.observers[0].done()
