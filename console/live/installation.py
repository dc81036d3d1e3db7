"""Measures the whole installation for the metrics of the console: open calls, queues, and the ages of what waits.

A value that cannot be found out has no series: 0 would mean that nothing waits.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NoReturn

from console.dead_letters.queue import decode
from shared import metrics
from shared.amqp.management import read_management
from shared.amqp.queue_reader import QueueDepths, QueueReader
from shared.amqp.topology import CALLBACKS_DEAD, CALLBACKS_FOLD, FORWARD_DEAD, RECORDINGS, RECORDINGS_DEAD, retry_queue
from shared.config.settings import Settings
from shared.domain.barrier import complete_round
from shared.domain.call import Status, derive
from shared.domain.closing import Policy
from shared.domain.ids import CallKey
from shared.domain.times import milliseconds
from shared.errors import BrokerUnavailableError, CallfoldError
from shared.runtime.broker import broker_address
from shared.state.keys import parse_call_key
from shared.state.store import Store

_INTERVAL_S: Final = 12.0
_STEP_S: Final = 10.0
# A look at dead letters requeues one message, which costs RabbitMQ more than a count.
_LOOK_INTERVAL_S: Final = 60.0
_TURN: Final = "turn"
# Of more open calls, so many random ones show the shares.
_SAMPLE: Final = 500
_DEAD: Final = (CALLBACKS_DEAD, RECORDINGS_DEAD, FORWARD_DEAD)


class Installation:
    """Measures every few seconds, and never ends because a server is away."""

    def __init__(self, settings: Settings, store: Store, depths: QueueDepths) -> None:
        self._settings = settings
        self._store = store
        self._depths = depths
        self._retry_queues = [retry_queue(delay_s) for delay_s in sorted(set(settings.recording_retry_seconds))]
        self._queues = [CALLBACKS_FOLD, CALLBACKS_DEAD, RECORDINGS, RECORDINGS_DEAD, FORWARD_DEAD, *self._retry_queues]
        address = broker_address(settings, "metrics")
        self._dead_letters = {queue: QueueReader(address, queue) for queue in _DEAD}
        self._looked_at = dict.fromkeys(_DEAD, -_LOOK_INTERVAL_S)
        self._dead_since: dict[str, float | None] = dict.fromkeys(_DEAD)

    def tasks(self) -> list[Coroutine[object, object, object]]:
        """Return the endless tasks that measure."""
        return [self._run(), *(reader.run() for reader in self._dead_letters.values())]

    async def _run(self) -> NoReturn:
        while True:
            await self.measure()
            await asyncio.sleep(_INTERVAL_S * random.uniform(0.75, 1.25))  # noqa: S311 - spreads the consoles, no secret

    async def measure(self) -> None:
        """Measure once. What cannot be measured has no series then."""
        of_queues = (metrics.QUEUE_MESSAGES, metrics.QUEUE_OLDEST, metrics.RECORDINGS_WAITING, metrics.RECORDINGS_OLDEST)
        await asyncio.gather(
            _bounded(self._measure_calls, metrics.OPEN_CALLS, metrics.OPEN_CALL_OLDEST),
            _bounded(self._measure_queues, *of_queues),
        )

    async def _measure_calls(self) -> None:
        starts = await self._store.open_starts()
        sample = random.sample(starts, _SAMPLE) if len(starts) > _SAMPLE else starts
        facts = await self._store.read_facts([parse_call_key(name) for _, name in sample])
        by_status: Counter[Status | None] = Counter()
        for key, of_call in facts.items():
            if of_call:
                by_status[_status(key, of_call, self._settings.policy)] += 1
                await asyncio.sleep(0)  # a call of many legs takes milliseconds
        is_open = [status for status in Status if status is not Status.COMPLETE]
        scale = len(starts) / len(sample) if sample else 0.0
        for status in is_open:
            metrics.OPEN_CALLS.set(round(by_status[status] * scale), status)
        now_s = self._store.clock.now().timestamp()
        metrics.OPEN_CALL_OLDEST.set(max(0.0, now_s - starts[-1][0] / 1e6) if starts else 0.0)

    async def _measure_queues(self) -> None:
        depths = await self._count()
        for queue, messages in depths.items():
            metrics.QUEUE_MESSAGES.set(messages, queue)
        metrics.RECORDINGS_WAITING.set(sum(depths[queue] for queue in (RECORDINGS, *self._retry_queues)))
        for queue in _DEAD:
            metrics.QUEUE_OLDEST.set(await self._dead_letter_age_s(queue) if depths[queue] else 0.0, queue)
        metrics.QUEUE_OLDEST.set(await self._fold_age_s() if depths[CALLBACKS_FOLD] else 0.0, CALLBACKS_FOLD)
        oldest_ms = await self._store.unfinished_recordings.oldest_ms()
        if oldest_ms is not None:
            age_s: float | None = max(0.0, self._store.clock.now().timestamp() - oldest_ms / 1000)
        else:
            age_s = None if depths[RECORDINGS] else 0.0  # jobs that no worker has seen yet
        metrics.RECORDINGS_OLDEST.set(age_s)

    async def _count(self) -> Mapping[str, int]:
        """Count the messages of each queue. AMQP shows the ready ones alone; the management API also those in flight."""
        url = self._settings.management_url
        if url is not None:
            try:
                return await read_management(
                    url.get_secret_value(),
                    self._settings.amqp_urls[0],
                    ["queues/{vhost}?columns=name,messages"],
                    self._messages,
                    what="the queues",
                )
            except BrokerUnavailableError:  # a worker logs it as `policies_unreadable`
                pass
        return await self._depths.count(self._queues)

    def _messages(self, answers: Sequence[Any]) -> Mapping[str, int]:
        counts = {row["name"]: int(row["messages"]) for row in answers[0] if "messages" in row}
        return {queue: counts[queue] for queue in self._queues}

    async def _fold_age_s(self) -> float | None:
        """Return the greatest age that a message of `callbacks.fold` can have; None while it is unknown."""
        reports = await self._store.watermarks.reports()
        complete = complete_round(reports.rounds, reports.members)
        return None if complete is None else max(0.0, (reports.now_ms - complete.opened_ms) / 1000)

    async def _dead_letter_age_s(self, queue: str) -> float | None:
        """Return the age of the first dead letter; None if it is unknown, for example because others read the queue."""
        if time.monotonic() - self._looked_at[queue] >= _LOOK_INTERVAL_S:
            self._looked_at[queue] = time.monotonic()
            self._dead_since[queue] = await self._look(queue)
        since_s = self._dead_since[queue]
        return None if since_s is None else max(0.0, time.time() - since_s)

    async def _look(self, queue: str) -> float | None:
        """Return when the first dead letter was first seen (seconds since 1970). A client that reads the queue goes first."""
        reader = self._dead_letters[queue]
        reader.forget_lost_locks()  # none is held between two looks
        if not await reader.try_lock(_TURN):
            return self._dead_since[queue]
        try:
            delivery = await reader.get()
        finally:
            await reader.unlock(_TURN)
        first_seen = decode(delivery).first_seen if delivery is not None else ""
        try:
            return milliseconds(first_seen) / 1000 if first_seen else None
        except (ValueError, TypeError):  # another program wrote the header, for example without a zone
            return None


def _status(key: CallKey, facts: Mapping[str, str], policy: Policy) -> Status | None:
    try:
        return derive(key, facts, policy).status
    except Exception:  # noqa: BLE001 - a bug that one call triggers; the fold dead-letters its callbacks and logs why
        return None


async def _bounded(step: Callable[[], Coroutine[None, None, None]], *measured: metrics.Measurement) -> None:
    """Run a step under a time limit. If it fails, what it measures is unknown; other tasks log why."""
    try:
        async with asyncio.timeout(_STEP_S):
            await step()
    except* (CallfoldError, TimeoutError):
        for measurement in measured:
            measurement.clear()
