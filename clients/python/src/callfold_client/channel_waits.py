"""Waits that end when a channel closes. The AMQP library alone would wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError


async def write_while_open(channel: Channel, writing: Coroutine[object, object, object]) -> None:
    """Await a write to a channel for as long as the channel is open.

    The library writes through a queue of ten frames. After the connection is lost the queue is never emptied, and a write to a
    full queue would wait for ever.

    Raises:
        ChannelInvalidStateError: the channel closed first.
    """
    written = asyncio.ensure_future(writing)
    try:
        await wait_for_any(channel, written)
        if not written.done():
            raise ChannelInvalidStateError("the channel closed before this was written")
        written.result()
    finally:
        written.cancel()


async def wait_while_open(channel: Channel, event: asyncio.Event, *, timeout_s: float | None = None) -> None:
    """Wait for an event, for as long as the channel is open and at most `timeout_s`."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await wait_for_any(channel, waiting, timeout_s=timeout_s)
    finally:
        waiting.cancel()


async def wait_for_any(channel: Channel, *work: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    """Wait until one of several futures is done or the channel closes, at most `timeout_s`."""
    closing = channel.closing
    try:
        await asyncio.wait((*work, closing), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        closing.cancel()  # cancels this observer only; the channel would keep every one
