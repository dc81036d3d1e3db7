"""A delivery is not kept for longer than the broker allows, however long its work takes.

RabbitMQ takes back what is not acked within its `consumer_timeout`, and closes the channel. Work that takes longer is handed
over: a copy of the job is published, to wait in the broker, and the delivery acked while the work goes on under its lock. Who
gets the copy finds the recording locked and lets it wait again; then a note that the work came to its end, and drops it; or,
where the worker died, neither, and does the work.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

from shared.amqp.consumer import Delivery
from shared.amqp.publisher import Message
from shared.state.store import Store, until_redis_answers
from worker.recordings.attempt import Attempt

# Longer than any copy waits: they wait in the first retry queue.
_NOTED_S = 2 * 86400.0


class HeldDelivery:
    """A delivery that is kept, or was handed over."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.attempt: Attempt | None = None
        self._token: str | None = None
        self._is_over = False
        self._acked = asyncio.Event()

    @property
    def is_handed_over(self) -> bool:
        return self._token is not None

    def copy(self, wait_s: float) -> Message | None:
        """Write the copy that is to wait in the broker; None where the work is over, or has not begun."""
        if self._is_over or self.attempt is None:
            return None
        self._token = uuid.uuid4().hex
        return replace(self.attempt, handed_over=self._token).retry(wait_s, tried=False, may_have_stored=True)

    async def hand_over(self) -> None:
        """Ack, the copy being confirmed."""
        await self.delivery.ack()
        self._acked.set()

    def close(self) -> bool:
        """Hand over no more; False where that has been done, so that the copy is the job now."""
        self._is_over = True
        return not self.is_handed_over

    async def end(self, store: Store) -> None:
        """Note that all that follows from the work is confirmed, so that its copy is dropped. The recording must be locked."""
        if not self.close() and self._token:
            await self._acked.wait()
            name = self._token
            await until_redis_answers(lambda: store.note(name, keep_s=_NOTED_S))


async def has_ended(attempt: Attempt, store: Store) -> bool:
    """Tell whether a job is the copy of one whose work came to its end. The recording must be locked."""
    name = attempt.handed_over
    return name is not None and await until_redis_answers(lambda: store.is_noted(name))
