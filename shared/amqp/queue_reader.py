"""Reads queues without consuming them: message by message with basic.get, or only their counts."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import ChannelLockedResource
from pamqp.commands import Basic, Queue

from shared.amqp.channel_requests import broker_request, write_while_open
from shared.amqp.connection import BrokerAddress, BrokerConnection
from shared.amqp.consumer import Delivery
from shared.errors import BrokerUnavailableError

_GET_TIMEOUT_S = 5


class QueueReader(BrokerConnection):
    """Gets each message of one queue once; unsettled messages are hidden from other readers until they are requeued."""

    def __init__(self, address: BrokerAddress, queue: str) -> None:
        super().__init__(address, f"reader of {queue}")
        self._queue = queue
        self._channel: Channel | None = None
        self._had_lock = False

    async def _on_open(self, channel: Channel) -> None:
        # The lock ended with the previous connection, and another reader may hold it now.
        self._channel = None if self._had_lock else channel

    def _on_close(self) -> None:
        self._channel = None

    async def try_lock(self) -> bool:
        """Acquire the lock on the queue; returns False if another reader holds it.

        The lock is an exclusive queue of this connection. When the connection ends, RabbitMQ deletes that queue and requeues
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
                await trial.queue_declare(self._lock, exclusive=True, timeout=_GET_TIMEOUT_S)
            except ChannelLockedResource:
                return False
        self._had_lock = True
        return True

    async def unlock(self) -> None:
        """Requeue unsettled messages, then release the lock."""
        if self._channel is None:
            return
        # If this fails, the end of the connection does the same.
        with suppress(BrokerUnavailableError), broker_request(f"Cannot unlock {self._queue}"):
            await write_while_open(self._channel, self._channel.basic_nack(0, multiple=True, requeue=True, wait=True))
            await self._channel.queue_declare(self._queue, passive=True, timeout=_GET_TIMEOUT_S)  # answered after the nack
            await self._channel.queue_delete(self._lock, timeout=_GET_TIMEOUT_S)
        self._channel = None

    @property
    def _lock(self) -> str:
        return f"{self._queue}.turn"

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
        """Get the next message, or None if no message is ready.

        Raises:
            BrokerUnavailableError: the connection was lost, and unsettled messages were requeued.
        """
        channel = self._connected_channel()
        with broker_request(f"Cannot read {self._queue}"):
            message: DeliveredMessage = await channel.basic_get(self._queue, timeout=_GET_TIMEOUT_S)
        if isinstance(message.delivery, Basic.GetEmpty) or message.delivery_tag is None:
            return None
        properties = message.header.properties
        headers = {**(properties.headers or {}), "message_id": properties.message_id or ""}
        return Delivery(message.body, headers, message.routing_key or "", message.delivery_tag, channel)

    def _connected_channel(self) -> Channel:
        if self._channel is None:
            raise BrokerUnavailableError("the connection to RabbitMQ was lost")
        return self._channel


class QueueDepths(BrokerConnection):
    """Counts the ready messages of queues. RabbitMQ's counts of quorum queues are up to some seconds old."""

    def __init__(self, address: BrokerAddress) -> None:
        super().__init__(address, "depths")
        self._channel: Channel | None = None

    async def _on_open(self, channel: Channel) -> None:
        self._channel = channel

    def _on_close(self) -> None:
        self._channel = None

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
