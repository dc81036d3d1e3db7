"""Consumes one queue or stream for a copy on another broker: every property of a message is kept."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Iterator, Sequence

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp import encode
from pamqp.commands import Basic
from pamqp.common import FieldValue

from shared.amqp.batch_publish import Copy
from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Arguments, Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.topology import ECHO_ID, ECHO_TO, MARKER, SPOOL

_PERSISTENT = 2
# Headers that RabbitMQ sets for a delivery from this queue, and requests to a worker of this broker.
_OF_THE_OLD_BROKER = frozenset({"x-stream-offset", ECHO_TO, ECHO_ID})


class CopySource(Consumer):
    """A consumer that also keeps the properties of each delivery until it is copied."""

    def __init__(
        self, address: BrokerAddress, queue: str, *, prefetch: int, arguments: Arguments | Callable[[], Arguments] | None = None
    ) -> None:
        super().__init__(address, queue, prefetch=prefetch, arguments=arguments)
        self._properties: dict[int, Basic.Properties] = {}

    def _on_close(self, channel: Channel | None) -> None:
        super()._on_close(channel)
        self._properties.clear()

    async def _deliver(self, message: DeliveredMessage) -> None:
        if message.delivery_tag is not None and message.channel is self._channel:
            self._properties[message.delivery_tag] = message.header.properties
        await super()._deliver(message)

    def copies(self, deliveries: Sequence[Delivery], exchange: str) -> list[Copy]:
        """Return what to publish for deliveries, without markers of rounds. Those of a lost channel will be delivered again."""
        copies = []
        for delivery in deliveries:
            properties = self._properties.pop(delivery.tag, None) if delivery.in_flight is self.in_flight else None
            if properties is not None and not _is_round(delivery):
                copies.append(Copy(exchange, delivery.routing_key, delivery.body, copied_properties(properties)))
        return copies


def without_equal_ids(copies: Sequence[Copy]) -> Iterator[list[Copy]]:
    """Split copies into batches without two equal message ids, because a publisher must not have two in flight."""
    batch: list[Copy] = []
    ids: set[str] = set()
    for each in copies:
        if each.message_id in ids:
            yield batch
            batch, ids = [], set()
        batch.append(each)
        ids.add(each.message_id)
    if batch:
        yield batch


def _is_round(delivery: Delivery) -> bool:
    """Return whether it marks a round of the old broker. The members of that round do not consume the new one."""
    return delivery.is_marker and delivery.headers.get(MARKER) != "0" and SPOOL not in delivery.headers


def copied_properties(properties: Basic.Properties) -> Basic.Properties:
    """Return properties for the new broker. Headers that the library cannot write are left out."""
    copied = copy.copy(properties)
    copied.headers = {
        name: value
        for name, value in (properties.headers or {}).items()
        if name not in _OF_THE_OLD_BROKER and _is_encodable(name, value)
    }
    copied.delivery_mode = _PERSISTENT
    copied.user_id = None  # RabbitMQ accepts only the user of the connection
    copied.cluster_id = ""
    return copied


def _is_encodable(name: str, value: FieldValue) -> bool:
    """Return whether the library can write a value that it has read. One that it cannot must not stop the copy."""
    try:
        encode.field_table({name: value})
    except (TypeError, ValueError, OverflowError, struct.error):
        return False
    return True
