"""Publishes with confirms.

Publishers and consumers have separate connections. Under a memory or disk alarm RabbitMQ stops reading connections that
publish, and would not see acks sent on them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiormq.channel import Channel
from pamqp.commands import Basic
from pamqp.common import FieldTable

from shared.amqp.batch_publish import HeaderValue, send
from shared.amqp.channel_requests import broker_request
from shared.amqp.connection import BACKOFF_S, BrokerAddress, BrokerConnection
from shared.amqp.connection_errors import LOST, is_cancelled, is_lost
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)
_CONFIRMS = Outage(log, "publish_retried", "publish_confirmed")

_PUBLISHES_IN_FLIGHT = 200


@dataclass(frozen=True, slots=True)
class Message:
    """A persistent message. Two messages in flight on one channel must not share a `message_id` (see `Publisher`).

    `expires_ms` is the longest time in its queue; a shorter limit of the queue applies first.
    """

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    content_type: str = "application/json"
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    expires_ms: int | None = None

    @property
    def header_table(self) -> FieldTable | None:
        return {**self.headers} or None


class Publisher(BrokerConnection):
    """Publishes with mandatory routing, publisher confirms and a timeout."""

    def __init__(self, address: BrokerAddress, *, timeout_s: float, retries_conflicts: bool = False) -> None:
        super().__init__(address, "publisher", retries_conflicts=retries_conflicts)
        self._timeout_s = timeout_s
        self._channel: Channel | None = None

    async def _on_open(self, channel: Channel) -> None:
        self._channel = channel

    def _on_close(self) -> None:
        self._channel = None

    async def publish(self, *messages: Message) -> None:
        """Publish; returns once RabbitMQ has confirmed the messages in every queue they were routed to.

        Raises:
            BrokerUnavailableError: not connected, refused, unroutable, or not confirmed in time. Some messages may have arrived.
        """
        for _, error in await self._publish(messages):
            raise error

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        """Publish and retry without limit, so that an outage delays messages and never loses them."""
        waiting, task = list(messages), object()
        try:
            for attempt in itertools.count():
                unconfirmed: list[Message] = []
                for first in range(0, len(waiting), _PUBLISHES_IN_FLIGHT):
                    await self.wait_until_up()
                    failures = await self._publish(waiting[first : first + _PUBLISHES_IN_FLIGHT])
                    unconfirmed += [message for message, _ in failures]
                    for message, error in failures[:1]:
                        _CONFIRMS.failed(str(error), task=task, messages=len(failures), first=message.message_id)
                if not unconfirmed:
                    _CONFIRMS.succeeded(task=task)
                    return
                waiting = unconfirmed
                await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
        finally:
            _CONFIRMS.gave_up(task=task)

    async def count_consumers(self, queue: str) -> int:
        """Count the consumers of a queue as its leader knows them.

        A cancelled consumer counts until it has no unsettled message. The count is also 0 if the leader does not answer in time.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        with broker_request(f"Cannot count the consumers of {queue}"):
            declared = await channel.queue_declare(queue, passive=True, timeout=self._timeout_s)
        return declared.consumer_count or 0

    async def _publish(self, messages: Sequence[Message]) -> list[tuple[Message, BrokerUnavailableError]]:
        """Publish messages in one write; returns those that were not confirmed, with the reason.

        After a timeout the connection is recycled. The library assigns returns to publishes by message id, so the same id must
        never be in flight twice on one channel.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            return [(message, BrokerUnavailableError("RabbitMQ is not connected")) for message in messages]
        confirmations: Sequence[asyncio.Future[object]] = ()
        try:
            async with asyncio.timeout(self._timeout_s):
                confirmations = await send(channel, messages)
                await asyncio.wait(confirmations)
        except LOST as error:  # includes the timeout
            self.recycle()
            reason = f"RabbitMQ did not confirm within {self._timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
            return _unconfirmed(messages, confirmations, BrokerUnavailableError(reason))
        except BaseException as error:
            self.recycle()  # interrupted between counting and writing, the channel's count of delivery tags may be wrong
            if is_lost(error) or (isinstance(error, asyncio.CancelledError) and not is_cancelled()):
                return _unconfirmed(messages, confirmations, BrokerUnavailableError("the connection to RabbitMQ was lost"))
            raise
        outcomes = zip(messages, map(_failure, confirmations), strict=True)
        return [(message, failure) for message, failure in outcomes if failure]


def _unconfirmed(
    messages: Sequence[Message], confirmations: Sequence[asyncio.Future[object]], error: BrokerUnavailableError
) -> list[tuple[Message, BrokerUnavailableError]]:
    """Return only the unconfirmed messages: if all were sent again, a slow broker might never confirm the whole batch."""
    confirmed = [done.done() and _failure(done) is None for done in confirmations] or [False] * len(messages)
    return [(message, error) for message, is_confirmed in zip(messages, confirmed, strict=True) if not is_confirmed]


def _failure(confirmation: asyncio.Future[object]) -> BrokerUnavailableError | None:
    if confirmation.cancelled():
        return BrokerUnavailableError("the connection to RabbitMQ was lost")
    error = confirmation.exception()
    if error is not None:
        return BrokerUnavailableError(f"RabbitMQ refused a message: {type(error).__name__}")
    if not isinstance(confirmation.result(), Basic.Ack):
        return BrokerUnavailableError(f"RabbitMQ answered a publish with {type(confirmation.result()).__name__}")
    return None
