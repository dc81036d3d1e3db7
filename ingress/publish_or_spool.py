"""Where accepted callbacks go: confirmed by the broker, or fsynced in the spool until the broker can take them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from ingress.spool import OutgoingMessage, Spool
from shared import metrics
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS, SPOOL, SPOOL_OLDEST, SPOOL_SEEN
from shared.clock import utc_now
from shared.crash_points import crash_point
from shared.domain.raw_event import MAX_EVENTS_PER_MESSAGE, join, receipts
from shared.errors import BrokerUnavailableError, SpoolUnavailableError
from shared.log import get_logger

log = get_logger(__name__)

# After a failed publish the broker is left alone for so long: a blocked one costs each batch the whole timeout.
_HOLD_OFF_S = 1.0
# A process that has just started is not ready for so long, unless it is connected sooner: the spool is for outages.
_FIRST_CONNECT_S = 5.0
_DRAIN_ROWS = 500
_DRAIN_BYTES = 4 << 20
_MAX_JOINED_BYTES = 1 << 20
_WATCH_S = 1
_LOOK_AGAIN_S = 2.0


class DurableWriter:
    """Makes messages durable: broker first, spool when the broker is away; and empties the spool."""

    def __init__(self, publisher: Publisher, spool: Spool) -> None:
        self._publisher = publisher
        self._spool = spool
        self._hold_off_until = 0.0
        self._is_refused = False  # by a broker that is there, but was full, blocked or silent when it was last asked
        self._first_connect_until = time.monotonic() + _FIRST_CONNECT_S

    async def write(self, events: Sequence[bytes]) -> None:
        """Make a batch of encoded events durable.

        Raises:
            SpoolUnavailableError: neither the broker nor the spool could take it.
        """
        metrics.BATCH_EVENTS.observe(len(events))
        await self.send(OutgoingMessage(CALLBACKS, "", {}, join(events)))

    async def send(self, message: OutgoingMessage) -> None:
        """Make one message durable; raises SpoolUnavailableError as `write` does."""
        if self._publisher.is_up and time.monotonic() >= self._hold_off_until:
            try:
                await self._publish(message)
            except BrokerUnavailableError as error:
                self._hold_off_until = time.monotonic() + _HOLD_OFF_S
                self._is_refused = True
                log.warning("publish_failed", detail=str(error))
            else:
                return
        await self._spool.add([message])
        metrics.SPOOLED.inc()

    async def _publish(self, message: OutgoingMessage) -> None:
        started = time.perf_counter()
        await self._publisher.publish(_fresh(message))
        self._is_refused = False
        metrics.PUBLISH_SECONDS.observe(time.perf_counter() - started)
        crash_point("ingress.confirmed")

    async def problems(self) -> list[str]:
        """Say what keeps ingress from taking callbacks: nothing while either the broker or the spool can."""
        if self._publisher.is_up and not self._is_refused:
            return []
        if not self._publisher.is_up and time.monotonic() < self._first_connect_until:
            return ["connecting to RabbitMQ"]
        try:
            await self._spool.check()
        except SpoolUnavailableError as error:
            return ["RabbitMQ takes no messages" if self._publisher.is_up else "RabbitMQ is not connected", str(error)]
        return []

    async def watch(self) -> NoReturn:
        """Show how much lies in the spool of this machine, whoever put it there. Run it as a task."""
        while True:
            with suppress(SpoolUnavailableError):
                metrics.SPOOL_MESSAGES.set(await self._spool.count())
            await asyncio.sleep(_WATCH_S)

    async def drain(self) -> NoReturn:
        """Move the spool to the broker, oldest first, whenever both are there. Run it as a task.

        Callbacks that come meanwhile do not wait behind it: the fold takes them in any order, and timers wait for the spool.
        """
        while True:
            await self._publisher.wait_until_up()
            async with self._spool.drain_lock() as is_ours:
                if is_ours:
                    await self._drain_all()
            self._spool.added.clear()
            # Also without a sign: another process may have written the file, or left it behind.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._spool.added.wait()

    async def _drain_all(self) -> None:
        try:
            total = await self._spool.count()
            if total:
                log.info("spool_drain", messages=total)
            while rows := await self._spool.oldest(_DRAIN_ROWS, max_bytes=_DRAIN_BYTES):
                for numbers, message in _joined(rows):
                    news = await self._news(numbers[-1]) if message.exchange == CALLBACKS else {}
                    await self._publisher.publish(_fresh(replace(message, headers={**message.headers, **news})))
                    self._is_refused = False
                    await self._spool.remove(numbers)
            if total:
                self._hold_off_until = 0.0
                log.info("spool_drained", messages=total)
        except BrokerUnavailableError as error:
            log.warning("spool_drain_interrupted", detail=str(error))
            await asyncio.sleep(_HOLD_OFF_S)
        except SpoolUnavailableError as error:
            log.warning("spool_unreadable", detail=str(error))
            await asyncio.sleep(_HOLD_OFF_S)

    async def _news(self, number: int) -> Mapping[str, str | int]:
        """Tell how old the oldest callback is that stays behind: the workers' timers wait for it."""
        first = await self._spool.first(CALLBACKS, after=number)
        oldest = next(iter(receipts(first.body)), "") if first else ""
        return {SPOOL: self._spool.name, SPOOL_OLDEST: oldest, SPOOL_SEEN: utc_now()}


def _joined(rows: Iterable[tuple[int, OutgoingMessage]]) -> Iterator[tuple[list[int], OutgoingMessage]]:
    """Put batches of callbacks that follow each other into one message; with the ids to remove them by, in order."""
    numbers: list[int] = []
    bodies: list[bytes] = []
    events = size = 0
    for number, message in rows:
        count = len(receipts(message.body))
        fits = events + count <= MAX_EVENTS_PER_MESSAGE and size + len(message.body) <= _MAX_JOINED_BYTES
        if numbers and (not fits or message.exchange != CALLBACKS):
            yield numbers, _one(bodies)
            numbers, bodies, events, size = [], [], 0, 0
        if message.exchange != CALLBACKS:
            yield [number], message
            continue
        numbers.append(number)
        bodies.append(message.body)
        events, size = events + count, size + len(message.body)
    if numbers:
        yield numbers, _one(bodies)


def _one(bodies: Sequence[bytes]) -> OutgoingMessage:
    return OutgoingMessage(CALLBACKS, "", {}, join(body[1:-1] for body in bodies))


def _fresh(message: OutgoingMessage) -> Message:
    return Message(message.exchange, message.routing_key, message.body, uuid.uuid4().hex, headers=message.headers)
