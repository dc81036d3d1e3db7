"""The queue of a subscriber, and its dead letters.

The queue is a durable quorum queue with a limit. A full one drops its oldest messages to `<queue>.dead`.
It never rejects a publish, since Callfold would then publish no event to anyone. All works on RabbitMQ 3.10 to 4.x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import aio_pika
from aiormq import spec
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp.common import FieldTable

from callfold_client.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, connected, open_channel, requests
from callfold_client.errors import QueueConflictError, SubscriptionError
from callfold_client.messages import Message

CALLS = "calls"
REASON = "callfold-reason"
_NEVER = 1_000_000_000
_REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class SubscriberQueue:
    """The queue of a subscriber.

    Attributes:
        filters: topic patterns that bind it.
        max_bytes: limit of its messages.
        delivery_limit: number of deliveries without an ack after which RabbitMQ dead-letters a message.
        declares: it is declared and bound; otherwise it must exist, and is used as it is.
    """

    name: str
    filters: tuple[str, ...]
    max_bytes: int
    delivery_limit: int
    declares: bool = True

    @property
    def dead(self) -> str:
        """The name of the queue of dead letters, and of the exchange that leads to it."""
        return f"{self.name}.dead"

    @property
    def arguments(self) -> Mapping[str, str | int]:
        return {
            "x-queue-type": "quorum",
            "x-max-length-bytes": self.max_bytes,
            "x-overflow": "drop-head",
            "x-delivery-limit": self.delivery_limit,
            "x-dead-letter-exchange": self.dead,
        }

    @property
    def dead_arguments(self) -> Mapping[str, str | int]:
        return {
            "x-queue-type": "quorum",
            "x-max-length-bytes": self.max_bytes,
            "x-overflow": "drop-head",
            "x-delivery-limit": _NEVER,  # RabbitMQ 4 would drop a dead letter that was read 20 times
        }

    async def declare(self, connection: aio_pika.Connection) -> None:
        """Declare and bind the queue, and that of its dead letters.

        Raises:
            QueueConflictError: a queue exists with other arguments.
            SubscriptionError: the exchange `calls` or, without `declares`, the queue does not exist, or a right is missing.
            TransportLostError: the connection was lost.
        """
        with requests(f"Cannot declare the queue {self.name}"):
            channel = await open_channel(connection)
            try:
                if self.declares:
                    await self._declare(channel)
                else:
                    await channel.queue_declare(self.name, passive=True, timeout=ANSWER_TIMEOUT_S)
            except ChannelPreconditionFailed as error:
                raise QueueConflictError(
                    f"The queue {self.name} or {self.dead} exists with other arguments: {error}. Choose another name, delete the "
                    "queue, or pass declare=False to use it as it is."
                ) from None
            except ChannelNotFoundEntity as error:
                hint = "Start a Callfold worker first" if self.declares else "Create the queue, or pass declare=True"
                raise SubscriptionError(f"RabbitMQ lacks what the queue {self.name} needs: {error}. {hint}.") from None
            await channel.close()

    async def _declare(self, channel: Channel) -> None:
        await channel.exchange_declare(self.dead, exchange_type="fanout", durable=True, timeout=ANSWER_TIMEOUT_S)
        for name, arguments in ((self.dead, self.dead_arguments), (self.name, self.arguments)):
            await channel.queue_declare(name, durable=True, arguments=dict(arguments), timeout=ANSWER_TIMEOUT_S)
        await channel.queue_bind(self.dead, self.dead, "", timeout=ANSWER_TIMEOUT_S)
        for pattern in self.filters:
            await channel.queue_bind(self.name, CALLS, pattern, timeout=ANSWER_TIMEOUT_S)

    async def dead_letter(self, url: str, message: Message, reason: str) -> None:
        """Publish a copy of a message, with the reason, to the dead letters.

        This takes a connection for itself: under an alarm RabbitMQ stops reading connections that have published.

        Raises:
            SubscriptionError: RabbitMQ refuses this.
            TransportLostError: RabbitMQ did not confirm it.
        """
        headers = cast("FieldTable", {name: value for name, value in message.headers.items() if not name.startswith("x-")})
        properties = spec.Basic.Properties(
            headers={**headers, REASON: reason[:_REASON_CHARACTERS]},
            delivery_mode=int(aio_pika.DeliveryMode.PERSISTENT),
        )
        with requests(f"Cannot publish to {self.dead}"):
            async with connected(url, f"callfold-client {self.dead}") as connection:
                channel = await open_channel(connection, confirms=True)
                await channel.basic_publish(
                    message.body,
                    exchange=self.dead,
                    routing_key=message.routing_key,
                    properties=properties,
                    mandatory=True,
                    timeout=CONNECT_TIMEOUT_S,
                )
