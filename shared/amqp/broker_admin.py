"""Requests to a broker that a move makes: whether a queue exists, and that the exchange `callbacks` takes no more messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from aiormq.channel import Channel
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity, ChannelPreconditionFailed

from shared.amqp.channel_requests import broker_request
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS
from shared.errors import BrokerUnavailableError

_TIMEOUT_S = 10
_FENCE = "direct"  # no process of Callfold accepts this type for the exchange, and nothing is bound to it
_ATTEMPTS = 20


class BrokerAdmin(Publisher):
    """Each request has its own channel, because RabbitMQ closes the channel of a request that it refuses."""

    async def has_queue(self, name: str) -> bool:
        """Return whether a queue exists, also if it is exclusive to another connection.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        with broker_request(f"Cannot look for the queue {name}"):
            async with self._trial() as channel:
                try:
                    await channel.queue_declare(name, passive=True, timeout=_TIMEOUT_S)
                except ChannelNotFoundEntity:
                    return False
                except ChannelLockedResource:
                    return True
        return True

    async def fence(self) -> None:
        """Replace the exchange `callbacks` by one of another type: an ingress or console that is still connected cannot publish.

        A process that connects in between declares the exchange as it was, so this is tried again.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        with broker_request(f"Cannot replace the exchange {CALLBACKS}"):
            for _ in range(_ATTEMPTS):
                async with self._trial() as channel:
                    with suppress(ChannelPreconditionFailed):  # it exists with its own type
                        await channel.exchange_declare(CALLBACKS, exchange_type=_FENCE, durable=True, timeout=_TIMEOUT_S)
                        return
                await self.delete_exchanges([CALLBACKS])
        raise BrokerUnavailableError(f"The exchange {CALLBACKS} of the old broker comes back each time it is deleted")

    async def delete_exchanges(self, names: Iterable[str]) -> None:
        """Delete exchanges; one that does not exist is deleted.

        Raises:
            BrokerUnavailableError: not connected, or no answer.
        """
        with broker_request("Cannot delete an exchange"):
            async with self._trial() as channel:
                for name in names:
                    await channel.exchange_delete(name, timeout=_TIMEOUT_S)

    @asynccontextmanager
    async def _trial(self) -> AsyncIterator[Channel]:
        if self._channel is None or not self.is_up:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        channel = await self._channel.connection.channel(publisher_confirms=False, timeout=_TIMEOUT_S)
        try:
            yield channel  # type: ignore[misc]
        finally:
            if not channel.is_closed:
                await channel.close()
