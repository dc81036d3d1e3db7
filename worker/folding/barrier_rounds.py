"""The worker's part in the barrier: it publishes rounds of markers to `callbacks.fold` and reports the rounds it has passed.

The barrier ensures that no timer overtakes a callback that is not folded yet. See `shared/domain/barrier.py`.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from callfold_client.envelope import is_time
from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS_FOLD, MARKER, MARKER_BODY, SPOOL, SPOOL_OLDEST, SPOOL_SEEN
from shared.domain.times import milliseconds
from shared.errors import BrokerUnavailableError, StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.process import wait_at_most
from shared.state.store import Store
from shared.state.watermark import SpoolReport

log = get_logger(__name__)
_MARKERS = Outage(log, "markers_not_sent", "markers_sent")
_REPORTS = Outage(log, "round_report_failed", "round_reported")

_ROUND_PAUSE_S = 0.3
_RETRY_S = 0.5


class BarrierRounds:
    """Publishes markers and reports which ones this worker has passed; `shared/domain/barrier.py` draws the conclusions."""

    def __init__(self, store: Store, publisher: Publisher, raw: Consumer, *, on_refused: Callable[[], None]) -> None:
        """Take the consumer of `callbacks.fold`, which must register with `Watermarks.register`.

        `on_refused` is called when RabbitMQ does not accept markers, as under an alarm or with a full queue.
        """
        self._on_refused = on_refused
        self._store = store
        self._publisher = publisher
        self._raw = raw

    async def send_markers(self) -> NoReturn:
        """Open rounds and publish their markers until cancelled. Run it as a task."""
        while True:
            await asyncio.sleep(_ROUND_PAUSE_S * random.uniform(0.5, 1))  # noqa: S311 - spreads the workers, no secret
            try:
                await self._send_round()
            except BrokerUnavailableError as error:
                self._on_refused()
                _MARKERS.failed(str(error))
            except StoreUnavailableError as error:
                _MARKERS.failed(str(error))

    async def _send_round(self) -> None:
        if not (self._publisher.is_up and self._raw.is_up):
            return
        number = await self._store.watermarks.open_round(pause_s=_ROUND_PAUSE_S)
        if number is None:
            return
        consumers = await self._publisher.count_consumers(CALLBACKS_FOLD)
        # The order matters: open, count, record the count, and only then publish. See `shared/domain/barrier.py`.
        # RabbitMQ also returns 0 if the queue does not answer in time. This worker is a consumer, so 0 is wrong: skip the round.
        if consumers and await self._store.watermarks.store_consumer_count(number, consumers):
            await self._publisher.publish(*(_marker(number) for _ in range(consumers)))
            _MARKERS.succeeded()

    async def report(self) -> NoReturn:
        """Report passed rounds until cancelled. Run it as a task."""
        while True:
            in_flight = self._raw.in_flight
            in_flight.has_passed.clear()
            try:
                for consumer in self._raw.take_settled():
                    await self._store.watermarks.unregister(consumer)
                if in_flight.passed_round and self._raw.is_up:
                    await self._report(in_flight.consumer, in_flight.passed_round)
                    _REPORTS.succeeded()
            except StoreUnavailableError as error:
                _REPORTS.failed(str(error))
                in_flight.has_passed.set()
                await asyncio.sleep(_RETRY_S)
            await wait_at_most(in_flight.has_passed, _RETRY_S)  # the consumer may have reconnected: read its channel again

    async def _report(self, consumer: str, number: int) -> None:
        if not await self._store.watermarks.pass_round(consumer, number):
            await self._store.watermarks.register(consumer)  # Redis has lost the registration


def _marker(number: int) -> Message:
    return Message("", CALLBACKS_FOLD, MARKER_BODY, uuid.uuid4().hex, headers={MARKER: str(number)})


def spool_reports(headers: Iterable[Mapping[str, object]]) -> list[SpoolReport]:
    """Read what ingress reported about its spools; the order does not matter."""
    reports = []
    for drained in headers:
        oldest, seen = str(drained.get(SPOOL_OLDEST, "")), _milliseconds(str(drained.get(SPOOL_SEEN)))
        oldest_at = _milliseconds(oldest) if oldest else None
        if seen is not None and (oldest_at is not None) == bool(oldest):
            reports.append(SpoolReport(str(drained[SPOOL]), oldest_at, seen))
    return reports


def _milliseconds(text: str) -> int | None:
    """Read a time that ingress wrote; any other text is ignored, since other clients may publish to the exchange."""
    return milliseconds(text) if is_time(text) else None
