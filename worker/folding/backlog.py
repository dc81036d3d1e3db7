"""The worker's part in the barrier: it sends rounds of markers through `callbacks.fold`, and reports those it has passed.

No timer of any worker overtakes a callback that is not folded yet: see `shared/barrier.py`.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NoReturn

from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS_FOLD, MARKER, MARKER_BODY, SPOOL, SPOOL_OLDEST, SPOOL_SEEN
from shared.domain.facts import milliseconds
from shared.domain.raw_event import is_time
from shared.errors import BrokerUnavailableError, StoreUnavailableError
from shared.log import get_logger
from shared.state.store import Store
from shared.state.watermark import SpoolNews

log = get_logger(__name__)

_PAUSE_S = 0.3
_RETRY_S = 0.5


class BacklogReporter:
    """Sends markers, and reports which ones this worker has passed. It decides nothing: `shared/barrier.py` does."""

    def __init__(self, store: Store, publisher: Publisher, raw: Consumer) -> None:
        """Use the consumer of `callbacks.fold`, which registers with `Watermarks.join`."""
        self._store = store
        self._publisher = publisher
        self._raw = raw

    async def send_markers(self) -> NoReturn:
        """Open a round whenever it is time, for as long as the process lives. Run it as a task."""
        while True:
            await asyncio.sleep(_PAUSE_S * random.uniform(0.5, 1))  # noqa: S311 - spreads the workers, no secret
            try:
                await self._send_round()
            except (BrokerUnavailableError, StoreUnavailableError) as error:
                log.warning("markers_not_sent", detail=str(error))

    async def _send_round(self) -> None:
        if not (self._publisher.is_up and self._raw.is_up):
            return
        number = await self._store.watermarks.open_round(pause_s=_PAUSE_S)
        if number is None:
            return
        consumers = await self._publisher.count_consumers(CALLBACKS_FOLD)
        # The order matters: open, count, note the count, and only then publish. `barrier.py` says why.
        # RabbitMQ answers 0 when the queue does not answer it in time: this consumer is one, so the round is given up.
        if consumers and await self._store.watermarks.count_consumers(number, consumers):
            await self._publisher.publish(*(_marker(number) for _ in range(consumers)))

    async def report(self) -> NoReturn:
        """Report each round that this worker has passed, for as long as the process lives. Run it as a task."""
        while True:
            in_flight = self._raw.in_flight
            in_flight.has_passed.clear()
            try:
                if in_flight.passed_round and self._raw.is_up:
                    await self._report(in_flight.consumer, in_flight.passed_round)
            except StoreUnavailableError as error:
                log.warning("round_not_reported", detail=str(error))
                in_flight.has_passed.set()
                await asyncio.sleep(_RETRY_S)
            with suppress(TimeoutError):  # the consumer may have another channel by then
                async with asyncio.timeout(_RETRY_S):
                    await in_flight.has_passed.wait()

    async def _report(self, consumer: str, number: int) -> None:
        if not await self._store.watermarks.pass_round(consumer, number):
            await self._store.watermarks.join(consumer)  # Redis has lost its state


def _marker(number: int) -> Message:
    return Message("", CALLBACKS_FOLD, MARKER_BODY, uuid.uuid4().hex, headers={MARKER: str(number)})


def spool_news(headers: Iterable[Mapping[str, object]]) -> list[SpoolNews]:
    """Read what ingress reported of its spools; the order does not matter."""
    news = []
    for report in headers:
        oldest, seen = str(report.get(SPOOL_OLDEST, "")), _milliseconds(str(report.get(SPOOL_SEEN)))
        oldest_at = _milliseconds(oldest) if oldest else None
        if seen is not None and (oldest_at is not None) == bool(oldest):
            news.append(SpoolNews(str(report[SPOOL]), oldest_at, seen))
    return news


def _milliseconds(text: str) -> int | None:
    """Read a time of ingress; what is none says nothing: anybody may publish to the exchange."""
    return milliseconds(text) if is_time(text) else None
