"""Echoes: a worker answers a message that it has folded, so that its ingress learns how far behind the fold is.

The echoes of one ingress arrive in a queue that only its connection may consume and that ends with it. An echo can be lost, since
nothing but a measurement depends on it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace

from aiormq.channel import Channel

from shared.amqp.connection import BrokerAddress, GoHome
from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Message
from shared.amqp.topology import ECHO_ID, ECHO_QUEUE_PREFIX, ECHO_TO, Topology

_PREFETCH = 100
_MAX_ECHOES = 1000
_ANSWER_TIMEOUT_S = 10


class EchoQueue(Consumer):
    """Consumes the echoes to one ingress. Each session has a queue with a new name."""

    def __init__(self, address: BrokerAddress) -> None:
        # Nothing else is declared, so a queue with other arguments is no concern of this connection.
        super().__init__(replace(address, topology=Topology()), "", prefetch=_PREFETCH)
        self._name = f"{address.name} echoes"

    @property
    def name(self) -> str | None:
        """The queue that receives echoes now, or None while there is none."""
        return self.queue if self.is_up else None

    @property
    def _goes_home(self) -> GoHome:
        return GoHome.RECONNECT  # its queue ends with its connection

    async def _on_open(self, channel: Channel) -> None:
        self.queue = f"{ECHO_QUEUE_PREFIX}{uuid.uuid4().hex}"
        await channel.queue_declare(
            self.queue,
            exclusive=True,
            auto_delete=True,
            arguments={"x-queue-type": "classic", "x-max-length": _MAX_ECHOES},
            timeout=_ANSWER_TIMEOUT_S,
        )
        await super()._on_open(channel)


def echo(headers: Mapping[str, object]) -> Message | None:
    """Build the echo to a message with these headers; None if its sender waits for none.

    The queue's name must have the prefix, because any client may publish to the exchange `callbacks`.
    """
    queue, number = headers.get(ECHO_TO), headers.get(ECHO_ID)
    if not isinstance(queue, str) or not queue.startswith(ECHO_QUEUE_PREFIX) or not isinstance(number, int):
        return None
    return Message("", queue, b"", uuid.uuid4().hex, headers={ECHO_ID: number}, expires_ms=60_000)


def echo_number(headers: Mapping[str, object]) -> int | None:
    """Read the number that an echo repeats."""
    number = headers.get(ECHO_ID)
    return number if isinstance(number, int) else None
