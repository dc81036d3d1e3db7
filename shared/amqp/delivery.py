"""A message in flight, with its ack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from aiormq.channel import Channel

from shared.amqp.channel_requests import write_while_open
from shared.amqp.connection_errors import LOST
from shared.amqp.in_flight import InFlight
from shared.amqp.topology import MARKER, MARKER_BODY

_OFFSET = "x-stream-offset"
_ROUND = re.compile(r"\d{1,15}", re.ASCII)  # ms since 1970; a longer one would be no marker of Callfold


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in flight until it is acked, or until its channel is lost and RabbitMQ redelivers it."""

    body: bytes
    headers: Mapping[str, object]
    routing_key: str
    tag: int
    channel: Channel
    in_flight: InFlight | None = None

    @property
    def offset(self) -> int:
        """The offset of the message in its stream.

        Raises:
            ValueError: the message did not come from a stream.
        """
        offset = self.headers.get(_OFFSET)
        if not isinstance(offset, int):
            raise ValueError("a delivery without offset: its queue is no stream")  # noqa: TRY004 - the type is the broker's choice
        return offset

    async def ack(self) -> None:
        """Ack the message; if its channel is or becomes lost, this has no effect and the message is redelivered."""
        if self.in_flight is not None:
            self.in_flight.settle(self.tag)
        await self._ack(multiple=False)

    async def ack_all(self) -> None:
        """Ack the message and every one before it on its channel, with one frame. For a stream that costs half as much."""
        if self.in_flight is not None:
            self.in_flight.settle_until(self.tag)
        await self._ack(multiple=True)

    async def _ack(self, *, multiple: bool) -> None:
        acking = self.channel.basic_ack(self.tag, multiple=multiple, wait=False)
        with suppress(*LOST):
            await (write_while_open(self.channel, acking) if self.channel.write_queue.full() else acking)

    @property
    def is_marker(self) -> bool:
        """True for a marker of a round, which has no events."""
        return self.body == MARKER_BODY and marker_round(self.headers) is not None


def marker_round(headers: Mapping[str, object]) -> int | None:
    """Read the number of the round from the headers of a marker; None for any other message."""
    number = headers.get(MARKER)
    return int(number) if isinstance(number, str) and _ROUND.fullmatch(number) else None
