"""The one door to RabbitMQ: confirmed publishes, and deliveries that are acked last.

Publishing and consuming have a connection each, because a broker under a memory or disk alarm stops reading the
connections that publish, acks included.
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
from shared.amqp.connection import (
    BACKOFF_S,
    LOST,
    BrokerAddress,
    BrokerConnection,
    is_cancelled,
    is_lost,
    requesting,
)
from shared.errors import BrokerUnavailableError
from shared.log import get_logger

log = get_logger(__name__)

_PUBLISHES_IN_FLIGHT = 200


@dataclass(frozen=True, slots=True)
class Message:
    """A persistent message. In flight on one channel no two may share a `message_id` (see Publisher).

    `expires_ms`: how long it may wait in its queue at most, where that is less than the queue's own limit.
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

    def __init__(self, address: BrokerAddress, *, timeout_s: float, outlasts_conflicts: bool = False) -> None:
        super().__init__(address, "publisher", outlasts_conflicts=outlasts_conflicts)
        self._timeout_s = timeout_s
        self._channel: Channel | None = None

    async def _open(self, channel: Channel) -> None:
        self._channel = channel

    def _closed(self) -> None:
        self._channel = None

    async def publish(self, *messages: Message) -> None:
        """Return once the broker has confirmed the messages in every queue they were routed to.

        Raises:
            BrokerUnavailableError: not connected, refused, unroutable, or not confirmed in time; any may have arrived.
        """
        for _, error in await self._publish(messages):
            raise error

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        """Publish, and try again for as long as it takes: an outage is waited out, never turned into a loss."""
        waiting = list(messages)
        for attempt in itertools.count():
            failed: list[Message] = []
            for first in range(0, len(waiting), _PUBLISHES_IN_FLIGHT):
                await self.wait_up()
                failures = await self._publish(waiting[first : first + _PUBLISHES_IN_FLIGHT])
                failed += [message for message, _ in failures]
                for message, error in failures[:1]:
                    log.warning("publish_retry", messages=len(failures), first=message.message_id, detail=str(error))
            if not failed:
                return
            waiting = failed
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])

    async def count_consumers(self, queue: str) -> int:
        """Count the consumers of a queue, as its leader knows them; one that was cancelled counts until all it has is settled.

        It is 0 as well if the leader does not answer in time.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        with requesting(f"{queue} cannot be counted"):
            declared = await channel.queue_declare(queue, passive=True, timeout=self._timeout_s)
        return declared.consumer_count or 0

    async def _publish(self, messages: Sequence[Message]) -> list[tuple[Message, BrokerUnavailableError]]:
        """Publish some messages in one write; returns those that were not confirmed, with the reason.

        When one timed out the channel is given up: the library ties returns to publishes by message id, so the same id
        must never be in flight twice on one channel.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            return [(message, BrokerUnavailableError("RabbitMQ is not connected")) for message in messages]
        confirmations: Sequence[asyncio.Future[object]] = ()
        try:
            async with asyncio.timeout(self._timeout_s):
                confirmations = await send(channel, messages)
                await asyncio.wait(confirmations)
        except LOST as error:  # a timeout among them
            self.recycle()
            why = f"RabbitMQ did not confirm within {self._timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
            return _unconfirmed(messages, confirmations, BrokerUnavailableError(why))
        except BaseException as error:
            self.recycle()  # cut off between counting and writing, the channel's delivery tags may be off
            if is_lost(error) or (isinstance(error, asyncio.CancelledError) and not is_cancelled()):
                return _unconfirmed(messages, confirmations, BrokerUnavailableError("the connection to RabbitMQ was lost"))
            raise
        failures = zip(messages, map(_refusal, confirmations), strict=True)
        return [(message, refusal) for message, refusal in failures if refusal]


def _unconfirmed(
    messages: Sequence[Message], confirmations: Sequence[asyncio.Future[object]], error: BrokerUnavailableError
) -> list[tuple[Message, BrokerUnavailableError]]:
    """Leave out what was confirmed before the rest was cut off: a slow broker would else be sent all of it again, without end."""
    confirmed = [done.done() and _refusal(done) is None for done in confirmations] or [False] * len(messages)
    return [(message, error) for message, is_confirmed in zip(messages, confirmed, strict=True) if not is_confirmed]


def _refusal(confirmation: asyncio.Future[object]) -> BrokerUnavailableError | None:
    if confirmation.cancelled():
        return BrokerUnavailableError("the connection to RabbitMQ was lost")
    error = confirmation.exception()
    if error is not None:
        return BrokerUnavailableError(f"RabbitMQ refused a message: {type(error).__name__}")
    if not isinstance(confirmation.result(), Basic.Ack):
        return BrokerUnavailableError(f"RabbitMQ answered a publish with {type(confirmation.result()).__name__}")
    return None
