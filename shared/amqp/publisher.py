"""Publishes with confirms.

Publishers and consumers have separate connections. Under a memory or disk alarm RabbitMQ stops reading connections that
publish, and would not see acks sent on them.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError, PublishError
from pamqp.commands import Basic
from pamqp.common import FieldTable

from shared import metrics
from shared.amqp.batch_publish import Copy, HeaderValue, Pending, Publishable, is_blocked, send
from shared.amqp.channel_requests import broker_request
from shared.amqp.confirm_order import ConfirmOrder, Publish
from shared.amqp.connection import BACKOFF_S, BrokerAddress, BrokerConnection, GoHome
from shared.amqp.connection_errors import LOST, is_cancelled, is_lost
from shared.amqp.queue_gate import QueueGate
from shared.amqp.topology import CALLBACKS, CALLBACKS_FOLD, MARKER, MARKER_BODY
from shared.errors import BrokerRejectedError, BrokerUnavailableError
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)
_CONFIRMS = Outage(log, "publish_retried", "publish_confirmed")

_PUBLISHES_IN_FLIGHT = 200
# How often a publish that waits looks whether an alarm blocks it.
_LOOK_S = 0.1
# How long a connection that was left waits for its confirms.
_LAST_CONFIRM_S = 60.0
_CONNECTION_LOST = "the connection to RabbitMQ was lost"
_BLOCKED = "an alarm of RabbitMQ (memory or disk) blocks publishers"


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
    """Publishes with mandatory routing, publisher confirms and a timeout.

    Attributes:
        gate: keeps messages away from the exchange `callbacks` while `callbacks.fold` is full.
    """

    def __init__(self, address: BrokerAddress, *, timeout_s: float, retries_conflicts: bool = False) -> None:
        super().__init__(address, "publisher", retries_conflicts=retries_conflicts)
        self._timeout_s = timeout_s
        self.gate = QueueGate(CALLBACKS, CALLBACKS_FOLD)
        self._was_blocked = False
        self._order: tuple[Channel | None, ConfirmOrder] = (None, ConfirmOrder())

    @property
    def is_blocked(self) -> bool:
        """True once RabbitMQ has said that an alarm blocks publishes on this connection."""
        return self._channel is not None and is_blocked(self._channel)

    @property
    def is_usable(self) -> bool:
        return self.is_up and not self.is_blocked

    async def wait_until_unblocked(self) -> None:
        """Wait while an alarm blocks this connection; returns if the connection is lost."""
        while self.is_blocked:  # noqa: ASYNC110 - the library reports only the end of an alarm
            await asyncio.sleep(_LOOK_S)

    def obstacles(self) -> list[str]:
        """Return why RabbitMQ takes no callbacks now although it is connected."""
        return [problem for problem in (_BLOCKED if self.is_blocked else "", self.gate.problem) if problem]

    @property
    def _goes_home(self) -> GoHome:
        return GoHome.MOVE

    def _is_movable(self, channel: Channel) -> bool:
        # A new connection would not know of the alarm, and not show it.
        return not is_blocked(channel)

    async def _leave(self) -> Callable[[], bool]:
        """Wait for confirms that are under way; those of a publish that was given up never come."""
        channel, give_up_at = self._channel, time.monotonic() + _LAST_CONFIRM_S
        return lambda: channel is None or not channel.confirmations or time.monotonic() > give_up_at

    async def _is_working(self, channel: Channel) -> bool:
        self._note_blocked(is_now=is_blocked(channel))
        return await super()._is_working(channel)

    def _note_blocked(self, *, is_now: bool) -> None:
        metrics.BROKER_BLOCKED.set(is_now)
        if is_now and not self._was_blocked:
            log.error("broker_blocked", connection=self._name, detail=_BLOCKED)
        elif self._was_blocked and not is_now:
            log.info("broker_unblocked", connection=self._name)
        self._was_blocked = is_now

    async def publish(self, *messages: Message) -> None:
        """Publish; returns once RabbitMQ has confirmed the messages in every queue they were routed to.

        Raises:
            BrokerUnavailableError: not connected, refused, unroutable, or not confirmed in time. Some messages may have arrived.
        """
        for _, error in await self._publish(messages):
            raise error

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        """Publish and retry without limit, so that an outage delays messages and never loses them."""
        await self._publish_until_confirmed(messages)

    async def copy_until_confirmed(self, copies: Iterable[Copy]) -> None:
        """Publish messages of another broker, as `publish_until_confirmed` does."""
        await self._publish_until_confirmed(copies)

    async def _publish_until_confirmed(self, messages: Iterable[Publishable]) -> None:
        waiting, task = list(messages), object()
        try:
            for attempt in itertools.count():
                waiting = await self.publish_once(waiting, task=task)
                if not waiting:
                    return
                await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
        finally:
            _CONFIRMS.gave_up(task=task)

    async def publish_once(
        self, messages: Sequence[Publishable], *, task: object, may_send: Callable[[], bool] = lambda: True
    ) -> list[Publishable]:
        """Publish once RabbitMQ takes messages; returns those that were not confirmed.

        `may_send` is asked after each wait: messages that may no longer be sent are returned too. `task` names the caller to the
        log of failures.
        """
        unconfirmed: list[Publishable] = []
        for first in range(0, len(messages), _PUBLISHES_IN_FLIGHT):
            await self.wait_until_up()
            await self.wait_until_unblocked()
            batch = messages[first : first + _PUBLISHES_IN_FLIGHT]
            if not may_send():
                unconfirmed += batch
                continue
            failures = await self._publish(batch, outlasts_alarm=True)
            unconfirmed += [message for message, _ in failures]
            for message, error in failures[:1]:
                _CONFIRMS.failed(str(error), task=task, messages=len(failures), first=message.message_id)
        if not unconfirmed:
            _CONFIRMS.succeeded(task=task)
        return unconfirmed

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

    async def count_messages(self, queue: str) -> int:
        """Count the ready messages of a queue, on a separate channel: RabbitMQ may answer late. The count is some seconds old.

        Raises:
            BrokerUnavailableError: not connected, no such queue, or no answer.
        """
        if self._channel is None or not self.is_up:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        with broker_request(f"Cannot count the messages of {queue}"):
            async with asyncio.timeout(self._timeout_s):
                channel = await self._channel.connection.channel(publisher_confirms=False)
                try:
                    declared = await channel.queue_declare(queue, passive=True)
                finally:
                    await channel.close()
        return declared.message_count or 0

    async def _publish(
        self, messages: Sequence[Publishable], *, outlasts_alarm: bool = False
    ) -> list[tuple[Publishable, BrokerUnavailableError]]:
        """Publish messages unless the gate is closed for one; returns those that were not confirmed, with the reason."""
        gate = self.gate
        if gate.is_closed and any(message.exchange == gate.exchange for message in messages) and not await self.reopen_gate():
            return [(message, BrokerUnavailableError(gate.problem)) for message in messages]
        failures = await self._send(messages, outlasts_alarm=outlasts_alarm)
        if any(isinstance(error, BrokerRejectedError) and message.exchange == gate.exchange for message, error in failures):
            gate.reject()
        return failures

    async def reopen_gate(self) -> bool:
        """Return whether the gate is open; if it is time for that, probe the queue with an empty message to it alone."""
        if not self.gate.is_closed:
            return True
        if self.is_blocked or not self.gate.take_probe():
            return False
        # A marker of round 0, which workers pass without effect.
        probe = Message("", self.gate.queue, MARKER_BODY, uuid.uuid4().hex, headers={MARKER: "0"})
        if await self._send([probe]):
            self.gate.reject()
            return False
        self.gate.accept()
        return True

    async def _send(
        self, messages: Sequence[Publishable], *, outlasts_alarm: bool = False
    ) -> list[tuple[Publishable, BrokerUnavailableError]]:
        """Publish messages in one write; returns those that were not confirmed, with the reason.

        After a timeout the connection is recycled. The library assigns returns to publishes by message id, so the same id must
        never be in flight twice on one channel. Under an alarm the connection is kept, since a new one would not know of it.
        The messages may still arrive then, so with `outlasts_alarm` their confirms are awaited however long the alarm lasts.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            return [(message, BrokerUnavailableError("RabbitMQ is not connected")) for message in messages]
        if is_blocked(channel) and not outlasts_alarm:
            return [(message, BrokerUnavailableError(_BLOCKED)) for message in messages]
        if self._order[0] is not channel:
            self._order = (channel, ConfirmOrder())
        pending: Pending | None = None
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                pending = await send(channel, messages, self._order[1])
                await self._wait(channel, pending, limit if outlasts_alarm else None)
        except LOST as error:  # includes the timeout
            reason = f"RabbitMQ did not confirm within {self._timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
            self._recycle(channel, reason)
            return _unconfirmed(messages, pending, BrokerUnavailableError(reason))
        except BaseException as error:
            # Interrupted between counting and writing, the channel's count of delivery tags may be wrong.
            self._recycle(channel, "a publish was interrupted")
            if is_lost(error) or (isinstance(error, asyncio.CancelledError) and not is_cancelled()):
                return _unconfirmed(messages, pending, BrokerUnavailableError(_CONNECTION_LOST))
            raise
        outcomes = zip(messages, map(_failure, pending.confirmations, pending.publishes), strict=True)
        return [(message, failure) for message, failure in outcomes if failure]

    def _recycle(self, channel: Channel, reason: str) -> None:
        """Recycle the connection of a channel, unless it is one that was left."""
        if channel is self._channel:
            self.recycle(reason)

    async def _wait(self, channel: Channel, pending: Pending, limit: asyncio.Timeout | None) -> None:
        """Wait for confirmations. Under an alarm return at once, or if there is a limit, move it while the alarm lasts."""
        while (await asyncio.wait([pending.settled], timeout=_LOOK_S))[1]:
            if not is_blocked(channel):
                continue
            self._note_blocked(is_now=True)
            if limit is None:
                return
            limit.reschedule(asyncio.get_running_loop().time() + self._timeout_s)


def _unconfirmed(
    messages: Sequence[Publishable], pending: Pending | None, error: BrokerUnavailableError
) -> list[tuple[Publishable, BrokerUnavailableError]]:
    """Return only the unconfirmed messages: if all were sent again, a slow broker might never confirm the whole batch."""
    if pending is None:
        return [(message, error) for message in messages]
    failures = map(_failure, pending.confirmations, pending.publishes)
    return [(message, error) for message, failure in zip(messages, failures, strict=True) if failure]


def _failure(confirmation: asyncio.Future[object], publish: Publish) -> BrokerUnavailableError | None:
    if not confirmation.done():
        return BrokerUnavailableError(_BLOCKED)
    error = None if confirmation.cancelled() else confirmation.exception()
    if confirmation.cancelled() or isinstance(error, asyncio.CancelledError) or type(error) is Exception:  # as in `is_lost`
        return BrokerUnavailableError(_CONNECTION_LOST)
    if isinstance(error, DeliveryError) and not isinstance(error, PublishError):  # a nack, and no return
        return BrokerRejectedError("RabbitMQ rejected a message: a queue is full, or has no leader")
    if error is not None:
        return BrokerUnavailableError(f"RabbitMQ refused a message: {type(error).__name__}")
    if not isinstance(confirmation.result(), Basic.Ack):
        return BrokerUnavailableError(f"RabbitMQ answered a publish with {type(confirmation.result()).__name__}")
    return None if publish.counts else BrokerUnavailableError("RabbitMQ has not confirmed an earlier message")
