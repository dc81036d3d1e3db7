"""One connection to RabbitMQ, with every wait limited. Reconnecting is the caller's part."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import cast

import aio_pika
from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity
from yarl import URL

from callfold_client import lenient_decoding
from callfold_client.errors import CallfoldClientError, RefusedError, SubscriptionError, TransportLostError
from callfold_client.hosts import Hosts, location
from callfold_client.lost_connections import LOST, is_cancelled, is_lost, refusal

CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 10
_CLOSE_TIMEOUT_S = 2
_BACKOFF_S = (0.1, 0.5, 1, 2, 5, 10)
_SHOWN_CHARACTERS = 200
_CREDENTIALS = re.compile(r"//[^@/\s]*@")

log = logging.getLogger("callfold_client")


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[aio_pika.Connection]:
    """Open a connection and close it in any case: a connection that is only dropped closes itself in an arbitrary thread."""
    lenient_decoding.install()
    connection = aio_pika.Connection(URL(url), client_properties={"connection_name": name})
    try:
        try:
            await connection.connect(timeout=CONNECT_TIMEOUT_S)
        except StopAsyncIteration as error:  # the server closed before the first frame
            raise ConnectionError("the server closed the connection before it answered") from error
        yield connection
    finally:
        try:
            with suppress(*LOST):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await connection.close()
        finally:
            await connection.close()  # if that failed, the second close returns at once: it writes nothing


async def open_channel(connection: aio_pika.Connection, *, confirms: bool = False) -> Channel:
    """Open a channel. With `confirms`, an unroutable publish fails: by default the library confirms it."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize()
        return cast("Channel", await channel.get_underlay_channel())


@contextmanager
def requests(failure: str) -> Iterator[None]:
    """Guard requests to RabbitMQ; `failure` begins the text of the error.

    On Python 3.11 the library swallows a cancellation that comes with the answer, and it raises CancelledError by itself.

    Raises:
        SubscriptionError: RabbitMQ refuses this, now and later.
        TransportLostError: the connection was lost, or RabbitMQ did not answer in time.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task else 0
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        is_ours = task is not None and task.cancelling() > cancellations
        if isinstance(error, CallfoldClientError):
            raise
        if is_lost(error) and is_ours:
            raise asyncio.CancelledError from error
        if not is_lost(error) and (is_cancelled() or not isinstance(error, asyncio.CancelledError)):
            raise
        raise _translated(failure, error) from None  # the library's error may show the URL
    if task is not None and task.cancelling() > cancellations:
        raise asyncio.CancelledError


def _translated(failure: str, error: BaseException) -> CallfoldClientError:
    refused = refusal(error)
    if refused is not None:
        return RefusedError(f"{failure}: RabbitMQ {refused}.")
    if isinstance(error, ChannelAccessRefused):
        return RefusedError(f"{failure}: {error}.")
    if isinstance(error, ChannelNotFoundEntity):
        return SubscriptionError(f"{failure}: {error}.")
    detail = _CREDENTIALS.sub("//", str(error))[:_SHOWN_CHARACTERS].rstrip(".")
    reason = "RabbitMQ did not answer in time" if isinstance(error, TimeoutError) else detail or type(error).__name__
    return TransportLostError(f"{failure}: {reason}.")


class Attempts:
    """Takes the addresses in turn, in a random order, with growing pauses between attempts."""

    def __init__(self, hosts: Hosts) -> None:
        self._urls = itertools.cycle(random.sample([*hosts], len(hosts)))
        self._failures = 0

    def next(self) -> str:
        url: str = next(self._urls)
        return url

    def succeeded(self) -> None:
        self._failures = 0

    def pause_s(self) -> float:
        """Return how long to wait before the next attempt."""
        pause_s = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
        self._failures += 1
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads reconnects, no secret

    def log_lost(self, url: str, error: CallfoldClientError) -> None:
        """Log a lost connection; the first loss is no warning, because a restart of a node is usual."""
        log.log(logging.WARNING if self._failures else logging.INFO, "%s Host: %s.", error, location(url))
