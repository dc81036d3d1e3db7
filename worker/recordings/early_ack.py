"""Acks the delivery of a long download early, so that RabbitMQ does not take it back while the download lasts.

RabbitMQ closes the channel of a consumer that has not acked within `consumer_timeout` (docs/adr/0008-long-downloads.md). So
after a while a copy of the job is published to the first retry queue, and the delivery is acked. The download goes on under
its lock. A worker that consumes the copy finds the recording locked, and lets the copy wait again. Once the work is done, a
note in Redis says so, and the copy is dropped. If the worker died, the lock expires without a note, and the copy is the job.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from worker.recordings.attempt import Attempt

# Longer than any copy waits in the first retry queue.
_NOTE_KEPT_S = 2 * 86400.0


class HeldDelivery:
    """A delivery that is acked when its job is done, or earlier, with a copy of the job left to RabbitMQ."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.attempt: Attempt | None = None
        self._copy_id: str | None = None
        self._is_closed = False
        self._acked = asyncio.Event()

    @property
    def is_handed_over(self) -> bool:
        return self._copy_id is not None

    def hand_over(self, wait_s: float) -> Message | None:
        """Return the copy to publish; None if the work is over, or its job not read yet."""
        if self._is_closed or self.attempt is None:
            return None
        # A copy of a copy has its id: one note says of both that the work is done.
        self._copy_id = self.attempt.handed_over or uuid.uuid4().hex
        return replace(self.attempt, handed_over=self._copy_id).retry(wait_s, counts=False, may_have_stored=True)

    async def ack_early(self) -> None:
        """Ack the delivery. Its copy must have been confirmed."""
        await self.delivery.ack()
        self._acked.set()

    def close(self) -> bool:
        """Prevent a later hand-over. Return whether this delivery is still the job; otherwise its copy is."""
        self._is_closed = True
        return not self.is_handed_over

    async def note_done(self, store: Store) -> None:
        """Write the note for the copy, if there is one: its work is done. The recording must still be locked."""
        if not self.close() and self._copy_id:
            await self._acked.wait()
            name = self._copy_id
            await until_redis_answers(lambda: store.flags.set(name, expires_in_s=_NOTE_KEPT_S))


async def is_noted_done(attempt: Attempt, store: Store) -> bool:
    """Return whether this is a copy whose work is done. The recording must be locked."""
    name = attempt.handed_over
    return name is not None and await until_redis_answers(lambda: store.flags.is_set(name))
