"""Reads queues without consuming them: one message, many at once, or only their counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity
from pamqp.commands import Basic, Queue

from shared.amqp.channel_requests import broker_request, wait_while_open, write_while_open
from shared.amqp.connection import BrokerAddress, BrokerConnection, GoHome
from shared.amqp.delivery import Delivery
from shared.errors import BrokerUnavailableError

_GET_TIMEOUT_S = 5
_SILENCE_S = 2
MAX_TAKEN = 2000  # RabbitMQ caps the prefetch of a quorum queue at this


class QueueReader(BrokerConnection):
    """Reads each message of one queue once; unsettled messages are hidden from other readers until they are requeued."""

    def __init__(self, address: BrokerAddress, queue: str) -> None:
        super().__init__(address, f"reader of {queue}")
        self._queue = queue
        self._locks: set[str] = set()
        self._has_lost_locks = False
        self._steps = 0
        self.ready = 0

    async def _on_open(self, channel: Channel) -> None:
        del channel
        # The locks ended with the previous connection, and another reader may hold them now.
        self._has_lost_locks = self._has_lost_locks or bool(self._locks)
        self._locks.clear()

    async def try_lock(self, name: str) -> bool:
        """Acquire a lock on the queue; returns False if another reader holds it.

        A lock is an exclusive queue of this connection. When the connection ends, RabbitMQ deletes that queue and requeues
        what is unsettled.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        channel = self._connected_channel()
        if channel.connection.is_closed:
            raise BrokerUnavailableError("the connection to RabbitMQ was lost")
        with broker_request(f"Cannot lock {self._queue}"):
            try:
                trial = await channel.connection.channel(timeout=_GET_TIMEOUT_S)  # RabbitMQ closes it with the refusal
                await trial.queue_declare(f"{self._queue}.{name}", exclusive=True, timeout=_GET_TIMEOUT_S)
                async with asyncio.timeout(_GET_TIMEOUT_S):
                    await trial.close()
            except ChannelLockedResource:
                return False
        self._locks.add(name)
        return True

    async def unlock(self, name: str) -> None:
        """Requeue unsettled messages, then release the lock. If this fails, the end of the connection does the same."""
        channel = self._channel
        if channel is None or name not in self._locks:
            return
        with suppress(BrokerUnavailableError), broker_request(f"Cannot unlock {self._queue}"):
            await write_while_open(channel, channel.basic_nack(0, multiple=True, requeue=True, wait=True))
            await channel.queue_declare(self._queue, passive=True, timeout=_GET_TIMEOUT_S)  # answered after the nack
            await self.release(name)
            return
        self.recycle("its lock could not be released")

    async def release(self, name: str) -> None:
        """Release a lock and nothing else.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        channel = self._connected_channel()
        with broker_request(f"Cannot unlock {self._queue}"):
            await channel.queue_delete(f"{self._queue}.{name}", timeout=_GET_TIMEOUT_S)
        self._locks.discard(name)

    def forget_lost_locks(self) -> None:
        """Start over after a lost connection. Until then every request fails, so that nothing is done without its lock."""
        self._has_lost_locks = False

    async def count(self) -> int:
        """Count the ready messages.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        return (await self._counts()).message_count or 0

    async def count_consumers(self) -> int:
        """Count the consumers of the queue.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        return (await self._counts()).consumer_count or 0

    async def _counts(self) -> Queue.DeclareOk:
        channel = self._connected_channel()
        with broker_request(f"Cannot count {self._queue}"):
            return await channel.queue_declare(self._queue, passive=True, timeout=_GET_TIMEOUT_S)

    async def confirm_settled(self) -> None:
        """Make sure that RabbitMQ has processed every ack so far: it answers requests on a channel in order.

        Raises:
            BrokerUnavailableError: the connection was lost, and acked messages may have been requeued.
        """
        await self.count()

    async def get(self) -> Delivery | None:
        """Get the next message, or None if no message is ready. `ready` is then the exact number of those behind it.

        Raises:
            BrokerUnavailableError: the connection was lost, and unsettled messages were requeued.
        """
        channel = self._connected_channel()
        with broker_request(f"Cannot read {self._queue}"):
            message: DeliveredMessage = await channel.basic_get(self._queue, timeout=_GET_TIMEOUT_S)
        if not isinstance(message.delivery, Basic.GetOk):
            self.ready = 0
            return None
        self.ready = message.delivery.message_count or 0
        return _delivery(message, channel)

    async def take(self, count: int) -> list[Delivery]:
        """Take the next messages, up to `MAX_TAKEN`. There are fewer if RabbitMQ delivers no more for some seconds.

        Raises:
            BrokerUnavailableError: the connection was lost, and unsettled messages were requeued.
        """
        channel, taken, full = self._connected_channel(), list[Delivery](), asyncio.Event()

        async def deliver(message: DeliveredMessage) -> None:
            taken.append(_delivery(message, channel))
            if len(taken) == count:
                full.set()

        # RabbitMQ requeues consumer by consumer in the order of their tags, so the messages keep their order.
        self._steps += 1
        tag = f"{self._steps:012}"
        with broker_request(f"Cannot read {self._queue}"):
            await channel.basic_qos(prefetch_count=count, timeout=_GET_TIMEOUT_S)
            await channel.basic_consume(self._queue, deliver, consumer_tag=tag, timeout=_GET_TIMEOUT_S)
            before = -1
            while len(taken) < count and len(taken) > before:
                before = len(taken)
                await wait_while_open(channel, full, timeout_s=_SILENCE_S)
            await channel.basic_cancel(tag, timeout=_GET_TIMEOUT_S)
            channel.consumers.pop(tag, None)
        return taken

    def _connected_channel(self) -> Channel:
        if self._channel is None or self._has_lost_locks:
            raise BrokerUnavailableError("the connection to RabbitMQ was lost")
        return self._channel


def _delivery(message: DeliveredMessage, channel: Channel) -> Delivery:
    properties = message.header.properties
    headers = {**(properties.headers or {}), "message_id": properties.message_id or ""}
    return Delivery(message.body, headers, message.routing_key or "", message.delivery_tag or 0, channel)


class Waiting(NamedTuple):
    """The ready messages of a group of queues, and the consumers of the first one."""

    messages: int
    consumers: int


class QueueDepths(BrokerConnection):
    """Counts the ready messages of queues. RabbitMQ's counts of quorum queues are up to some seconds old."""

    def __init__(self, address: BrokerAddress) -> None:
        super().__init__(address, "depths")

    @property
    def _goes_home(self) -> GoHome:
        return GoHome.MOVE

    async def count(self, queues: Iterable[str]) -> dict[str, int]:
        """Count the ready messages of each queue.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        if self._channel is None:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        depths: dict[str, int] = {}
        with broker_request("Cannot count the queues"):
            for queue in queues:
                declared = await self._channel.queue_declare(queue, passive=True, timeout=_GET_TIMEOUT_S)
                depths[queue] = declared.message_count or 0
        return depths

    async def count_groups(self, groups: Mapping[str, Sequence[str]]) -> dict[str, Waiting | None]:
        """Count groups of queues by name; None for a group of which a queue does not exist.

        The first queue of a group is the one whose consumers are counted.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        channel = self._channel
        if channel is None:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        return {name: await self._count_group(channel, queues) for name, queues in groups.items()}

    async def _count_group(self, channel: Channel, queues: Sequence[str]) -> Waiting | None:
        with broker_request("Cannot count the queues"):
            trial = await channel.connection.channel(timeout=_GET_TIMEOUT_S)  # RabbitMQ closes it with the refusal
            try:
                counts = [await trial.queue_declare(queue, passive=True, timeout=_GET_TIMEOUT_S) for queue in queues]
            except ChannelNotFoundEntity:
                return None
            async with asyncio.timeout(_GET_TIMEOUT_S):
                await trial.close()
        return Waiting(sum(each.message_count or 0 for each in counts), counts[0].consumer_count or 0)
