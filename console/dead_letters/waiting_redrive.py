"""A redrive of callbacks that waits until workers have folded them, and looks which ones came back."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from console.dead_letters.queue import DeadLetterQueue, Filter, QueuedDeadLetter
from console.dead_letters.redrive_or_drop import Settled, SettleRequest, settle
from console.dead_letters.turns import reader_of
from shared.amqp.echo import EchoQueue, echo_number
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import CALLBACKS_FOLD, ECHO_ID, ECHO_TO
from shared.config.settings import Settings
from shared.domain.raw_event import Undecodable, decode, encode
from shared.masking import mask_credentials
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.streams.connections import wait_until_connected

WAIT_S = 15.0
# Of so many events it is noticed that they come back, so that a redrive needs little memory.
_MOST_EVENTS = 20_000
_CONSUMER_CHECKS = 3
# How often it is checked whether echoes can still arrive.
_ECHO_CHECK_S = 0.2


@dataclass(frozen=True, slots=True)
class Returned:
    """Result of a redrive, once workers have folded the callbacks.

    Attributes:
        reasons: those that are dead letters again, by reason and detail.
        not_folded: how many no worker had reported as folded by the end of the wait.
        unknown: how many may have been folded without a report, because the connection for it was lost.
        has_worker: whether a worker consumed the queue at the end of the redrive.
        is_complete: False if the queue is too long to be read to its end, or more were redriven than are followed.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    not_folded: int = 0
    unknown: int = 0
    has_worker: bool = True
    is_complete: bool = True

    @property
    def count(self) -> int:
        return self.reasons.total()


async def redrive_and_wait(
    settings: Settings,
    query: Filter,
    request: SettleRequest,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Settled, Returned]:
    """Redrive callbacks, then wait until they are folded, at most `WAIT_S`; returns what was redriven and what came back.

    Raises:
        BrokerUnavailableError: the audit line could not be published, so no dead letter was redriven.
        CallfoldError: the connection to RabbitMQ was lost before the end of the redrive.
    """
    async with _following(settings) as followed:
        settled = await settle(
            settings, DeadLetterQueue.CALLBACKS, query, request, progress=progress, headers_of=followed.headers_of
        )
        if not settled.done:
            return settled, Returned()
        has_worker = await _has_worker(settings)
        if has_worker:
            await followed.wait(WAIT_S)
        return settled, await _returned(settings, followed, has_worker=has_worker)


class _Publish(NamedTuple):
    """Dead letters of one publish, and the queue to which a worker reports them."""

    queue: str
    size: int


class _Followed:
    """Redriven callbacks, each until a worker's echo says that it is folded."""

    def __init__(self, echoes: EchoQueue) -> None:
        self._echoes = echoes
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Publish] = {}
        self.unknown = 0
        self._changed = asyncio.Event()
        self.events: set[bytes] = set()
        self.has_all = True

    def headers_of(self, dead_letters: Sequence[QueuedDeadLetter]) -> Mapping[str, str | int]:
        """Follow the dead letters of one publish; returns the headers of its last message, which ask for an echo.

        Workers keep up to 100 echoes at a time, so one is asked for a publish.
        """
        for dead_letter in dead_letters:
            digests = _digests(dead_letter.delivery.body)
            self.has_all = self.has_all and len(self.events) + len(digests) <= _MOST_EVENTS
            if self.has_all:
                self.events |= digests
        queue = self._echoes.name
        if queue is None:
            self.unknown += len(dead_letters)
            return {}
        number = next(self._numbers)
        self._waiting[number] = _Publish(queue, len(dead_letters))
        return {ECHO_TO: queue, ECHO_ID: number}

    @property
    def not_folded(self) -> int:
        return sum(publish.size for publish in self._waiting.values())

    async def run(self) -> NoReturn:
        """Take echoes until cancelled."""
        while True:
            delivery = await self._echoes.get()
            self._waiting.pop(echo_number(delivery.headers) or 0, None)
            await delivery.ack()
            self._changed.set()

    async def wait(self, within_s: float) -> None:
        """Wait until all are folded that an echo can report, or until the time is up."""
        end = time.monotonic() + within_s
        self._give_up_lost()
        while self._waiting and (left := end - time.monotonic()) > 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _ECHO_CHECK_S)):
                    await self._changed.wait()
            self._give_up_lost()

    def _give_up_lost(self) -> None:
        """Count as unknown what was to be reported to a queue that is gone: each connection has a new one."""
        queue = self._echoes.name
        for number, publish in list(self._waiting.items()):
            if publish.queue != queue:
                self.unknown += self._waiting.pop(number).size


@asynccontextmanager
async def _following(settings: Settings) -> AsyncIterator[_Followed]:
    echoes = EchoQueue(broker_address(settings, "dead-letters"))
    followed = _Followed(echoes)
    async with background(echoes.run(), followed.run()):
        await wait_until_connected(echoes)
        yield followed


async def _has_worker(settings: Settings) -> bool:
    reader = QueueReader(broker_address(settings, "dead-letters"), CALLBACKS_FOLD)
    async with background(reader.run()):
        await wait_until_connected(reader)
        # RabbitMQ also returns 0 if the queue does not answer it in time.
        for _ in range(_CONSUMER_CHECKS):
            if await reader.count_consumers():
                return True
        return False


async def _returned(settings: Settings, followed: _Followed, *, has_worker: bool) -> Returned:
    """Find dead letters with an event that was redriven. They come behind all that were there."""
    async with reader_of(settings, DeadLetterQueue.CALLBACKS) as reader:

        async def look() -> Returned:
            reasons = Counter[str]()
            async with reader.look() as turn, aclosing(turn.bounded_batches()) as batches:
                async for batch in batches:
                    reasons.update(
                        f"{each.reason}: {mask_credentials(each.detail)}"
                        for each in batch
                        if not followed.events.isdisjoint(_digests(each.delivery.body))
                    )
            is_complete = followed.has_all and turn.read >= turn.total and not turn.is_partial
            return Returned(reasons, followed.not_folded, followed.unknown, has_worker, is_complete)

        return await reader.retried(look)


def _digests(body: bytes) -> set[bytes]:
    """Return a digest of each event of a message: a worker dead-letters single events of a message."""
    bodies = (event.body if isinstance(event, Undecodable) else encode(event) for event in decode(body))
    return {hashlib.blake2b(each, digest_size=16).digest() for each in bodies}
