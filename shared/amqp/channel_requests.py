"""Guards for requests on a channel: a lost connection raises one error, and nothing waits for a channel that is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelInvalidStateError

from shared.amqp.connection_errors import is_cancelled, is_lost
from shared.errors import BrokerAccessError, BrokerUnavailableError


@contextmanager
def broker_request(failure: str) -> Iterator[None]:
    """Guard a request to the broker; `failure` begins the text of the error.

    On Python 3.11 the library swallows a cancellation that comes with the answer. A loop of requests under a time limit would
    then never end, so the cancellation is raised here.

    Raises:
        BrokerAccessError: the user is not permitted to do this.
        BrokerUnavailableError: the connection was lost, or RabbitMQ did not answer in time.
    """
    cancellations = _cancellations()
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        if is_lost(error) and _cancellations() > cancellations:
            raise asyncio.CancelledError from error
        if not is_lost(error) and (is_cancelled() or not isinstance(error, asyncio.CancelledError)):
            raise
        reason = "RabbitMQ did not answer in time" if isinstance(error, TimeoutError) else "the connection to RabbitMQ was lost"
        raised = BrokerAccessError if isinstance(error, ChannelAccessRefused) else BrokerUnavailableError
        raise raised(f"{failure}: {str(error) or reason}") from error
    if _cancellations() > cancellations:
        raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


async def write_while_open(channel: Channel, writing: Coroutine[object, object, object]) -> None:
    """Await a write to a channel for as long as the channel is open.

    The library writes through a queue of ten frames. After the connection is lost the queue is never emptied, and a write to a
    full queue would wait for ever.

    Raises:
        ChannelInvalidStateError: the channel closed first.
    """
    written = asyncio.ensure_future(writing)
    try:
        await _wait_while_open(channel, written)
        if not written.done():
            raise ChannelInvalidStateError("the channel closed before this was written")
        written.result()
    finally:
        written.cancel()


async def wait_while_open(channel: Channel, event: asyncio.Event, *, timeout_s: float | None = None) -> None:
    """Wait for an event, for as long as the channel is open and at most `timeout_s`."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await _wait_while_open(channel, waiting, timeout_s)
    finally:
        waiting.cancel()


async def _wait_while_open(channel: Channel, work: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    closing = channel.closing
    try:
        await asyncio.wait((work, closing), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        closing.cancel()  # cancels this observer only; the channel would keep every one
