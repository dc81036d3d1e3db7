"""Publishes and reads the stream `state.journal`: which writes Redis must have, as all workers know it.

Without it, a restart of all workers would forget what they wrote, and a Redis that was emptied then would look new.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final, NoReturn

from shared.amqp.batch_publish import HeaderValue
from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import STATE_JOURNAL
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.runtime.process import background
from shared.state.position_records import Record, decode, encode_map, encode_record, encode_sync
from shared.state.positions import Positions
from shared.state.stored_position import Known

log = get_logger(__name__)

_PREFETCH: Final = 200
# Messages to read at the start. A full map is published every few seconds, so the last one is almost always among them.
_WINDOW: Final = 4096
_SYNC_S: Final = 10.0
# If the stream was replaced since its end was found, the messages up to that end never come.
_SILENCE_S: Final = 30.0
_RETRY_S: Final = 0.2

Rows = Mapping[int, tuple[int, int]]


class StateJournal:
    """One process's part in the stream. What is read goes to `Positions`."""

    def __init__(self, address: BrokerAddress, publisher: Publisher, positions: Positions, now: Callable[[], datetime]) -> None:
        """Take the connection, what the process knows, and the clock of Redis."""
        self._address = address
        self._publisher = publisher
        self._positions = positions
        self._now = now
        self._read_to = -1
        self._taken = 0
        self._syncs: dict[str, asyncio.Event] = {}
        self._live: Consumer | None = None

    @property
    def now_ms(self) -> int:
        return round(self._now().timestamp() * 1000)

    async def run(self) -> NoReturn:
        """Read until cancelled: first what was published before, then everything that follows. Run it as a task."""
        await self._read_back()
        self._live = consumer = self._consumer(lambda: self._read_to + 1)
        async with background(consumer.run()):
            while True:
                self._take(await _next(consumer))
        raise AssertionError("the loop does not end")

    def _consumer(self, start: Callable[[], int]) -> Consumer:
        def arguments() -> dict[str, HeaderValue]:
            return {"x-stream-offset": start() or "first"}

        return Consumer(self._address, STATE_JOURNAL, prefetch=_PREFETCH, arguments=arguments)

    async def _read_back(self) -> None:
        """Read the end of the stream, back to a full map and all that it may lack."""
        window = _WINDOW
        while not await self._read_window(window):
            window *= 8

    async def _read_window(self, size: int) -> bool:
        """Read the last messages; returns whether they are all that is needed."""
        end_reader = Consumer(self._address, STATE_JOURNAL, prefetch=_PREFETCH, arguments=lambda: {"x-stream-offset": "next"})
        async with background(end_reader.run()):
            end = await _end(end_reader)
        if end is None:
            return True
        start = max(0, end + 1 - size)
        oldest: int | None = None
        is_complete = start == 0
        consumer = self._consumer(lambda: max(start, self._read_to + 1))
        self._read_to = -1
        async with background(consumer.run()):
            while self._read_to < end:
                try:
                    async with asyncio.timeout(_SILENCE_S):
                        delivery = await _next(consumer)
                except TimeoutError:  # `sync` fails by then, and is logged
                    return False
                oldest = delivery.offset if oldest is None else oldest
                record = self._take(delivery)
                # The first messages of the stream may be gone: then there is no more.
                is_complete |= oldest > start or (record is not None and record.upto is not None and record.upto + 1 >= oldest)
        return is_complete

    def _take(self, delivery: Delivery) -> Record | None:
        self._read_to = max(self._read_to, delivery.offset)
        self._taken += 1
        record = decode(delivery.body)
        if record is None:
            log.warning("unexpected_message", offset=delivery.offset, routing_key=delivery.routing_key)
            return None
        now_ms = self.now_ms
        for number, (generation, writers) in record.positions.items():
            self._positions.take(number, generation, writers, now_ms)
        if record.sync in self._syncs:
            self._syncs[record.sync].set()
        return record

    async def wait_until_connected(self, seconds: float) -> None:
        """Wait until RabbitMQ is connected, but no longer than a time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._publisher.wait_until_up()

    async def sync(self) -> None:
        """Read everything that RabbitMQ has confirmed by now.

        Raises:
            BrokerUnavailableError: the stream cannot be published to, or delivers nothing.
        """
        sync = uuid.uuid4().hex
        arrived = self._syncs[sync] = asyncio.Event()
        taken_before = self._taken
        try:
            await self._publisher.publish(self._message(encode_sync(self._positions.writer, sync, self.now_ms)))
            async with asyncio.timeout(_SYNC_S):
                await arrived.wait()
        except TimeoutError:
            # A stream that was replaced begins at a lower offset. A slow reader must not begin again, or it never catches up.
            if self._live is not None and self._taken == taken_before:
                self._read_to = -1
                self._live.recycle(f"{STATE_JOURNAL} delivers nothing")
            raise BrokerUnavailableError(f"{STATE_JOURNAL} did not deliver within {_SYNC_S:g} s") from None
        finally:
            del self._syncs[sync]

    def unpublished(self) -> tuple[Message, Rows] | None:
        """Return the message with the writes that were not published yet, and what it says; None if nothing is owed."""
        if not self._positions.is_owing():
            return None
        rows = self._positions.unrecorded()
        return self._message(encode_record(self._positions.writer, rows, self.now_ms)), rows

    async def publish(self) -> None:
        """Publish the writes of this process, so that a delivery may be acked. It retries without limit."""
        while (owed := self.unpublished()) is not None:
            message, rows = owed
            await self._publisher.publish_until_confirmed([message])
            self._positions.recorded(rows)

    async def publish_map(self, known: Mapping[int, Known]) -> None:
        """Publish a full map.

        Raises:
            BrokerUnavailableError: it is not confirmed.
        """
        await self._publisher.publish(self._message(encode_map(self._positions.writer, known, self._read_to, self.now_ms)))

    @staticmethod
    def _message(body: bytes) -> Message:
        return Message("", STATE_JOURNAL, body, uuid.uuid4().hex)


async def _next(consumer: Consumer) -> Delivery:
    """Return the next delivery. On a stream, an ack only grants credit for more."""
    delivery = await consumer.get()
    await delivery.ack()
    return delivery


async def _end(consumer: Consumer) -> int | None:
    while True:
        await consumer.wait_until_up()
        try:
            return await consumer.stream_end()
        except BrokerUnavailableError:
            await asyncio.sleep(_RETRY_S)
