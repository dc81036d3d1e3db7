"""Looking into queues: message by message (basic.get; what is not acked goes back in the end), or only counting."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import ChannelLockedResource
from pamqp.commands import Basic, Queue

from shared.amqp.connection import BrokerAddress, BrokerConnection, requesting, write_while_open
from shared.amqp.consumer import Delivery
from shared.errors import BrokerUnavailableError

_GET_TIMEOUT_S = 5


class QueueReader(BrokerConnection):
    """Gets the messages of one queue, each once: those it holds are not given to anybody else."""

    def __init__(self, address: BrokerAddress, queue: str) -> None:
        super().__init__(address, f"getter of {queue}")
        self._queue = queue
        self._channel: Channel | None = None
        self._is_alone = False

    async def _open(self, channel: Channel) -> None:
        # Another may have what we had alone on the connection before.
        self._channel = None if self._is_alone else channel

    def _closed(self) -> None:
        self._channel = None

    async def take_turn(self) -> bool:
        """Have the queue alone among those who take turns; False where it is another's.

        The turn is an exclusive queue of this connection: it ends with it, when what was got goes back.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        channel = self._working()
        if channel.connection.is_closed:
            raise BrokerUnavailableError("the connection to RabbitMQ was lost")
        with requesting(f"{self._queue} cannot be read"):
            try:
                trial = await channel.connection.channel(timeout=_GET_TIMEOUT_S)  # refused, it is closed
                await trial.queue_declare(self._turn, exclusive=True, timeout=_GET_TIMEOUT_S)
            except ChannelLockedResource:
                return False
        self._is_alone = True
        return True

    async def end_turn(self) -> None:
        """Put back what was got and not settled; once it is there, let the next one have the queue."""
        if self._channel is None:
            return
        # The end of the connection does the same.
        with suppress(BrokerUnavailableError), requesting(f"{self._queue} cannot be given back"):
            await write_while_open(self._channel, self._channel.basic_nack(0, multiple=True, requeue=True, wait=True))
            await self._channel.queue_declare(self._queue, passive=True, timeout=_GET_TIMEOUT_S)
            await self._channel.queue_delete(self._turn, timeout=_GET_TIMEOUT_S)
        self._channel = None

    @property
    def _turn(self) -> str:
        return f"{self._queue}.turn"

    async def count(self) -> int:
        """Count the messages that wait.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        return (await self._declared()).message_count or 0

    async def count_consumers(self) -> int:
        """Count the consumers of the queue.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        return (await self._declared()).consumer_count or 0

    async def _declared(self) -> Queue.DeclareOk:
        channel = self._working()
        with requesting(f"{self._queue} cannot be counted"):
            return await channel.queue_declare(self._queue, passive=True, timeout=_GET_TIMEOUT_S)

    async def confirm(self) -> None:
        """Make sure that the broker has heard what was settled: it answers in order, on the channel that everything came on.

        Raises:
            BrokerUnavailableError: the connection was lost: what was settled may have gone back to the queue.
        """
        await self.count()

    async def get(self) -> Delivery | None:
        """Get the next message, or None where no other waits.

        Raises:
            BrokerUnavailableError: the connection was lost: what was got has gone back to the queue.
        """
        channel = self._working()
        with requesting(f"{self._queue} cannot be read"):
            message: DeliveredMessage = await channel.basic_get(self._queue, timeout=_GET_TIMEOUT_S)
        if isinstance(message.delivery, Basic.GetEmpty) or message.delivery_tag is None:
            return None
        properties = message.header.properties
        headers = {**(properties.headers or {}), "message_id": properties.message_id or ""}
        return Delivery(message.body, headers, message.routing_key or "", message.delivery_tag, channel)

    def _working(self) -> Channel:
        if self._channel is None:
            raise BrokerUnavailableError("the connection to RabbitMQ was lost")
        return self._channel


class QueueDepths(BrokerConnection):
    """Counts what waits in queues, without touching it. RabbitMQ's own figures: some seconds old on quorum queues."""

    def __init__(self, address: BrokerAddress) -> None:
        super().__init__(address, "depths")
        self._channel: Channel | None = None

    async def _open(self, channel: Channel) -> None:
        self._channel = channel

    def _closed(self) -> None:
        self._channel = None

    async def counts(self, queues: Iterable[str]) -> dict[str, int]:
        """Count the messages of each queue.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        if self._channel is None:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        found: dict[str, int] = {}
        with requesting("the queues cannot be counted"):
            for queue in queues:
                declared = await self._channel.queue_declare(queue, passive=True, timeout=_GET_TIMEOUT_S)
                found[queue] = declared.message_count or 0
        return found
