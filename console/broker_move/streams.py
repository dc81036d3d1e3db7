"""Copies one stream from its first message on, and follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NoReturn

from shared.amqp.batch_publish import HeaderValue
from shared.amqp.broker_admin import BrokerAdmin
from shared.amqp.copying import CopySource, without_equal_ids
from shared.amqp.topology import move_exchange
from shared.errors import BrokerUnavailableError
from shared.runtime.process import background
from shared.state.broker_move import BrokerMoveNotes
from shared.state.replies import until_redis_answers

_PREFETCH = 500
_BATCH_BYTES = 4 << 20
_LOOK_S = 0.5


class StreamCopy:
    """Copies one stream for as long as it runs. After an interruption it copies again what it had not noted yet.

    Attributes:
        next_offset: of the first message that is not copied yet.
        end: the offset behind the last message, when it was last looked for.
    """

    def __init__(self, stream: str, old: BrokerAdmin, new: BrokerAdmin, notes: BrokerMoveNotes, next_offset: int) -> None:
        self.stream = stream
        self.next_offset = next_offset
        self.end = 0
        self._new = new
        self._notes = notes
        self._source = CopySource(old.address, stream, prefetch=_PREFETCH, arguments=self._arguments)

    def _arguments(self) -> Mapping[str, HeaderValue]:
        return {"x-stream-offset": self.next_offset or "first"}

    async def run(self) -> NoReturn:
        """Copy until cancelled. Run it as a task."""
        async with background(self._source.run()):
            while True:
                await self._copy_waiting()

    async def catch_up(self) -> None:
        """Wait until everything is copied that any server of the old broker has in the stream now."""
        while True:
            await self._source.wait_until_up()
            try:
                last = await self._source.latest_stream_end()
            except BrokerUnavailableError:
                await asyncio.sleep(_LOOK_S)
                continue
            break
        self.end = 0 if last is None else last + 1
        while True:
            if self.next_offset >= self.end:
                return
            await asyncio.sleep(_LOOK_S)

    async def _copy_waiting(self) -> None:
        deliveries = [await self._source.get()]
        deliveries += self._source.get_waiting(_BATCH_BYTES)
        # A consumer starts at the boundary of a chunk, which can repeat older messages.
        new = [delivery for delivery in deliveries if delivery.offset >= self.next_offset]
        for batch in without_equal_ids(self._source.copies(new, move_exchange(self.stream))):
            await self._new.copy_until_confirmed(batch)
        if new:
            self.next_offset = new[-1].offset + 1
            await until_redis_answers(lambda: self._notes.copied(self.stream, self.next_offset))
        for delivery in deliveries:
            await delivery.ack()
